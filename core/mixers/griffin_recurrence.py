"""Griffin's recurrent block: a short filter and the RG-LRU on one branch, a gate on the other."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tristate.core.mixer import Mixer, hide_padding
from tristate.core.mixers.rglru import RGLRU, RGLRUState
from tristate.core.parts.conv import CausalConv1d


class GriffinState(NamedTuple):
    """What the block remembers: a few inputs of the filter, and the recurrence's state."""

    conv: Tensor  # (B, d_inner, d_conv - 1)
    scan: Tensor  # (B, d_inner)
    begun: Tensor  # (B,)


class GriffinRecurrence(Mixer):
    """``out_proj(rglru(conv(in_proj(x))) * gelu(gate_proj(x)))``.

    Time O(L d_inner (d_model + d_inner / n_heads)), state O(d_inner d_conv). Layers of these alone
    are the paper's Hawk, every third one a local attention its Griffin.

    Args:
        d_model: width of input and output.
        d_inner: width between the projections; ``d_model`` when absent.
        n_heads: blocks of the gates' maps; they divide ``d_inner``.
        d_conv: taps of the filter, which has no activation.

    Raises:
        ValueError: the heads don't divide the width.

    Source: De et al. 2024, https://arxiv.org/abs/2402.19427, section 2; initial values after
    https://github.com/google-deepmind/recurrentgemma.
    """

    packs = True

    def __init__(
        self, d_model: int, *, d_inner: int | None = None, n_heads: int = 4, d_conv: int = 4
    ) -> None:
        super().__init__()
        self.d_model, self.d_conv = d_model, d_conv
        self.d_inner = d_inner or d_model
        self.in_proj = nn.Linear(d_model, self.d_inner)
        self.gate_proj = nn.Linear(d_model, self.d_inner)
        self.conv = CausalConv1d(self.d_inner, d_conv, activation=None)
        self.rglru = RGLRU(self.d_inner, n_heads=n_heads)
        self.out_proj = nn.Linear(self.d_inner, d_model)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Maps that keep the variance, a small filter, no biases."""
        for linear in (self.in_proj, self.gate_proj, self.out_proj):
            nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
            nn.init.zeros_(linear.bias)
        nn.init.normal_(self.conv.weight, std=math.sqrt(0.01 / self.d_conv))
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)

    def forward_state(
        self, x: Tensor, state: GriffinState | None = None, *, seq_idx: Tensor | None = None
    ) -> tuple[Tensor, GriffinState]:
        """Mix ``x (B, L, d_model)`` from ``state`` on."""
        conv_state, memory = None, None
        if state is not None:
            conv_state, memory = state.conv, RGLRUState(state.scan, state.begun)
        gate = F.gelu(self.gate_proj(x), approximate="tanh")
        y, conv_state = self.conv(self.in_proj(x), conv_state, seq_idx=seq_idx)
        y, memory = self.rglru.forward_state(y, memory, seq_idx=seq_idx)
        y = hide_padding(self.out_proj(y * gate), seq_idx)
        return y, GriffinState(conv_state, *memory)

    def init_state(
        self,
        batch_size: int,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> GriffinState:
        """Zeros: nothing has begun."""
        memory = self.rglru.init_state(batch_size, device=device, dtype=dtype)
        conv = memory.scan.new_zeros(batch_size, self.d_inner, self.d_conv - 1)
        return GriffinState(conv, *memory)
