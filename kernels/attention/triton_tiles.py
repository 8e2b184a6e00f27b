"""What the kernels of linear attention read of a tile of tokens, and how its tokens meet.

Tokens count in the order in which time is read. Logarithms of decays are ``(T, 1)`` by head and
``(T, K)`` by key. All that is summed of them is of one sign: a difference of two running sums
would lose what they have in common. Who reads ``BEFORE`` a token sees a state that this one hasn't
decayed.

States lie in memory, ``(K, V)``, and are worked on piece by piece: registers have no room for one
beside what else a tile needs. A ``table`` is a tensor by place: its address, and the strides of
places and of channels.
"""

# Triton compiles what is below: to a type checker its tiles are Python's values.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false

import triton
import triton.language as tl

from tristate.kernels.triton.axes import lanes, once, piece_of
from tristate.kernels.triton.decays import (
    reaches,
    segment_after,
    segment_before,
    segments_at,
)
from tristate.kernels.triton.memory import state_at
from tristate.kernels.triton.products import dot

UPTO, EARLIER, LEFT = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
"""Of :func:`ends_of`: which decays."""


@triton.jit
def rows_at(table, place, mask, lane, inside):
    """A tile ``(T, lanes)`` of the places, zeros where masked."""
    x, x_t, x_c = table
    at = x + place[:, None] * x_t + lane[None, :] * x_c
    return tl.load(at, mask=mask[:, None] & inside[None, :], other=0)


@triton.jit
def tokens_of(tile, time, segments, length, REVERSE: tl.constexpr, BLOCK_T: tl.constexpr):
    """A tile's tokens, made anew for each ``time`` of a tile.

    Of the tokens the number and the place in memory, which are there, and which of these are real;
    the segment of each, of the state before them and behind.
    """
    t = lanes(tile + time, BLOCK_T)
    token = tile * BLOCK_T + t
    there = token < length
    place = (length - 1 - token if REVERSE else token).to(tl.int64)
    real, segment, before = there, tl.zeros_like(token), 0
    if segments is not None:
        segment, is_real = segments_at(segments, token)
        real &= is_real
        before = segment_before(segments, tile * BLOCK_T)
    after = segment_after(segment, t, BLOCK_T)
    return t, place, there, real, segment, before, after


@triton.jit
def logs_of(g, place, real, key, is_key, BY_KEY: tl.constexpr):
    """Logarithms of decays, 0 where masked."""
    gate, gate_t, _ = g
    if gate is None:
        logs = tl.zeros_like(place).to(tl.float32)[:, None]
    elif BY_KEY:
        logs = rows_at(g, place, real, key, is_key).to(tl.float32)
    else:
        logs = tl.load(gate + place * gate_t, mask=real, other=0).to(tl.float32)[:, None]
    # Nothing is left of an infinite one, whose multiples by 0 were no numbers.
    return tl.maximum(logs, -1e4)


@triton.jit
def totals(mask, x, WIDE: tl.constexpr):
    """For each row the sum of the rows of ``x`` that are marked in it; ``(T, 1)`` unless wide."""
    if WIDE:
        found = dot(tl.where(mask, 1.0, 0.0), x)
    else:
        found = tl.sum(tl.where(mask, tl.trans(x), 0), 1)[:, None]
    return found


@triton.jit
def ends_of(logs, segment, before, after, t, WHICH: tl.constexpr, BY_KEY: tl.constexpr):
    """What is left of the state before a tile at each token, decayed by it (``UPTO``) or not yet.

    Or of each token's own at the tile's end (``LEFT``). And of the state there: ``(1, K)`` or
    ``(1, 1)``.
    """
    if WHICH == UPTO:
        found = tl.exp(tl.cumsum(logs, 0))
    elif WHICH == EARLIER:
        found = tl.exp(totals(t[:, None] > t[None, :], logs, BY_KEY))
    else:
        found = tl.exp(totals(t[:, None] < t[None, :], logs, BY_KEY))
    found = tl.where((segment == (after if WHICH == LEFT else before))[:, None], found, 0)
    whole = tl.where(before == after, tl.exp(tl.sum(logs, 0)), 0)[None, :]
    return found, whole


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
    tile, time, left, right, g, segments, length, d_key,
    BEFORE: tl.constexpr, REVERSE: tl.constexpr, BY_KEY: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """How much each token finds under ``left`` of what others wrote under ``right``, ``(T, T)``.

    By key they are found token by token, from the last one: exponentials taken apart, as products
    of matrices would have them, may overflow.
    """
    met = tl.zeros([BLOCK_T, BLOCK_T], tl.float32)
    for i in tl.range(0, tl.cdiv(d_key, BLOCK_K), disable_licm=True):
        t, place, _there, real, _segment, _before, _after = tokens_of(
            tile, time + i, segments, length, REVERSE, BLOCK_T
        )
        key, is_key = piece_of(tile, i, d_key, BLOCK_K)
        x, y = rows_at(left, place, real, key, is_key), rows_at(right, place, real, key, is_key)
        if BY_KEY:
            logs = logs_of(g, place, real, key, is_key, True)
            sums = tl.zeros([BLOCK_T, BLOCK_K], tl.float32)
            x, y = x.to(tl.float32), y.to(tl.float32)
            for m in tl.range(0, BLOCK_T, disable_licm=True):
                j = BLOCK_T - 1 - m
                is_j = (t == j)[:, None]
                other = tl.sum(tl.where(is_j, y, 0), 0)[None, :]
                column = tl.sum(x * tl.exp(sums) * other, 1)[:, None]
                met += tl.where((t == j)[None, :], column, 0)
                own = tl.sum(tl.where(is_j, logs, 0), 0)[None, :]
                sums += tl.where((t > j if BEFORE else t >= j)[:, None], own, 0)
        else:
            met += dot(x, tl.trans(y))
    t, place, _there, real, segment, _before, _after = tokens_of(
        tile, time, segments, length, REVERSE, BLOCK_T
    )
    if BY_KEY:
        met = tl.where(sees(segment, t, BEFORE), met, 0)
    else:
        met *= between(logs_of(g, place, real, t, real, False), segment, t, BEFORE)
    return met


