"""Softmax attention over heads, whole or from a cache, by PyTorch's fused kernel.

Keys are cached as they came: rotary angles depend on differences of places alone, so a place counts
from the cache's beginning, and sequences packed in a row need no places of their own.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tristate.core.parts.segments import segments


class AttentionState(NamedTuple):
    """The keys and values that the next position may see."""

    keys: Tensor  # (B, S, G, P)
    values: Tensor  # (B, S, G, P)
    present: Tensor  # (B, S), 1 where there is a key; absent ones stand first


class Rotary(NamedTuple):
    """Rotary embedding: the first ``width`` channels of a head are turned by the place.

    Channel ``i`` and ``i + width / 2`` make a pair, turned by ``place * base ** (-2 i / width)``.

    Source: Su et al. 2021, https://arxiv.org/abs/2104.09864.
    """

    base: float
    width: int

    def __call__(self, x: Tensor, first: int = 0) -> Tensor:
        """Turn ``x (B, L, H, P)``, whose first position stands at place ``first``."""
        if not self.width:
            return x
        wide = torch.promote_types(x.dtype, torch.float32)
        half = self.width // 2
        powers = torch.arange(half, device=x.device, dtype=wide) / -half
        places = torch.arange(first, first + x.shape[1], device=x.device, dtype=wide)
        angles = places[:, None, None] * self.base**powers
        a, b, rest = x.split([half, half, x.shape[-1] - self.width], dim=-1)
        cos, sin = angles.cos(), angles.sin()
        turned = torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)
        return torch.cat([turned.to(x.dtype), rest], dim=-1)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = True,
    window: int | None = None,
    rotary: Rotary | None = None,
    scale: float | None = None,
    state: AttentionState | None = None,
    seq_idx: Tensor | None = None,
) -> Tensor:
    """``softmax(scale q k^T) v`` by head, over what a position may see.

    With a window time and memory are O(L window), else time is O(L^2).

    Args:
        q: queries, ``(B, L, H, P)``.
        k: keys, ``(B, L, G, P)``; ``H / G`` heads share one of them.
        v: values, like ``k``.
        causal: a position sees itself and earlier ones; else all.
        window: it sees those less than ``window`` places away; None for no such limit.
        rotary: turns queries and keys by their places.
        scale: of the scores; ``P ** -0.5`` when absent.
        state: what came before, for causal attention. It belongs to the first sequence of each row.
        seq_idx: which sequence each position belongs to, ``(B, L)``: none sees another. Padding is
            passed over, and its output is 0.

    Returns:
        ``(B, L, H, P)``.
    """
    if seq_idx is None:
        return _attend(q, k, v, None, causal, window, rotary, scale, state)
    order = _padding_last(seq_idx)
    back = order.argsort(1)
    q, k, v = (_take(x, order) for x in (q, k, v))
    y = _attend(q, k, v, seq_idx.gather(1, order), causal, window, rotary, scale, state)
    return torch.where((seq_idx >= 0)[:, :, None, None], _take(y, back), 0)


def remember(
    k: Tensor,
    v: Tensor,
    *,
    window: int | None = None,
    state: AttentionState | None = None,
    seq_idx: Tensor | None = None,
) -> AttentionState:
    """The state after keys ``k`` and values ``v (B, L, G, P)``; arguments as of :func:`attend`."""
    present, old = torch.ones(k.shape[:2], device=k.device), None
    if state is not None:
        old = state.present
        present = present.to(old.dtype)
    if seq_idx is not None:
        order = _padding_last(seq_idx)
        k, v, seq_idx = _take(k, order), _take(v, order), seq_idx.gather(1, order)
        at = segments(seq_idx)
        runs = at.changed.cumsum(1)
        present = present * (at.real & (runs == runs[:, -1:]))
        # What came before is gone once another sequence has begun.
        old = None if old is None else old * (runs[:, -1:] == 0)
    if state is not None and old is not None:
        k = torch.cat([state.keys.to(k.dtype), k], 1)
        v = torch.cat([state.values.to(v.dtype), v], 1)
        present = torch.cat([old, present], 1)
    if seq_idx is not None:
        # The last real position comes last.
        places = torch.arange(k.shape[1], device=k.device)
        places = places - (seq_idx < 0).sum(1, keepdim=True)
        present = present.gather(1, places.clamp(min=0)) * (places >= 0)
        k, v = (_take(x, places.clamp(min=0)) for x in (k, v))
    if window is not None:
        missing = max(0, window - 1 - k.shape[1])
        if missing:
            k, v = (F.pad(x, (0, 0, 0, 0, missing, 0)) for x in (k, v))
            present = F.pad(present, (missing, 0))
        keep = k.shape[1] - (window - 1)
        k, v, present = k[:, keep:], v[:, keep:], present[:, keep:]
    return AttentionState(k, v, present)


def _padding_last(seq_idx: Tensor) -> Tensor:
    """An order of positions, ``(B, L)``, in which the real ones come first, as they came."""
    return (seq_idx < 0).int().argsort(dim=1, stable=True)


def _take(x: Tensor, order: Tensor) -> Tensor:
    return x.gather(1, order[:, :, None, None].expand(-1, -1, *x.shape[2:]))


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    seq_idx: Tensor | None,
    causal: bool,
    window: int | None,
    rotary: Rotary | None,
    scale: float | None,
    state: AttentionState | None,
) -> Tensor:
    """As :func:`attend`, with padding behind all that is real."""
    length, cached = q.shape[1], 0
    group = torch.zeros(q.shape[:2], dtype=torch.int64, device=q.device)
    if seq_idx is not None:
        at = segments(seq_idx)
        group = torch.where(at.real, at.changed.cumsum(1), -1)
    if state is not None and state.keys.shape[1]:
        cached = state.keys.shape[1]
        k = torch.cat([state.keys.to(k.dtype), k], 1)
        v = torch.cat([state.values.to(v.dtype), v], 1)
    if rotary is not None:
        q, k = rotary(q, cached), rotary(k)
    if seq_idx is None and not cached and (window is None or window >= length):
        return _fused(q, k, v, None, scale, causal)
    seen = group
    if state is not None and cached:
        # No position is of group -2: absent keys are seen by none.
        seen = torch.cat([torch.where(state.present > 0, 0, -2).to(group.dtype), group], 1)
    if causal and window is not None and length > window:
        return _blocks(q, k, v, group, seen, window, scale)
    places = torch.arange(cached + length, device=q.device)
    distance = places[cached:, None] - places
    allowed = group[:, :, None] == seen[:, None]
    if causal:
        allowed = allowed & (distance >= 0)
    if window is not None:
        allowed = allowed & (distance.abs() < window)
    return _fused(q, k, v, allowed[:, None], scale, False)


def _blocks(
    q: Tensor, k: Tensor, v: Tensor, group: Tensor, seen: Tensor, window: int, scale: float | None
) -> Tensor:
    """Causal attention within a window: each block of queries sees its own keys and those before.

    ``k``, ``v`` and ``seen`` begin with cached ones, so many as they are longer than ``q``.
    """
    batch, length = group.shape
    cached = seen.shape[1] - length
    blocks = (length + window - 1) // window
    behind = blocks * window - length
    # As many keys as a block has stand before the first one.
    front = window - cached
    k, v = (F.pad(x[:, max(0, -front) :], (0, 0, 0, 0, max(0, front), behind)) for x in (k, v))
    seen = F.pad(seen[:, max(0, -front) :], (max(0, front), behind), value=-2)
    q, group = F.pad(q, (0, 0, 0, 0, 0, behind)), F.pad(group, (0, behind), value=-2)
    q = q.unflatten(1, (blocks, window)).flatten(0, 1)
    # (B, blocks, G, P, 2 window) views of overlapping keys.
    k, v = (x.unfold(1, 2 * window, window).movedim(-1, 2).flatten(0, 1) for x in (k, v))
    group = group.view(batch * blocks, window, 1)
    seen = seen.unfold(1, 2 * window, window).reshape(batch * blocks, 1, 2 * window)
    places = torch.arange(2 * window, device=q.device)
    distance = places[window:, None] - places
    # What is filled up sees only its like: a row of nothing would give NaN.
    allowed = (group == seen) & (distance >= 0) & (distance < window)
    y = _fused(q, k, v, allowed[:, None], scale, False)
    return y.unflatten(0, (batch, blocks)).flatten(1, 2)[:, :length]


def _fused(
    q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None, scale: float | None, causal: bool
) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    y = F.scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=allowed,
        is_causal=causal,
        scale=scale,
        enable_gqa=q.shape[1] != k.shape[1],
    )
    return y.transpose(1, 2)
