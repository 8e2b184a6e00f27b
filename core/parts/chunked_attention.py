"""Single-head attention within chunks of a sequence, with a bias for relative positions."""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tristate.core.activation import activation_named
from tristate.core.mixer import at_least_float32, refuse_segments
from tristate.core.parts.segments import segments


class SimpleBias(nn.Module):
    """One learnt number for each distance between query and key, ``j - i``.

    Args:
        max_positions: distances are below this.

    Raises:
        ValueError: there are none.
    """

    def __init__(self, max_positions: int) -> None:
        super().__init__()
        if max_positions < 1:
            raise ValueError(f"a bias knows one position at least, got {max_positions}")
        self.weight = nn.Parameter(torch.empty(2 * max_positions - 1))
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, places: Tensor, n_keys: int) -> Tensor:
        """``(..., Q, n_keys)`` for queries at ``places (..., Q)`` and keys at 0, 1, ..."""
        most = (len(self.weight) + 1) // 2
        if n_keys > most:
            raise ValueError(
                f"the bias knows {most} positions, got {n_keys}: make it with a larger "
                "max_positions, or attend in chunks"
            )
        keys = torch.arange(n_keys, device=places.device)
        return self.weight[keys - places[..., None] + (most - 1)]


class RotaryBias(nn.Module):
    """``<R(i) alpha, R(j) beta>`` for a query at ``i`` and a key at ``j``, with rotations ``R``.

    Channel ``c`` and ``c + d / 2`` make a pair that turns by ``10000^(-2 c / d)`` a position, so
    that the bias depends on ``j - i`` alone and any distance has one.

    Args:
        d_bias: width of ``alpha`` and ``beta``, even.

    Source: Ma et al. 2022, https://arxiv.org/abs/2209.10655, appendix C.2; Su et al. 2021,
    https://arxiv.org/abs/2104.09864.
    """

    def __init__(self, d_bias: int) -> None:
        super().__init__()
        if d_bias % 2:
            raise ValueError(f"channels turn in pairs: the width must be even, got {d_bias}")
        self.alpha = nn.Parameter(torch.empty(d_bias))
        self.beta = nn.Parameter(torch.empty(d_bias))
        nn.init.normal_(self.alpha, std=0.02)
        nn.init.normal_(self.beta, std=0.02)

    def forward(self, places: Tensor, n_keys: int) -> Tensor:
        """``(..., Q, n_keys)`` for queries at ``places (..., Q)`` and keys at 0, 1, ..."""
        keys = torch.arange(n_keys, device=places.device)
        return _turn(self.alpha, places) @ _turn(self.beta, keys).mT


