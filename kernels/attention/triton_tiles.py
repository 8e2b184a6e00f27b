"""What the kernels of linear attention read of a tile of tokens, and how its tokens meet.

Tokens count in the order in which time is read. Logarithms of decays are ``(T, 1)`` by head and
``(T, K)`` by key. All that is summed of them is of one sign: a difference of two running sums
would lose what they have in common. Who reads ``BEFORE`` a token sees a state that this one hasn't
decayed.
"""

# Triton compiles what is below: to a type checker its tiles are Python's values.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportGeneralTypeIssues=false

import triton
import triton.language as tl

from tristate.kernels.triton.axes import axes_of
from tristate.kernels.triton.decays import (
    reaches,
    segment_after,
    segment_before,
    segments_at,
)
from tristate.kernels.triton.products import dot, long_dot


@triton.jit
def rows_at(x, place, x_t, x_c, mask, lane, inside):
    """A tile ``(T, lanes)`` of the places in float32, zeros where masked."""
    at = x + place[:, None] * x_t + lane[None, :] * x_c
    return tl.load(at, mask=mask[:, None] & inside[None, :], other=0).to(tl.float32)


@triton.jit
def tokens_of(
    tile, time, block, g, segments, length, d_key, d_value, g_t, g_c,
    REVERSE: tl.constexpr, BY_KEY: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """A tile's tokens, keys and values, as :func:`tristate.kernels.triton.axes.axes_of` has them.

    For each ``time`` of a tile, from 0, they are made anew. Of the tokens places in memory, which
    are there, and which of these are real. And the segment of each, of the state before them and
    behind, and the logarithms of decays.
    """
    t, key, is_key, value, is_value = axes_of(
        tile + time, block, d_key, d_value, BLOCK_T, BLOCK_K, BLOCK_V
    )
    token = tile * BLOCK_T + t
    there = token < length
    place = (length - 1 - token if REVERSE else token).to(tl.int64)
    real, segment, before = there, tl.zeros_like(token), 0
    if segments is not None:
        segment, is_real = segments_at(segments, token)
        real &= is_real
        before = segment_before(segments, tile * BLOCK_T)
    after = segment_after(segment, t, BLOCK_T)
    if g is None:
        logs = tl.zeros([BLOCK_T, 1], tl.float32)
    elif BY_KEY:
        logs = rows_at(g, place, g_t, g_c, real, key, is_key)
    else:
        logs = tl.load(g + place * g_t, mask=real, other=0).to(tl.float32)[:, None]
    # Nothing is left of an infinite one, whose multiples by 0 were no numbers.
    logs = tl.maximum(logs, -1e4)
    return (
        t, key, is_key, value, is_value, place, there, real, segment, before, after, logs,
    )  # fmt: skip


@triton.jit
def under(rows, state):
    """What a state ``(V, K)`` holds under each row ``(T, K)``: ``(T, V)``."""
    return long_dot(rows, tl.trans(state))


@triton.jit
def totals(mask, x, WIDE: tl.constexpr):
    """For each row the sum of the rows of ``x`` that are marked in it; ``(T, 1)`` unless wide."""
    if WIDE:
        found = dot(tl.where(mask, 1.0, 0.0), x)
    else:
        found = tl.sum(tl.where(mask, tl.trans(x), 0), 1)[:, None]
    return found


@triton.jit
def ends_of(logs, segment, before, after, t, BY_KEY: tl.constexpr):
    """What is left of the state before a tile at each token, decayed by it or not yet.

    And of each token's own at the tile's end, and of the state there: ``(1, K)`` or ``(1, 1)``.
    """
    old, new = (segment == before)[:, None], (segment == after)[:, None]
    upto = tl.where(old, tl.exp(tl.cumsum(logs, 0)), 0)
    earlier = tl.where(old, tl.exp(totals(t[:, None] > t[None, :], logs, BY_KEY)), 0)
    left = tl.where(new, tl.exp(totals(t[:, None] < t[None, :], logs, BY_KEY)), 0)
    whole = tl.where(before == after, tl.exp(tl.sum(logs, 0)), 0)[None, :]
    return upto, earlier, left, whole


@triton.jit
def sees(segment, t, BEFORE: tl.constexpr):
    """Whether a token, by row, reads what another, by column, wrote."""
    mask = reaches(segment, t)
    if BEFORE:
        mask = mask & (t[:, None] > t[None, :])
    return mask


@triton.jit
def between(logs, segment, t, BEFORE: tl.constexpr):
    """What is left, by head, for the token of a row of what that of a column wrote."""
    later = t[:, None] > t[None, :]
    steps = tl.where(later, logs, 0)
    apart = dot(tl.where(later, 1.0, 0.0), steps) if BEFORE else tl.cumsum(steps, 0)
    return tl.where(sees(segment, t, BEFORE), tl.exp(apart), 0)


@triton.jit
def meetings(
    left, right, logs, segment, t, n_steps,
    BEFORE: tl.constexpr, BY_KEY: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """How much each token finds under ``left`` of what others wrote under ``right``, ``(T, T)``.

    By key they are found token by token, from the last one: exponentials taken apart, as products
    of matrices would have them, may overflow.
    """
    if BY_KEY:
        met = tl.zeros([BLOCK_T, BLOCK_T], tl.float32)
        sums = tl.zeros([BLOCK_T, BLOCK_K], tl.float32)
        for i in tl.range(0, n_steps, disable_licm=True):
            j = BLOCK_T - 1 - i
            is_j = (t == j)[:, None]
            other = tl.sum(tl.where(is_j, right, 0), 0)[None, :]
            column = tl.sum(left * tl.exp(sums) * other, 1)[:, None]
            met = tl.where((t == j)[None, :], column, met)
            own = tl.sum(tl.where(is_j, logs, 0), 0)[None, :]
            sums += tl.where((t > j if BEFORE else t >= j)[:, None], own, 0)
        met = tl.where(sees(segment, t, BEFORE), met, 0)
    else:
        met = long_dot(left, tl.trans(right)) * between(logs, segment, t, BEFORE)
    return met


@triton.jit
def meetings_back(
    grad, left, right, d_left, d_right, logs, segment, t, n_steps,
    BEFORE: tl.constexpr, BY_KEY: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Adds to the gradients of both sides what the gradient of their meetings brings."""
    if BY_KEY:
        grad = tl.where(sees(segment, t, BEFORE), grad, 0)
        sums = tl.zeros([BLOCK_T, BLOCK_K], tl.float32)
        for i in tl.range(0, n_steps, disable_licm=True):
            j = BLOCK_T - 1 - i
            is_j = (t == j)[:, None]
            weight = tl.sum(tl.where((t == j)[None, :], grad, 0), 1)[:, None] * tl.exp(sums)
            d_left += weight * tl.sum(tl.where(is_j, right, 0), 0)[None, :]
            d_right += tl.where(is_j, tl.sum(weight * left, 0)[None, :], 0)
            own = tl.sum(tl.where(is_j, logs, 0), 0)[None, :]
            sums += tl.where((t > j if BEFORE else t >= j)[:, None], own, 0)
    else:
        grad *= between(logs, segment, t, BEFORE)
        d_left += dot(grad, right)
        d_right += dot(tl.trans(grad), left)
    return d_left, d_right
