"""Gated linear attention: a decay for each key channel that depends on the input."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tristate.core.mixer import Mixer, at_least_float32
from tristate.core.parts.heads import heads_of
from tristate.core.parts.low_rank import LowRank
from tristate.kernels.attention import linear_attention
from tristate.kernels.norm import gated_rms_norm


class GLAState(NamedTuple):
    """What linear attention remembers."""

    scan: Tensor  # (B, H, K, V)


class GLA(Mixer):
    """Linear attention with a decay, and a gated norm behind it.

    ``S = diag(decay) S + k v^T``, ``o = q^T S / sqrt(K)`` for each head, ``decay = sigmoid(...) **
    (1 / temper)``; ``y = output(rms_norm(o) silu(gate))``. Time O(L d_model^2), state O(d_model^2 /
    n_heads).

    Args:
        d_model: width of input and output.
        n_heads: one for every 256 channels when absent.
        expand_k: width of all keys, as a share of ``d_model``.
        expand_v: width of all values, as a share of ``d_model``.
        decay_rank: channels through which the decay is projected.
        temper: root that is taken of the decay.
        norm_eps: added to the mean square of each head.

    Raises:
        ValueError: the heads don't divide the keys' or the values' width.

    Source: Yang et al. 2023, https://arxiv.org/abs/2312.06635, section 4.4.
    """

    packs = True

    def __init__(
        self,
        d_model: int,
        *,
        n_heads: int | None = None,
        expand_k: float = 0.5,
        expand_v: float = 1.0,
        decay_rank: int = 16,
        temper: float = 16.0,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.d_model, self.temper, self.norm_eps = d_model, temper, norm_eps
        d_key, d_value = int(expand_k * d_model), int(expand_v * d_model)
        self.n_heads = heads_of(d_value, n_heads or max(1, d_model // 256), 1)
        heads_of(d_key, self.n_heads, 1)
        self.query = nn.Linear(d_model, d_key, bias=False)
        self.key = nn.Linear(d_model, d_key, bias=False)
        self.value = nn.Linear(d_model, d_value, bias=False)
        self.decay = LowRank(d_model, decay_rank, d_key)
        self.gate = nn.Linear(d_model, d_value, bias=False)
        self.norm_weight = nn.Parameter(torch.ones(d_value // self.n_heads))
        self.output = nn.Linear(d_value, d_model, bias=False)

    def forward_state(
        self, x: Tensor, state: GLAState | None = None, *, seq_idx: Tensor | None = None
    ) -> tuple[Tensor, GLAState]:
        """Mix ``x (B, L, d_model)`` from ``state`` on."""
        heads = (self.n_heads, -1)
        decay = F.logsigmoid(at_least_float32(self.decay(x))) / self.temper
        o, scan = linear_attention(
            self.query(x).unflatten(-1, heads),
            self.key(x).unflatten(-1, heads),
            self.value(x).unflatten(-1, heads),
            g=decay.unflatten(-1, heads),
            initial_state=None if state is None else state.scan,
            seq_idx=seq_idx,
        )
        gate = self.gate(x).unflatten(-1, heads)
        y = gated_rms_norm(o, self.norm_weight, gate, eps=self.norm_eps)
        return self.output(y.flatten(2)), GLAState(scan)

    def init_state(
        self,
        batch_size: int,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> GLAState:
        """Zeros."""
        weight = self.norm_weight
        wide = torch.promote_types(dtype or weight.dtype, torch.float32)
        place: Any = {"device": device or weight.device, "dtype": wide}
        width = self.key.out_features // self.n_heads
        return GLAState(torch.zeros(batch_size, self.n_heads, width, len(weight), **place))
