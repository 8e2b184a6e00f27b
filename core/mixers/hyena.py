"""Hyena: long implicit convolutions and gates in turn."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tristate.core.activation import activation_named
from tristate.core.mixer import Mixer, refuse_segments
from tristate.core.parts.conv import CausalConv1d
from tristate.core.parts.hyena_filter import HyenaFilter
from tristate.core.parts.past import convolve, keep


class HyenaState(NamedTuple):
    """The inputs that the short and the long filters still reach."""

    conv: Tensor  # (B, (order + 1) * d_model, d_conv - 1)
    inputs: Tensor  # (B, order - 1, d_model, at most max_length - 1), the newest last


class Hyena(Mixer):
    """``out_proj(x_0 * h_1 * (x_1 * h_2 * (x_2 ... v)))``: gates and long convolutions in turn.

    ``x_0, ..., x_{order-1}, v`` are projections of the input behind short convolutions; each filter
    ``h`` is made of positions by :class:`~tristate.core.parts.hyena_filter.HyenaFilter` and has
    a weight of the input itself. Order 2 is one long convolution between two gates, as in H3.

    Time O(order d_model L log L). What is ``max_length`` or more positions back is not seen. A step
    costs O(order d_model max_length); the state is as large.

    Args:
        d_model: width of input and output.
        order: gates; the long convolutions are one fewer.
        max_length: taps of the long filters.
        d_conv: taps of the short ones.
        activation: in front of ``out_proj``.
        dropout: rate on what enters the long convolutions.
        conv_bias: let the long convolutions weigh the input itself.
        **filter: the other arguments of :class:`tristate.core.parts.hyena_filter.HyenaFilter`.

    Raises:
        ValueError: the order is below 2.

    Source: Poli et al. 2023, https://arxiv.org/abs/2302.10866, algorithms 1 to 3;
    https://github.com/HazyResearch/safari.
    """

    memory = "window"

    def __init__(
        self,
        d_model: int,
        *,
        order: int = 2,
        max_length: int = 1024,
        d_conv: int = 3,
        activation: str = "none",
        dropout: float = 0.0,
        conv_bias: bool = True,
        **filter: Any,
    ) -> None:
        super().__init__()
        if order < 2:
            raise ValueError(f"order must be 2 at least, got {order}")
        self.d_model, self.order, self.max_length = d_model, order, max_length
        self.in_proj = nn.Linear(d_model, (order + 1) * d_model)
        self.short = CausalConv1d((order + 1) * d_model, d_conv, activation=None)
        self.filter = HyenaFilter((order - 1) * d_model, max_length, **filter)
        # Channels are outer, orders inner, in both.
        self.D = nn.Parameter(torch.randn((order - 1) * d_model)) if conv_bias else None
        self.activation = activation_named(activation)
        self.dropout = nn.Dropout(dropout)
        self.out_proj = nn.Linear(d_model, d_model)

    def forward_state(
        self, x: Tensor, state: HyenaState | None = None, *, seq_idx: Tensor | None = None
    ) -> tuple[Tensor, HyenaState]:
        """Mix ``x (B, L, d_model)`` from ``state`` on."""
        refuse_segments(self, seq_idx)
        past = 0 if state is None else state.inputs.shape[3]
        return self._mix(x, state, self.filter(min(past + x.shape[1], self.max_length)))

    def step(self, x: Tensor, state: HyenaState) -> tuple[Tensor, HyenaState]:
        """Mix one position, ``(B, d_model)``; the filters are computed once, without gradients."""
        y, state = self._mix(x[:, None], state, self.filter.remembered())
        return y[:, 0], state

    def init_state(
        self,
        batch_size: int,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> HyenaState:
        """Zeros before the short filters, no inputs yet before the long ones."""
        weight = self.short.weight
        device, dtype = device or weight.device, dtype or weight.dtype
        wide = torch.promote_types(dtype, torch.float32)
        d_inner, d_conv = weight.shape
        return HyenaState(
            torch.zeros(batch_size, d_inner, d_conv - 1, device=device, dtype=wide),
            torch.zeros(batch_size, self.order - 1, self.d_model, 0, device=device, dtype=wide),
        )

    def _mix(self, x: Tensor, state: HyenaState | None, taps: Tensor) -> tuple[Tensor, HyenaState]:
        inner, conv = self.short(self.in_proj(x), None if state is None else state.conv)
        *gates, v = inner.transpose(1, 2).chunk(self.order + 1, 1)  # (B, d_model, L) each
        n_convs = self.order - 1
        taps = taps.unflatten(0, (self.d_model, n_convs))
        D = None if self.D is None else self.D.unflatten(0, (self.d_model, n_convs))
        kept = []
        for i, gate in enumerate(reversed(gates[1:])):
            v = self.dropout(v * gate)
            past = None if state is None else state.inputs[:, i]
            kept.append(keep(v, past, self.max_length - 1))
            v = convolve(v, taps[:, i], None if D is None else D[:, i], past)
        y = self.activation((v * gates[0]).transpose(1, 2))
        return self.out_proj(y), HyenaState(conv, torch.stack(kept, 1))
