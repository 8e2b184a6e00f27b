"""RWKV's channel mixing: its feed-forward layer, which sees one position back."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tristate.core.mixer import Mixer, hide_padding
from tristate.core.parts.rwkv_start import depth, from_zero
from tristate.core.parts.token_shift import token_shift


class ShiftState(NamedTuple):
    """What a token shift remembers."""

    inputs: Tensor  # (B, d_model), the last one


class RWKVChannelMix(Mixer):
    """A feed-forward layer over each position and the one before it.

    ``y = sigmoid(receptance(x_r)) value(relu(key(x_k))^2)``, where ``x_k`` and ``x_r`` lie between
    a position's input and the one before it, by channel. Time O(L d_model d_inner), state
    O(d_model).

    Args:
        d_model: width of input and output.
        d_inner: hidden channels; ``4 d_model`` when absent.
        gated: with the receptance, as RWKV 4 to 6 have it; RWKV-7 has none.
        layer: index of this layer in its model, from 0 on: initial values depend on it.
        n_layers: layers of the model.

    Raises:
        ValueError: there is no such layer.

    Source: Peng et al. 2023, https://arxiv.org/abs/2305.13048, equations 18 to 20; for RWKV-7
    https://arxiv.org/abs/2503.14456, equation 23.
    """

    packs = True

    def __init__(
        self,
        d_model: int,
        *,
        d_inner: int | None = None,
        gated: bool = True,
        layer: int = 0,
        n_layers: int = 1,
    ) -> None:
        super().__init__()
        self.d_model = d_model
        d_inner = d_inner or 4 * d_model
        left = depth(layer, n_layers).left
        share = from_zero(d_model) ** (left if gated else left**4)
        self.mix_k = nn.Parameter(share.clone())  # share of the present input
        self.mix_r = nn.Parameter(share) if gated else None
        self.key = nn.Linear(d_model, d_inner, bias=False)
        self.value = nn.Linear(d_inner, d_model, bias=False)
        self.receptance = nn.Linear(d_model, d_model, bias=False) if gated else None

    def forward_state(
        self, x: Tensor, state: ShiftState | None = None, *, seq_idx: Tensor | None = None
    ) -> tuple[Tensor, ShiftState]:
        """Mix ``x (B, L, d_model)`` from ``state`` on."""
        shifted, last = token_shift(x, state.inputs if state is not None else None, seq_idx=seq_idx)
        y = self.value(torch.relu(self.key(torch.lerp(shifted, x, self.mix_k))).square())
        if self.receptance is not None and self.mix_r is not None:
            y = torch.sigmoid(self.receptance(torch.lerp(shifted, x, self.mix_r))) * y
        return hide_padding(y, seq_idx), ShiftState(last)

    def init_state(
        self,
        batch_size: int,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> ShiftState:
        """Zeros."""
        wide = torch.promote_types(dtype or self.mix_k.dtype, torch.float32)
        place: Any = {"device": device or self.mix_k.device, "dtype": wide}
        return ShiftState(torch.zeros(batch_size, self.d_model, **place))