@triton.jit
def held(
    tile, time, j, rows, g, state, segments, length, d_key, d_value,
    WHICH: tl.constexpr, REVERSE: tl.constexpr, BY_KEY: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """What a state holds under each row, ``(T, V)``, of the ``j``-th piece of the values.

    Decayed between the state and the row: see :func:`ends_of`.
    """
    found = tl.zeros([BLOCK_T, BLOCK_V], tl.float32)
    for i in tl.range(0, tl.cdiv(d_key, BLOCK_K), disable_licm=True):
        t, place, _there, real, segment, before, after = tokens_of(
            tile, time + i, segments, length, REVERSE, BLOCK_T
        )
        key, is_key = piece_of(tile, i, d_key, BLOCK_K)
        x = rows_at(rows, place, real, key, is_key)
        if BY_KEY:
            logs = logs_of(g, place, real, key, is_key, True)
            remains, _whole = ends_of(logs, segment, before, after, t, WHICH, True)
            x = x.to(tl.float32) * remains
        at, inside = state_at(tile, i, j, d_key, d_value, BLOCK_K, BLOCK_V)
        found += dot(x, tl.trans(tl.load(state + at, mask=inside, other=0)))
    if not BY_KEY:
        t, place, _there, real, segment, before, after = tokens_of(
            tile, time, segments, length, REVERSE, BLOCK_T
        )
        logs = logs_of(g, place, real, t, real, False)
        remains, _whole = ends_of(logs, segment, before, after, t, WHICH, False)
        found *= remains
    return found


@triton.jit
def add_brought(
    state, tile, time, i, rows, values, g, segments, length, d_key,
    WHICH: tl.constexpr, REVERSE: tl.constexpr, BY_KEY: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """Adds to a state ``(V, K)`` what tokens bring under the ``i``-th piece of their rows.

    ``values`` are what they bring, ``(T, V)``, decayed between token and state.
    """
    for turn in tl.range(0, once(tile), disable_licm=True):
        t, place, _there, real, segment, before, after = tokens_of(
            tile, time + turn, segments, length, REVERSE, BLOCK_T
        )
        key, is_key = piece_of(tile + turn, i, d_key, BLOCK_K)
        x = rows_at(rows, place, real, key, is_key)
        logs = logs_of(g, place, real, key, is_key, BY_KEY)
        remains, _whole = ends_of(logs, segment, before, after, t, WHICH, BY_KEY)
        if BY_KEY:
            state += dot(tl.trans(values.to(tl.float32)), x.to(tl.float32) * remains)
        else:
            state += dot(tl.trans(remains * values), x)
    return state


@triton.jit
def left_whole(
    tile, time, i, g, segments, length, d_key,
    REVERSE: tl.constexpr, BY_KEY: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """What is left behind a tile of the state before it, of the ``i``-th piece of the keys."""
    t, place, _there, real, segment, before, after = tokens_of(
        tile, time, segments, length, REVERSE, BLOCK_T
    )
    key, is_key = piece_of(tile, i, d_key, BLOCK_K)
    logs = logs_of(g, place, real, key, is_key, BY_KEY)
    return ends_of(logs, segment, before, after, t, UPTO, BY_KEY)[1]


@triton.jit
def take_state_on(
    tile, j, values, found, k, b, g, state, segments, length, d_key, d_value,
    REVERSE: tl.constexpr, BY_KEY: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """Take the ``j``-th piece of a state's values over a tile.

    Its tokens bring ``values``, and what they ``found``, if there is any.
    """
    # What other threads of the program read here they may still read, and will read what is new.
    tl.debug_barrier()
    for i in tl.range(0, tl.cdiv(d_key, BLOCK_K), disable_licm=True):
        at, inside = state_at(tile, i, j, d_key, d_value, BLOCK_K, BLOCK_V)
        new = left_whole(tile, i, i, g, segments, length, d_key, REVERSE, BY_KEY, BLOCK_K, BLOCK_T)
        new *= tl.load(state + at, mask=inside, other=0)
        if values is not None:
            new = add_brought(
                new, tile, i + 1, i, k, values, g, segments, length, d_key,
                LEFT, REVERSE, BY_KEY, BLOCK_K, BLOCK_T,
            )  # fmt: skip
        if found is not None:
            new = add_brought(
                new, tile, i + 2, i, b, found, g, segments, length, d_key,
                LEFT, REVERSE, BY_KEY, BLOCK_K, BLOCK_T,
            )  # fmt: skip
        tl.store(state + at, new, mask=inside)
    tl.debug_barrier()
