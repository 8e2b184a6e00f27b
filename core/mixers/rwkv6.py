"""RWKV-6's time mixing (Finch): linear attention whose decay depends on the input."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tristate.core.mixer import Mixer, at_least_float32, hide_padding
from tristate.core.parts.heads import HeadNorm, heads_of
from tristate.core.parts.low_rank import LowRank
from tristate.core.parts.rwkv_start import Depth, depth, from_zero, to_one, zigzag
from tristate.core.parts.token_shift import token_shift
from tristate.kernels.attention import linear_attention


class RWKVState(NamedTuple):
    """What RWKV 6 and 7 remember."""

    inputs: Tensor  # (B, d_model), the last one
    scan: Tensor  # (B, H, K, V)


class DataShift(nn.Module):
    """Means of a position's input and the one before it, whose shares depend on both.

    Args:
        d_model: width.
        n_means: how many; each has shares of its own.
        rank: channels through which the shares are projected.

    Source: Peng et al. 2024, https://arxiv.org/abs/2404.05892, equations 10 to 13.
    """

    def __init__(self, d_model: int, n_means: int, rank: int) -> None:
        super().__init__()
        self.base = nn.Parameter(torch.zeros(d_model))  # share of the earlier input
        self.shares = nn.Parameter(torch.zeros(n_means, d_model))
        self.down = nn.Linear(d_model, n_means * rank, bias=False)
        self.up = nn.Parameter(torch.empty(n_means, rank, d_model).uniform_(-0.01, 0.01))

    def forward(self, x: Tensor, shifted: Tensor) -> tuple[Tensor, ...]:
        """``n_means`` tensors like ``x (B, L, d_model)``; ``shifted`` is the input before each."""
        apart = shifted - x
        low = torch.tanh(self.down(torch.addcmul(x, apart, self.base)))
        low = low.unflatten(-1, (self.up.shape[0], -1))
        shares = self.shares + torch.einsum("blnr,nrd->blnd", low, self.up)
        return tuple(torch.addcmul(x, apart, share) for share in shares.unbind(2))


class RWKV6(Mixer):
    """Linear attention with a decay for each key channel and position, and a bonus of the present.

    ``S = diag(exp(-exp(w))) S + k v^T``, ``o = r^T (S_before + diag(bonus) k v^T)`` for each head;
    ``y = output(norm(o) silu(gate))``, the norm over each head. ``r, k, v, w`` and the gate come of
    means of a position's input and the one before it, whose shares depend on the input too. Time
    O(L d_model^2), state O(d_model^2 / n_heads).

    Args:
        d_model: width of input and output.
        n_heads: they divide ``d_model``; one for every 64 channels when absent.
        shift_rank: channels through which the shares are projected.
        decay_rank: channels through which the decay is projected.
        norm_eps: added to the variance of each head.
        layer: index of this layer in its model, from 0 on: initial values depend on it.
        n_layers: layers of the model.

    Raises:
        ValueError: the heads don't divide the width, or there is no such layer.

    Source: Peng et al. 2024, https://arxiv.org/abs/2404.05892, section 4; initial values of all but
    the five projections as in https://github.com/BlinkDL/RWKV-LM.
    """

    packs = True

    def __init__(
        self,
        d_model: int,
        *,
        n_heads: int | None = None,
        shift_rank: int = 32,
        decay_rank: int = 64,
        norm_eps: float = 64e-5,
        layer: int = 0,
        n_layers: int = 1,
    ) -> None:
        super().__init__()
        self.d_model = d_model
        self.n_heads = heads_of(d_model, n_heads, 64)
        self.shift = DataShift(d_model, 5, shift_rank)
        self.receptance = nn.Linear(d_model, d_model, bias=False)
        self.key = nn.Linear(d_model, d_model, bias=False)
        self.value = nn.Linear(d_model, d_model, bias=False)
        self.gate = nn.Linear(d_model, d_model, bias=False)
        self.decay = LowRank(d_model, decay_rank, d_model, activation=torch.tanh)
        self.bonus = nn.Parameter(torch.zeros(self.n_heads, d_model // self.n_heads))
        self.norm = HeadNorm(d_model, eps=norm_eps)
        self.output = nn.Linear(d_model, d_model, bias=False)
        for parameter in (self.bonus, self.shift.shares):
            parameter._no_weight_decay = True  # pyright: ignore[reportAttributeAccessIssue]
        self._start(depth(layer, n_layers))

    @torch.no_grad()
    def _start(self, place: Depth) -> None:
        share = from_zero(self.d_model) ** place.left
        self.shift.base.copy_(1 - share)
        nn.init.zeros_(self.shift.down.weight)
        # Of w, k, v, r and the gate.
        present = [share, share, share + 0.3 * place.done, share.sqrt(), share.sqrt()]
        self.shift.shares.copy_(1 - torch.stack(present))
        along = to_one(self.d_model)
        self.decay.start_at(-6 + 5 * along ** (0.7 + 1.3 * place.done))
        bonus = place.done * (1 - along) + 0.1 * zigzag(self.d_model)
        self.bonus.copy_(bonus.view_as(self.bonus))

    def forward_state(
        self, x: Tensor, state: RWKVState | None = None, *, seq_idx: Tensor | None = None
    ) -> tuple[Tensor, RWKVState]:
        """Mix ``x (B, L, d_model)`` from ``state`` on."""
        before, scan = state if state is not None else (None, None)
        shifted, last = token_shift(x, before, seq_idx=seq_idx)
        w, k, v, r, gate = self.shift(x, shifted)
        heads = (self.n_heads, -1)
        o, scan = linear_attention(
            self.receptance(r).unflatten(-1, heads),
            self.key(k).unflatten(-1, heads),
            self.value(v).unflatten(-1, heads),
            g=-torch.exp(at_least_float32(self.decay(w))).unflatten(-1, heads),
            u=at_least_float32(self.bonus),
            scale=1.0,
            initial_state=scan,
            seq_idx=seq_idx,
        )
        y = self.output(self.norm(o) * F.silu(self.gate(gate)))
        return hide_padding(y, seq_idx), RWKVState(last, scan)

    def init_state(
        self,
        batch_size: int,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> RWKVState:
        """Zeros."""
        width = self.bonus.shape[1]
        return first_state(self.bonus, self.d_model, width, batch_size, device, dtype)


def first_state(
    bonus: Tensor,
    d_model: int,
    d_value: int,
    batch_size: int,
    device: torch.device | None,
    dtype: torch.dtype | None,
) -> RWKVState:
    """Zeros for heads of as many key channels as ``bonus (H, K)`` has, and ``d_value`` of values.

    Where it lies and in which dtype is as with ``bonus`` where it isn't said; at least float32.
    """
    wide = torch.promote_types(dtype or bonus.dtype, torch.float32)
    place: Any = {"device": device or bonus.device, "dtype": wide}
    return RWKVState(
        torch.zeros(batch_size, d_model, **place),
        torch.zeros(batch_size, *bonus.shape, d_value, **place),
    )