def _turn(x: Tensor, places: Tensor) -> Tensor:
    """``x (d,)`` turned to each of ``places``, ``(..., d)``, at least float32."""
    x = at_least_float32(x)
    half = len(x) // 2
    pace = torch.exp(
        torch.arange(half, device=x.device, dtype=x.dtype) * (-math.log(10_000) / half)
    )
    angles = places[..., None] * pace
    sin, cos = angles.sin(), angles.cos()
    first, second = x[:half], x[half:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


class ChunkState(NamedTuple):
    """Keys and values that the next position may see: those of its chunk so far, from slot 0 on."""

    keys: Tensor  # (B, chunk_size, d_key); all of them so far where there are no chunks
    values: Tensor  # (B, chunk_size, d_value)
    filled: Tensor  # (B,) float, how many there are


class ChunkedAttention(nn.Module):
    """``weights(q, k) v`` within chunks of ``chunk_size`` positions, none of which sees another.

    ``softmax``: ``softmax(q k^T / sqrt(d_key) + bias)``; ``laplace`` and ``relu2``, element by
    element: ``f(q k^T / n + bias)`` with the number ``n`` of keys that the query may see. Time and
    memory O(L chunk_size); without chunks O(L^2).

    Args:
        bias: maps queries' places and a number of keys to biases.
        chunk_size: positions of a chunk; None for one chunk as long as the sequence.
        causal: a query sees no later key.
        attention: ``"softmax"``, ``"laplace"`` or ``"relu2"``.
        dropout: rate on the weights.

    Raises:
        ValueError: ``attention`` is unknown, or chunks are empty.

    Source: Ma et al. 2022, https://arxiv.org/abs/2209.10655, sections 3.3 to 3.5.
    """

    def __init__(
        self,
        bias: nn.Module,
        *,
        chunk_size: int | None = None,
        causal: bool = True,
        attention: Literal["softmax", "laplace", "relu2"] = "softmax",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if attention not in ("softmax", "laplace", "relu2"):
            raise ValueError(f"attention is 'softmax', 'laplace' or 'relu2', got {attention!r}")
        if chunk_size is not None and chunk_size < 1:
            raise ValueError(f"chunk_size must be 1 at least, got {chunk_size}")
        self.bias, self.chunk_size, self.causal = bias, chunk_size, causal
        self.attention = attention
        self.dropout = nn.Dropout(dropout)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *, seq_idx: Tensor | None = None) -> Tensor:
        """All of ``q, k (B, L, d_key)`` and ``v (B, L, d_value)``; ``(B, L, d_value)``.

        ``seq_idx (B, L)`` tells sequences apart, each cut into chunks from its own beginning; what
        it says of padding has any output.
        """
        if seq_idx is not None:
            return self.after(q, k, v, None, seq_idx=seq_idx)[0]
        length = q.shape[1]
        size = min(self.chunk_size or length, length)
        q, k, v = (_cut(F.pad(x, (0, 0, 0, -length % size)), size) for x in (q, k, v))
        present = None
        if length % size:
            present = _cut(torch.arange(q.shape[1] * size, device=q.device)[None] < length, size)
        places = torch.arange(size, device=q.device)
        return self._weigh(q, k, v, places, present).flatten(1, 2)[:, :length]

    def after(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        state: ChunkState | None,
        *,
        seq_idx: Tensor | None = None,
    ) -> tuple[Tensor, ChunkState]:
        """As :meth:`forward`, after what ``state`` holds; causal attention only."""
        size, (batch, length, _) = self.chunk_size, q.shape
        if size is None:
            refuse_segments(self, seq_idx)
            return self._after_all(q, k, v, state)
        filled = q.new_zeros(batch, dtype=torch.int64) if state is None else state.filled.long()
        slots, last, n_chunks = _slots(filled, length, size, state is None, seq_idx)
        room = n_chunks * size
        keys, values = _place(k, slots, room), _place(v, slots, room)
        present = _place(torch.ones_like(k[..., :1]), slots, room)[..., 0] > 0
        if state is not None:
            old = torch.arange(room, device=q.device) < filled[:, None]
            keys, values = (
                torch.where(old[..., None], F.pad(kept.to(new.dtype), (0, 0, 0, room - size)), new)
                for kept, new in zip(state[:2], (keys, values), strict=True)
            )
            present = present | old
        keys, values, present = (_cut(x, size) for x in (keys, values, present))
        if length == 1:
            # One query needs one row of its chunk's weights.
            places = slots[:, None].clamp(max=size - 1)
            y = self._weigh(q[:, None], keys, values, places, present)[:, 0]
        else:
            places = torch.arange(size, device=q.device)
            y = self._weigh(_cut(_place(q, slots, room), size), keys, values, places, present)
            y = _take(y.flatten(1, 2), slots.clamp(max=room - 1))
        chunk = last.clamp(min=0) // size
        keys, values = (_take(x.flatten(2), chunk[:, None]) for x in (keys, values))
        # A full chunk is done with.
        filled = ((last + 1) % size).to(at_least_float32(q).dtype)
        return y, ChunkState(
            keys.unflatten(2, (size, -1))[:, 0], values.unflatten(2, (size, -1))[:, 0], filled
        )

    def init_state(
        self, batch_size: int, d_key: int, d_value: int, *, device: torch.device, dtype: torch.dtype
    ) -> ChunkState:
        """No keys."""
        size = self.chunk_size or 0
        return ChunkState(
            torch.zeros(batch_size, size, d_key, device=device, dtype=dtype),
            torch.zeros(batch_size, size, d_value, device=device, dtype=dtype),
            torch.zeros(batch_size, device=device, dtype=dtype),
        )

    def weights(self, q: Tensor, k: Tensor, places: Tensor, present: Tensor | None) -> Tensor:
        """How much each query weighs each key of its chunk, ``(B, K, Q, N)``.

        Args:
            q: queries, ``(B, K, Q, d_key)``.
            k: keys, ``(B, K, N, d_key)``, at places 0, 1, ...
            places: of the queries in their chunk, ``(Q,)`` or ``(B, 1, Q)``.
            present: which keys there are, ``(B, K, N)``; None for all.
        """
        n_keys = k.shape[2]
        allowed = None if present is None else present[:, :, None]
        if self.causal:
            earlier = torch.arange(n_keys, device=k.device) <= places[..., None]
            allowed = earlier if allowed is None else allowed & earlier
        bias = self.bias(places, n_keys)
        if self.attention == "softmax":
            scores = q @ k.mT * q.shape[-1] ** -0.5 + bias
            if allowed is not None:
                # Not minus infinity: an empty slot sees nothing, and has a gradient all the same.
                scores = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
            return scores.softmax(-1)
        if self.causal:
            seen = places[..., None] + 1
        elif present is None:
            seen = n_keys
        else:
            seen = present.sum(-1).clamp(min=1)[:, :, None, None]
        weights = activation_named(self.attention)(q @ k.mT / seen + bias)
        return weights if allowed is None else weights * allowed

    def _weigh(
        self, q: Tensor, k: Tensor, v: Tensor, places: Tensor, present: Tensor | None
    ) -> Tensor:
        return self.dropout(self.weights(q, k, places, present)).to(v.dtype) @ v

    def _after_all(
        self, q: Tensor, k: Tensor, v: Tensor, state: ChunkState | None
    ) -> tuple[Tensor, ChunkState]:
        """As :meth:`after`, of one chunk without end."""
        if state is not None:
            k = torch.cat([state.keys.to(k.dtype), k], 1)
            v = torch.cat([state.values.to(v.dtype), v], 1)
        (batch, length, _), total = q.shape, k.shape[1]
        places = torch.arange(total - length, total, device=q.device)
        y = self._weigh(q[:, None], k[:, None], v[:, None], places, None)[:, 0]
        return y, ChunkState(k, v, at_least_float32(q).new_full((batch,), total))


def _slots(
    filled: Tensor, length: int, size: int, fresh: bool, seq_idx: Tensor | None
) -> tuple[Tensor, Tensor, int]:
    """Where positions stand when every sequence begins a chunk of its own.

    Args:
        filled: slots that the first sequence of each row has taken already, ``(B,)``.
        length: of the rows.
        size: of a chunk.
        fresh: none are taken.
        seq_idx: which sequence each position belongs to; None for one a row.

    Returns:
        The slot of each position ``(B, L)``, that of each row's last one ``(B,)``, and how many
        chunks there are; padding has the slot behind them all.
    """
    if seq_idx is None:
        slots = filled[:, None] + torch.arange(length, device=filled.device)
        most = length if fresh else length + size - 1
        return slots, filled + length - 1, -(-most // size)
    at = segments(seq_idx)
    rank = at.real.cumsum(1) - 1
    start = torch.where(at.changed, rank, 0).cummax(1).values
    begun = torch.where(at.changed.cumsum(1) == 0, filled[:, None], 0)
    place = rank - start + begun
    begins = at.real & ((place % size == 0) | at.first)
    chunk = begins.cumsum(1) - 1
    n_chunks = max(1, int(chunk.max()) + 1)
    slots = chunk * size + place % size
    last = torch.where(at.real, slots, filled[:, None] - 1).amax(1)
    return torch.where(at.real, slots, n_chunks * size), last, n_chunks


def _cut(x: Tensor, size: int) -> Tensor:
    """``(B, K * size, ...)`` as ``(B, K, size, ...)``."""
    return x.unflatten(1, (-1, size))


def _place(x: Tensor, slots: Tensor, room: int) -> Tensor:
    """``x (B, L, D)`` at its slots ``(B, L)``, zeros elsewhere: ``(B, room, D)``."""
    places = x.new_zeros(x.shape[0], room + 1, x.shape[2])
    return places.scatter(1, slots[..., None].expand_as(x), x)[:, :room]


def _take(x: Tensor, slots: Tensor) -> Tensor:
    """What stands at the slots ``(B, L)`` of ``x (B, S, D)``."""
    return x.gather(1, slots[..., None].expand(-1, -1, x.shape[2]))
