"""A diagonal complex recurrence between two dense complex maps: what S5 and the LRU are made of."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tristate.core.mixer import Mixer, at_least_float32
from tristate.kernels.linear import linear_scan


class DiagonalState(NamedTuple):
    """The recurrence's hidden state."""

    hidden: Tensor  # (B, n_states), complex


class DiagonalRecurrence(Mixer):
    """``h[t] = a h[t-1] + g (B x[t])``, ``y[t] = Re(C h[t]) + D x[t]``, linear in ``x``.

    ``B`` and ``C`` are dense and complex (many inputs, many outputs), ``a`` and ``g`` one complex
    number a state, which a subclass makes of its parameters in :meth:`transition`. Two-sided, the
    same recurrence also runs back, and is read by a second ``C``; both directions see the position
    itself. Time O(L d_model n_states), memory O(L n_states), state O(n_states).

    Complex parameters are kept as pairs of real ones on their last axis.

    Args:
        d_model: width of input and output.
        n_states: complex states.
        bidirectional: read both ways; then the mixer is not causal.
        conjugate: each state stands for itself and its conjugate: ``y = 2 Re(C h) + D x``.
    """

    packs = True

    def __init__(
        self,
        d_model: int,
        n_states: int,
        *,
        bidirectional: bool = False,
        conjugate: bool = False,
    ) -> None:
        super().__init__()
        self.d_model, self.n_states, self.conjugate = d_model, n_states, conjugate
        self.causal = not bidirectional
        self.memory = "none" if bidirectional else "constant"
        self.B = nn.Parameter(torch.empty(n_states, d_model, 2))
        self.C = nn.Parameter(torch.empty(1 + bidirectional, d_model, n_states, 2))
        self.D = nn.Parameter(torch.empty(d_model))

    def transition(self) -> tuple[Tensor, Tensor]:
        """``a`` and ``g``, ``(n_states,)`` each, complex or real, at least single precision."""
        raise NotImplementedError

    def forward(self, x: Tensor, *, seq_idx: Tensor | None = None) -> Tensor:
        """Mix ``x (B, L, d_model)``."""
        if self.causal:
            return self.forward_state(x, seq_idx=seq_idx)[0]
        a, driven = self._driven(x)
        ways = [linear_scan(a, driven, seq_idx=seq_idx, reverse=way)[0] for way in (False, True)]
        return self.read(torch.cat(ways, -1), x)

    def forward_state(
        self, x: Tensor, state: DiagonalState | None = None, *, seq_idx: Tensor | None = None
    ) -> tuple[Tensor, DiagonalState]:
        """Mix ``x`` from ``state`` on."""
        if not self.causal:
            return super().forward_state(x, state, seq_idx=seq_idx)
        a, driven = self._driven(x)
        before = None if state is None else state.hidden
        hidden, last = linear_scan(a, driven, initial_state=before, seq_idx=seq_idx)
        return self.read(hidden, x), DiagonalState(last)

    def init_state(
        self,
        batch_size: int,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> DiagonalState:
        """Zeros, complex."""
        if not self.causal:
            return super().init_state(batch_size)
        wide = torch.promote_types(dtype or self.D.dtype, torch.complex64)
        device = device or self.D.device
        return DiagonalState(torch.zeros(batch_size, self.n_states, device=device, dtype=wide))

    def step(self, x: Tensor, state: DiagonalState) -> tuple[Tensor, DiagonalState]:
        """Mix one position, ``(B, d_model)``."""
        if not self.causal:
            return super().step(x, state)
        a, driven = self._driven(x)
        hidden = a * state.hidden + driven
        return self.read(hidden, x), DiagonalState(hidden)

    def _driven(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``a``, and ``g (B x)``, ``(..., n_states)`` complex."""
        x = at_least_float32(x)
        a, gain = self.transition()
        # One real product: the parts of each state's row of B stand side by side.
        rows = self.B.transpose(1, 2).reshape(-1, self.d_model).to(x.dtype)
        parts = at_least_float32(F.linear(x, rows))
        return a, gain * torch.view_as_complex(parts.unflatten(-1, (self.n_states, 2)))

    def read(self, hidden: Tensor, x: Tensor) -> Tensor:
        """``Re(C h) + D x`` in the dtype of ``x``; directions one after another in ``hidden``."""
        parts = torch.view_as_real(hidden).flatten(-2)
        signs = parts.new_tensor([1.0, -1.0]) * (2 if self.conjugate else 1)
        columns = (self.C.transpose(0, 1).to(parts.dtype) * signs).flatten(1)
        y = F.linear(parts, columns)
        return (y + self.D.to(y.dtype) * x.to(y.dtype)).to(x.dtype)
