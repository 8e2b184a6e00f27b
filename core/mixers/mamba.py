"""Mamba, the first: a selective branch between two projections."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from tristate.core.mixer import Mixer, hide_padding
from tristate.core.parts.selective import SelectiveBranch, SelectiveState


class Mamba(Mixer):
    """Selective state-space mixer: ``out_proj(branch(x, z))`` with ``x, z = in_proj(input)``.

    Time O(L d_inner d_state), state O(d_inner (d_state + d_conv)).

    Args:
        d_model: width of input and output.
        d_state: states per channel.
        d_conv: taps of the convolution.
        expand: ``d_inner = expand * d_model``.
        dt_rank: width of the step sizes' projection; ``ceil(d_model / 16)`` when absent.
        bias: biases in the two projections.
        gate: weigh what comes out by ``silu(z)``; without there is no ``z``.
        reverse: read time backwards; then the mixer is not causal, and has no state.
        **branch: the other arguments of :class:`tristate.core.parts.selective.SelectiveBranch`.

    Source: Gu & Dao 2023, https://arxiv.org/abs/2312.00752.
    """

    packs = True

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 16,
        d_conv: int = 4,
        expand: float = 2,
        dt_rank: int | None = None,
        bias: bool = False,
        gate: bool = True,
        reverse: bool = False,
        **branch: Any,
    ) -> None:
        super().__init__()
        self.d_model = d_model
        self.causal = not reverse
        self.memory = "none" if reverse else "constant"
        d_inner = int(expand * d_model)
        self.in_proj = nn.Linear(d_model, (1 + gate) * d_inner, bias=bias)
        self.branch = SelectiveBranch(
            d_inner,
            d_state=d_state,
            d_conv=d_conv,
            dt_rank=dt_rank or math.ceil(d_model / 16),
            reverse=reverse,
            **branch,
        )
        self.out_proj = nn.Linear(d_inner, d_model, bias=bias)

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """What is scanned, and what gates it."""
        both = self.in_proj(x).split(self.branch.d_inner, dim=-1)
        return both[0], both[1] if len(both) > 1 else None

    def forward(self, x: Tensor, *, seq_idx: Tensor | None = None) -> Tensor:
        """Mix ``x (B, L, d_model)``."""
        y, _ = self.branch(*self._split(x), seq_idx=seq_idx)
        return hide_padding(self.out_proj(y), seq_idx)

    def forward_state(
        self, x: Tensor, state: SelectiveState | None = None, *, seq_idx: Tensor | None = None
    ) -> tuple[Tensor, SelectiveState]:
        """Mix ``x`` from ``state`` on."""
        if not self.causal:
            return super().forward_state(x, state, seq_idx=seq_idx)
        y, last = self.branch(*self._split(x), state, seq_idx=seq_idx)
        return hide_padding(self.out_proj(y), seq_idx), last

    def init_state(
        self,
        batch_size: int,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> SelectiveState:
        """Zeros."""
        if not self.causal:
            return super().init_state(batch_size)
        return self.branch.init_state(batch_size, device=device, dtype=dtype)
