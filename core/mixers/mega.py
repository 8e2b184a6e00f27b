"""Mega: gated attention, chunk by chunk, over a damped moving average."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tristate.core.activation import activation_named
from tristate.core.mixer import Mixer, hide_padding, refuse_segments
from tristate.core.mixers.ema import DampedEMA, EMAState, EMAWindow
from tristate.core.parts.chunked_attention import (
    ChunkedAttention,
    ChunkState,
    RotaryBias,
    SimpleBias,
)
from tristate.core.parts.dropout import TiedDropout


class MegaState(NamedTuple):
    """The averages, and the keys and values of the chunk so far."""

    average: Tensor  # (B, d_model, d_state); of a truncated average the inputs it reaches
    keys: Tensor  # (B, chunk_size, d_attention); without chunks, all keys so far
    values: Tensor  # (B, chunk_size, d_value)
    filled: Tensor  # (B,), how many keys there are


class Mega(Mixer):
    """Moving-average gated attention, as what it adds to its input: ``u * (h - x)``.

    A damped average ``e`` of the input (:class:`tristate.core.mixers.ema.DampedEMA`) makes gates,
    queries and keys; values are made of the input itself::

        v = f(W_v x)    (a, b, c, g) = W e    u = sigmoid(a)    z = silu(b)    r = silu(c)
        q = z gamma_q + beta_q    k = z gamma_k + beta_k    h = f(g + W_h (r * attention(q, k, v)))

    Added to ``x`` this is the paper's gated residual ``(1 - u) x + u h``. Time O(L chunk_size); a
    step costs O(d_model d_state + chunk_size d_value), and the state is as large. Without chunks
    attention and the state reach all of the past.

    Args:
        d_model: width of input and output.
        d_attention: width of queries and keys.
        d_value: width of values; ``2 d_model`` when absent.
        d_state: averages per channel.
        chunk_size: positions of a chunk of attention; None for one as long as the sequence.
        bidirectional: average and attend both ways.
        causal_attention: attend back only; else all of the chunk. As ``bidirectional`` has it when
            absent.
        attention: ``"softmax"``, ``"laplace"`` or ``"relu2"``.
        position_bias: ``"simple"``, one number a distance, or ``"rotary"``.
        max_positions: longest sequence for a simple bias without chunks.
        truncation: how far back the averages reach; all when absent.
        activation: ``f``.
        dropout: rate on averages and output.
        hidden_dropout: rate on the values.
        attention_dropout: rate on the attention's weights.
        tied_dropout: silence channels for a whole sequence, in the first two.

    Raises:
        ValueError: a name is unknown.

    Source: Ma et al. 2022, https://arxiv.org/abs/2209.10655;
    https://github.com/facebookresearch/mega.
    """

    def __init__(
        self,
        d_model: int,
        *,
        d_attention: int = 64,
        d_value: int | None = None,
        d_state: int = 16,
        chunk_size: int | None = 128,
        bidirectional: bool = False,
        causal_attention: bool | None = None,
        attention: Literal["softmax", "laplace", "relu2"] = "softmax",
        position_bias: Literal["simple", "rotary"] = "simple",
        max_positions: int = 1024,
        truncation: int | None = None,
        activation: str = "silu",
        dropout: float = 0.0,
        hidden_dropout: float = 0.0,
        attention_dropout: float = 0.0,
        tied_dropout: bool = False,
    ) -> None:
        super().__init__()
        if position_bias not in ("simple", "rotary"):
            raise ValueError(f"position_bias is 'simple' or 'rotary', got {position_bias!r}")
        looks_back = not bidirectional if causal_attention is None else causal_attention
        d_value = d_value or 2 * d_model
        self.d_model, self.widths = d_model, (d_model, d_attention, d_value, d_model)
        self.ema = DampedEMA(
            d_model, d_state=d_state, bidirectional=bidirectional, truncation=truncation
        )
        self.causal = self.ema.causal and looks_back
        self.packs = self.ema.packs and chunk_size is not None
        if not self.causal:
            self.memory = "none"
        else:
            self.memory = "history" if chunk_size is None else "window"
        bias: nn.Module = RotaryBias(d_attention)
        if position_bias == "simple":
            bias = SimpleBias(chunk_size or max_positions)
        self.attention = ChunkedAttention(
            bias,
            chunk_size=chunk_size,
            causal=looks_back,
            attention=attention,
            dropout=attention_dropout,
        )
        self.v_proj = nn.Linear(d_model, d_value)
        self.mx_proj = nn.Linear(d_model, sum(self.widths))
        self.h_proj = nn.Linear(d_value, d_model)
        self.gamma = nn.Parameter(torch.empty(2, d_attention))
        self.beta = nn.Parameter(torch.empty(2, d_attention))
        self.activation = activation_named(activation)
        drop = TiedDropout if tied_dropout else nn.Dropout
        self.dropout, self.hidden_dropout = drop(dropout), drop(hidden_dropout)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Weights normal with a deviation of 0.02, biases 0."""
        for linear in (self.v_proj, self.mx_proj, self.h_proj):
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)
        nn.init.normal_(self.gamma, std=0.02)
        nn.init.zeros_(self.beta)

    def forward(self, x: Tensor, *, seq_idx: Tensor | None = None) -> Tensor:
        """Mix ``x (B, L, d_model)``."""
        u, h = self.gated(x, seq_idx=seq_idx)
        return hide_padding(u * (h - x), seq_idx)

    def forward_state(
        self, x: Tensor, state: MegaState | None = None, *, seq_idx: Tensor | None = None
    ) -> tuple[Tensor, MegaState]:
        """Mix ``x`` from ``state`` on."""
        if not self.causal:
            return super().forward_state(x, state, seq_idx=seq_idx)
        u, h, state = self.gated_state(x, state, seq_idx=seq_idx)
        return hide_padding(u * (h - x), seq_idx), state

    def init_state(
        self,
        batch_size: int,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> MegaState:
        """Zeros, and no keys."""
        if not self.causal:
            return super().init_state(batch_size)
        device = device or self.beta.device
        wide = torch.promote_types(dtype or self.beta.dtype, torch.float32)
        (average,) = self.ema.init_state(batch_size, device=device, dtype=wide)
        _, d_key, d_value, _ = self.widths
        keys = self.attention.init_state(batch_size, d_key, d_value, device=device, dtype=wide)
        return MegaState(average, *keys)

    def gated(self, x: Tensor, *, seq_idx: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The update gate ``u`` and the candidate ``h``, ``(B, L, d_model)`` each."""
        if not self.packs:
            refuse_segments(self, seq_idx)
        v = self.activation(self.v_proj(x))
        u, q, k, r, g = self._gates(self.ema(x, seq_idx=seq_idx))
        y = self.attention(q, k, self.hidden_dropout(v), seq_idx=seq_idx)
        return u, self._candidate(y, r, g)

    def gated_state(
        self, x: Tensor, state: MegaState | None = None, *, seq_idx: Tensor | None = None
    ) -> tuple[Tensor, Tensor, MegaState]:
        """As :meth:`gated`, from ``state`` on, and the state after it."""
        if not self.packs:
            refuse_segments(self, seq_idx)
        before, chunk = None, None
        if state is not None:
            before = (EMAState if self.ema.truncation is None else EMAWindow)(state.average)
            chunk = ChunkState(*state[1:])
        v = self.activation(self.v_proj(x))
        averaged, (average,) = self.ema.forward_state(x, before, seq_idx=seq_idx)
        u, q, k, r, g = self._gates(averaged)
        y, chunk = self.attention.after(q, k, self.hidden_dropout(v), chunk, seq_idx=seq_idx)
        return u, self._candidate(y, r, g), MegaState(average, *chunk)

    def _gates(self, averaged: Tensor) -> tuple[Tensor, ...]:
        """The update gate, queries, keys, the reset gate, and what attention is added to."""
        u, z, r, g = self.mx_proj(self.dropout(averaged)).split(self.widths, dim=-1)
        q, k = (F.silu(z)[..., None, :] * self.gamma + self.beta).unbind(-2)
        return u.sigmoid(), q, k, F.silu(r), g

    def _candidate(self, y: Tensor, r: Tensor, g: Tensor) -> Tensor:
        return self.dropout(self.activation(g + self.h_proj(y * r)))


class MegaLayer(Mixer):
    """A whole layer of Mega, to be used without a residual around it: ``(1 - u) x + u h``.

    Args:
        mega: what makes ``u`` and ``h``.
        before: norm in front of it; the residual goes past it. None for none.
        after: norm at the end. None for none.
    """

    def __init__(
        self, mega: Mega, *, before: nn.Module | None = None, after: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.d_model = mega.d_model
        self.causal, self.packs, self.memory = mega.causal, mega.packs, mega.memory
        self.mega = mega
        self.before = before if before is not None else nn.Identity()
        self.after = after if after is not None else nn.Identity()

    def forward(self, x: Tensor, *, seq_idx: Tensor | None = None) -> Tensor:
        """Mix ``x (B, L, d_model)``."""
        u, h = self.mega.gated(self.before(x), seq_idx=seq_idx)
        return self.after(x + u * (h - x))

    def forward_state(
        self, x: Tensor, state: MegaState | None = None, *, seq_idx: Tensor | None = None
    ) -> tuple[Tensor, MegaState]:
        """Mix ``x`` from ``state`` on."""
        if not self.causal:
            return super().forward_state(x, state, seq_idx=seq_idx)
        u, h, state = self.mega.gated_state(self.before(x), state, seq_idx=seq_idx)
        return self.after(x + u * (h - x)), state

    def init_state(
        self,
        batch_size: int,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> MegaState:
        """Mega's."""
        return self.mega.init_state(batch_size, device=device, dtype=dtype)
