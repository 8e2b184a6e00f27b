"""RWKV-7's time mixing (Goose): a generalised delta rule with a decay for each key channel."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tristate.core.context import Context
from tristate.core.mixer import Mixer, at_least_float32, hide_padding
from tristate.core.mixers.rwkv6 import RWKVState, first_state
from tristate.core.parts.heads import HeadNorm, heads_of
from tristate.core.parts.low_rank import LowRank
from tristate.core.parts.rwkv_start import Depth, depth, from_zero, to_one
from tristate.core.parts.token_shift import token_shift
from tristate.kernels.attention import linear_attention

# The decay's logarithm is never below this: at least 0.545 of a state stays.
STRONGEST = -math.exp(-0.5)

MEANS = ("r", "w", "k", "v", "a", "g")


class RWKV7(Mixer):
    """A state that forgets by channel, erases under one key and writes under another.

    For each head ``S = diag(exp(w)) S - kk' (kk'^T S) + k v^T`` in outline, ``kk`` a key of length
    1: what is found under it is taken away in the shares ``a`` of its channels, and what is written
    is weighted by them too. ``y = output((norm(S^T r) + (r . r_k k) v) g)``. Every input is a mean
    of the position's and the one before it. Time O(L d_model^2), state O(d_model^2 / n_heads).

    In a model every layer after the first mixes the first one's values into its own. A layer leaves
    them in, and takes them from, the stack's context; see :meth:`mix` for doing so by hand.

    Args:
        d_model: width of input and output.
        n_heads: they divide ``d_model``; one for every 64 channels when absent.
        d_value: width of all values; ``d_model`` when absent.
        decay_rank: channels through which the decay is projected.
        erase_rank: through which the shares ``a`` are.
        value_rank: through which the share of the first layer's values is; no use in the first.
        gate_rank: through which the gate is.
        norm_eps: added to the variance of each head, ``64e-5`` for one of 64 channels; ``1e-5``
            for each channel of a head when absent.
        layer: index of this layer in its model, from 0 on: initial values depend on it, and only
            the first one's values are all its own.
        n_layers: layers of the model.

    Raises:
        ValueError: the heads don't divide the width, or there is no such layer.

    Source: Peng et al. 2025, https://arxiv.org/abs/2503.14456, section 4; initial values as in
    https://github.com/BlinkDL/RWKV-LM, but for the output's projection, whose zeros keep a layer
    silent: it is drawn.
    """

    packs = True
    wants_context = True

    def __init__(
        self,
        d_model: int,
        *,
        n_heads: int | None = None,
        d_value: int | None = None,
        decay_rank: int = 64,
        erase_rank: int = 64,
        value_rank: int = 32,
        gate_rank: int = 128,
        norm_eps: float | None = None,
        layer: int = 0,
        n_layers: int = 1,
    ) -> None:
        super().__init__()
        self.d_model, self.layer = d_model, layer
        self.n_heads = heads_of(d_model, n_heads, 64)
        d_head = d_model // self.n_heads
        d_value = d_value or d_model
        heads_of(d_value, self.n_heads, d_head)
        # Shares of the earlier input.
        self.shift = nn.ParameterDict({name: torch.zeros(d_model) for name in MEANS})
        self.receptance = nn.Linear(d_model, d_model, bias=False)
        self.key = nn.Linear(d_model, d_model, bias=False)
        self.value = nn.Linear(d_model, d_value, bias=False)
        self.decay = LowRank(d_model, decay_rank, d_model, activation=torch.tanh)
        self.erase = LowRank(d_model, erase_rank, d_model)
        self.first_share = LowRank(d_model, value_rank, d_value) if layer else None
        self.gate = LowRank(d_model, gate_rank, d_value, activation=torch.sigmoid, bias=False)
        self.erase_key = nn.Parameter(torch.zeros(d_model))  # kk = k times this
        self.write_share = nn.Parameter(torch.full((d_model,), 1.02))
        self.bonus = nn.Parameter(torch.full((self.n_heads, d_head), -0.04))
        self.norm = HeadNorm(d_value, eps=norm_eps or 1e-5 * d_head)
        self.output = nn.Linear(d_value, d_model, bias=False)
        self.bonus._no_weight_decay = True  # pyright: ignore[reportAttributeAccessIssue]
        self._start(depth(layer, n_layers))
        nn.init.constant_(self.norm.weight, ((layer + 1) / n_layers) ** 0.7)

    @torch.no_grad()
    def _start(self, place: Depth) -> None:
        powers = {"r": 0.2, "w": 0.9, "k": 0.7, "v": 0.7, "a": 0.9, "g": 0.2}
        for name, power in powers.items():
            self.shift[name].copy_(1 - from_zero(self.d_model) ** (power * place.left))
        for projection, size in ((self.receptance, 0.5), (self.key, 0.05), (self.value, 0.5)):
            bound = size * self.d_model**-0.5
            nn.init.uniform_(projection.weight, -bound, bound)
        along = to_one(self.d_model)
        within = torch.linspace(-1, 1, self.d_model // self.n_heads).repeat(self.n_heads)
        bend = within * within.abs()
        self.decay.start_at(-5.5 + 6 * along ** (1 + place.done**0.3) + 2.5 * bend)
        self.erase.start_at(-0.19 + 0.3 * bend + 0.4 * (along - 0.5))
        self.erase_key.copy_(0.71 - 0.1 * (along - 0.5))
        if self.first_share is not None:
            values = to_one(self.first_share.up.out_features)
            self.first_share.start_at(0.73 - 0.4 * (values - 0.5))

    def forward(
        self, x: Tensor, *, seq_idx: Tensor | None = None, context: Context | None = None
    ) -> Tensor:
        """Mix ``x (B, L, d_model)``."""
        return self.forward_state(x, seq_idx=seq_idx, context=context)[0]

    def forward_state(
        self,
        x: Tensor,
        state: RWKVState | None = None,
        *,
        seq_idx: Tensor | None = None,
        context: Context | None = None,
    ) -> tuple[Tensor, RWKVState]:
        """Mix ``x`` from ``state`` on; leave the first values in the context, or take them there.

        Raises:
            ValueError: not the first layer, and there are no first values.
        """
        first_value = None if context is None or self.layer == 0 else context.first_value
        y, state, value = self.mix(x, state, first_value, seq_idx=seq_idx)
        if context is not None and self.layer == 0:
            context.first_value = value
        return y, state

    def mix(
        self,
        x: Tensor,
        state: RWKVState | None = None,
        first_value: Tensor | None = None,
        *,
        seq_idx: Tensor | None = None,
    ) -> tuple[Tensor, RWKVState, Tensor]:
        """Mix ``x`` from ``state`` on, with the first layer's values at hand.

        Args:
            x: input, ``(B, L, d_model)``.
            state: what this layer remembers.
            first_value: values of the model's first layer, ``(B, L, d_value)``; not for the first.
            seq_idx: which sequence each position belongs to, ``(B, L)``.

        Returns:
            The output, the next state, and the first layer's values: what was given, or in the
            first layer its own.

        Raises:
            ValueError: not the first layer, and there are no first values; or the other way round.
        """
        if (self.layer == 0) != (first_value is None):
            wanted = "a" if self.layer else "no"
            raise ValueError(
                f"RWKV7(layer={self.layer}) wants {wanted} first_value: in a stack layer 0 leaves "
                "it in the context"
            )
        before, scan = state if state is not None else (None, None)
        shifted, last = token_shift(x, before, seq_idx=seq_idx)
        apart = shifted - x
        r, w, k, v, a, g = (torch.addcmul(x, apart, self.shift[name]) for name in MEANS)
        r, k, share = self.receptance(r), self.key(k), torch.sigmoid(self.erase(a))
        value: Tensor = self.value(v)
        if self.first_share is None or first_value is None:
            first_value = value
        else:
            value = torch.lerp(value, first_value, torch.sigmoid(self.first_share(v)))
        heads = (self.n_heads, -1)
        kk = F.normalize((k * self.erase_key).unflatten(-1, heads), dim=-1)
        # Written with the weight of what is erased: 1 + (share - 1) write_share.
        k = (k * torch.addcmul(1 - self.write_share, share, self.write_share)).unflatten(-1, heads)
        r, value = r.unflatten(-1, heads), value.unflatten(-1, heads)
        o, scan = linear_attention(
            r,
            k,
            value,
            g=STRONGEST * torch.sigmoid(at_least_float32(self.decay(w))).unflatten(-1, heads),
            a=-kk,
            b=kk * share.unflatten(-1, heads),
            scale=1.0,
            initial_state=scan,
            seq_idx=seq_idx,
        )
        present = (r * k * self.bonus).sum(-1, keepdim=True) * value
        y = self.output((self.norm(o) + present.flatten(2)) * self.gate(g))
        return hide_padding(y, seq_idx), RWKVState(last, scan), first_value

    def init_state(
        self,
        batch_size: int,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> RWKVState:
        """Zeros."""
        d_head = self.norm.weight.numel() // self.n_heads
        return first_state(self.bonus, self.d_model, d_head, batch_size, device, dtype)
