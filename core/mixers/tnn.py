"""TNN's gated Toeplitz unit: a long convolution of lags, gated."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tristate.core.activation import activation_named
from tristate.core.mixer import Mixer, refuse_segments
from tristate.core.parts.toeplitz import Toeplitz


class TNNState(NamedTuple):
    """All inputs of the Toeplitz operator so far."""

    inputs: Tensor  # (B, d_inner, T), the newest last


class TNN(Mixer):
    """``out_proj(norm(u * toeplitz(v)))`` with ``u = act(u_proj(x))``, ``v = act(v_proj(x))``.

    The operator's taps are computed from their lags, so that any length can be read; see
    :class:`tristate.core.parts.toeplitz.Toeplitz`. Time O(L log L) a channel. The state grows with
    the sequence, and a step costs O(d_inner T) after ``T`` positions; with lags that are fractions
    of the length there is no state, and the mixer is not causal: a longer sequence has other taps.

    Args:
        d_model: width of input and output.
        expand: ``d_inner = expand * d_model``.
        bidirectional: see what is ahead too.
        activation: of ``u`` and ``v``.
        bias: biases in the projections.
        norm: a norm in front of ``out_proj``; None for none.
        **toeplitz: the other arguments of :class:`tristate.core.parts.toeplitz.Toeplitz`.

    Source: Qin et al. 2023, https://arxiv.org/abs/2305.04749, section 3.4;
    https://github.com/OpenNLPLab/Tnn.
    """

    def __init__(
        self,
        d_model: int,
        *,
        expand: float = 3,
        bidirectional: bool = False,
        activation: str = "silu",
        bias: bool = True,
        norm: nn.Module | None = None,
        **toeplitz: Any,
    ) -> None:
        super().__init__()
        self.d_model = d_model
        d_inner = round(expand * d_model)
        self.u_proj = nn.Linear(d_model, d_inner, bias=bias)
        self.v_proj = nn.Linear(d_model, d_inner, bias=bias)
        self.activation = activation_named(activation)
        self.toeplitz = Toeplitz(d_inner, bidirectional=bidirectional, **toeplitz)
        self.norm = norm if norm is not None else nn.Identity()
        self.out_proj = nn.Linear(d_inner, d_model, bias=bias)
        self.causal = not (bidirectional or self.toeplitz.depends_on_length)
        self.memory = "history" if self.causal else "none"

    def forward(self, x: Tensor, *, seq_idx: Tensor | None = None) -> Tensor:
        """Mix ``x (B, L, d_model)``."""
        refuse_segments(self, seq_idx)
        u, v = self._inputs(x)
        return self._leave(u, self.toeplitz(v))

    def forward_state(
        self, x: Tensor, state: TNNState | None = None, *, seq_idx: Tensor | None = None
    ) -> tuple[Tensor, TNNState]:
        """Mix ``x`` from ``state`` on."""
        if not self.causal:
            return super().forward_state(x, state, seq_idx=seq_idx)
        refuse_segments(self, seq_idx)
        u, v = self._inputs(x)
        past = None if state is None else state.inputs
        y = self._leave(u, self.toeplitz.after(v, past))
        return y, TNNState(v if past is None else torch.cat([past.to(v.dtype), v], 2))

    def init_state(
        self,
        batch_size: int,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> TNNState:
        """No inputs yet."""
        if not self.causal:
            return super().init_state(batch_size)
        weight = self.v_proj.weight
        wide = torch.promote_types(dtype or weight.dtype, torch.float32)
        shape = (batch_size, weight.shape[0], 0)
        return TNNState(torch.zeros(shape, device=device or weight.device, dtype=wide))

    def _inputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``u (B, L, d_inner)`` and ``v (B, d_inner, L)``."""
        u, v = self.activation(self.u_proj(x)), self.activation(self.v_proj(x))
        return u, v.transpose(1, 2)

    def _leave(self, u: Tensor, y: Tensor) -> Tensor:
        return self.out_proj(self.norm(u * y.transpose(1, 2)))
