"""RWKV-4's time mixing: a weighted mean of past values, by channel."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tristate.core.mixer import Mixer, at_least_float32
from tristate.core.parts.rwkv_start import depth, from_zero, to_one, zigzag
from tristate.core.parts.token_shift import token_shift
from tristate.kernels.rwkv import LEAST, wkv


class RWKV4State(NamedTuple):
    """What RWKV-4 remembers."""

    inputs: Tensor  # (B, d_model), the last one
    sums: Tensor  # (B, 3, d_inner): numerator and denominator in units of exp(unit), and the unit


class RWKV4(Mixer):
    """Attention whose weights fall off with distance at a rate of each channel's own.

    ``o[t]`` is the mean of ``v[j]`` with weights ``exp(k[j] - (t - 1 - j) exp(log_rate))`` for the
    past and ``exp(k[t] + bonus)`` for the present; ``y = output(sigmoid(r) o)``. ``k``, ``v`` and
    ``r`` are linear in a mean of the position's input and the one before it. Time O(L d_inner
    d_model), state O(d_inner).

    Args:
        d_model: width of input and output.
        d_inner: channels of the attention; ``d_model`` when absent.
        layer: index of this layer in its model, from 0 on: initial values depend on it.
        n_layers: layers of the model.

    Raises:
        ValueError: there is no such layer.

    Source: Peng et al. 2023, https://arxiv.org/abs/2305.13048, equations 11 to 17; initial values
    of rates, bonus and shares as in https://github.com/BlinkDL/RWKV-LM. Its projections start at
    zero, which keeps a layer silent; here they are drawn.
    """

    packs = True

    def __init__(
        self, d_model: int, *, d_inner: int | None = None, layer: int = 0, n_layers: int = 1
    ) -> None:
        super().__init__()
        d_inner = d_inner or d_model
        self.d_model, self.d_inner = d_model, d_inner
        done, left = depth(layer, n_layers)
        self.log_rate = nn.Parameter(-5 + 8 * to_one(d_inner) ** (0.7 + 1.3 * done))
        self.bonus = nn.Parameter(math.log(0.3) + 0.5 * zigzag(d_inner))
        share = from_zero(d_model) ** left
        self.mix_k = nn.Parameter(share.clone())
        self.mix_v = nn.Parameter(share + 0.3 * done)
        self.mix_r = nn.Parameter(share.sqrt())
        self.key = nn.Linear(d_model, d_inner, bias=False)
        self.value = nn.Linear(d_model, d_inner, bias=False)
        self.receptance = nn.Linear(d_model, d_inner, bias=False)
        self.output = nn.Linear(d_inner, d_model, bias=False)
        for parameter in (self.log_rate, self.bonus):
            parameter._no_weight_decay = True  # pyright: ignore[reportAttributeAccessIssue]

    def forward_state(
        self, x: Tensor, state: RWKV4State | None = None, *, seq_idx: Tensor | None = None
    ) -> tuple[Tensor, RWKV4State]:
        """Mix ``x (B, L, d_model)`` from ``state`` on."""
        before, sums = state if state is not None else (None, None)
        shifted, last = token_shift(x, before, seq_idx=seq_idx)
        r = torch.sigmoid(self.receptance(torch.lerp(shifted, x, self.mix_r)))
        o, sums = wkv(
            self.key(torch.lerp(shifted, x, self.mix_k)),
            self.value(torch.lerp(shifted, x, self.mix_v)),
            w=-torch.exp(at_least_float32(self.log_rate)),
            u=at_least_float32(self.bonus),
            initial_state=sums,
            seq_idx=seq_idx,
        )
        return self.output(r * o), RWKV4State(last, sums)

    def init_state(
        self,
        batch_size: int,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> RWKV4State:
        """Nothing summed up: zeros, in the smallest unit."""
        wide = torch.promote_types(dtype or self.bonus.dtype, torch.float32)
        place: Any = {"device": device or self.bonus.device, "dtype": wide}
        sums = torch.zeros(batch_size, 3, self.d_inner, **place)
        sums[:, 2] = LEAST
        return RWKV4State(torch.zeros(batch_size, self.d_model, **place), sums)
