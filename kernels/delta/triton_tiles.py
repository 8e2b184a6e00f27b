"""What the kernels of the gated delta rule read of a tile of steps, and how its steps meet.

A token makes ``n`` steps, and is read after its last one. Steps count in the order in which time is
read. States lie in memory, ``(K, V)``, and are worked on piece by piece: registers have no room
for one beside what else a tile needs. A ``table`` is a tensor by place: its address, and the
strides of places and of channels.
"""

# Triton compiles what is below: to a type checker its tiles are Python's values.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportGeneralTypeIssues=false

import triton
import triton.language as tl

from tristate.kernels.triton.axes import lanes, piece_of
from tristate.kernels.triton.decays import (
    decay_after,
    decay_before,
    decay_between,
    reaches,
    segment_after,
    segment_before,
    segments_at,
)
from tristate.kernels.triton.memory import state_at
from tristate.kernels.triton.products import dot
from tristate.kernels.triton.triangular import substitute, unit_inverse


@triton.jit
def rows_at(table, place, mask, lane, inside):
    """A tile ``(T, lanes)`` of the places, zeros where masked."""
    x, x_t, x_c = table
    at = x + place[:, None] * x_t + lane[None, :] * x_c
    return tl.load(at, mask=mask[:, None] & inside[None, :], other=0)


@triton.jit
def steps_of(tile, time, segments, length, n, REVERSE: tl.constexpr, BLOCK_T: tl.constexpr):
    """A tile's steps, made anew for each ``time`` of a tile.

    Of the steps the number, the token and the step in memory, and the turn in its token; which are
    there, which of these are real; the segment of each, of the state before them and behind.
    """
    t = lanes(tile + time, BLOCK_T)
    step = tile * BLOCK_T + t
    there = step < length * n
    token, turn = step // n, step % n
    token = (length - 1 - token if REVERSE else token).to(tl.int64)
    place = token * n + turn
    real, segment, before = there, tl.zeros_like(step), 0
    if segments is not None:
        segment, is_real = segments_at(segments, step)
        real &= is_real
        before = segment_before(segments, tile * BLOCK_T)
    after = segment_after(segment, t, BLOCK_T)
    return t, token, place, turn, there, real, segment, before, after


@triton.jit
def logs_of(g, token, mask, key, is_key, BY_KEY: tl.constexpr):
    """Logarithms of the decays before each step, ``(T,)`` or ``(T, K)``; 0 where masked."""
    gate, gate_t, _ = g
    if gate is None:
        found = tl.zeros_like(token).to(tl.float32)
    elif BY_KEY:
        found = rows_at(g, token, mask, key, is_key).to(tl.float32)
    else:
        found = tl.load(gate + token * gate_t, mask=mask, other=0).to(tl.float32)
    # Nothing is left of an infinite one, whose multiples by 0 were no numbers.
    return tl.maximum(found, -1e4)


@triton.jit
def rates_of(beta, place, mask, value, is_value, BY_VALUE: tl.constexpr):
    """Rates ``(T, 1)`` or ``(T, V)``; 0 where masked."""
    rate, rate_t, _ = beta
    if BY_VALUE:
        found = rows_at(beta, place, mask, value, is_value)
    else:
        found = tl.load(rate + place * rate_t, mask=mask, other=0)[:, None]
    return found.to(tl.float32)


@triton.jit
def ends_of(log_decay, segment, before, after, t, BY_KEY: tl.constexpr):
    """What is left of the state before a tile at each step and behind the tile, and of each step.

    By head ``(T, 1)``, a number, ``(T, 1)``; by key ``(T, K)``, ``(1, K)``, ``(T, K)``.
    """
    stays = before == after
    whole = tl.where(stays, tl.exp(tl.sum(log_decay, 0)), 0)
    if BY_KEY:
        here = tl.exp(tl.cumsum(log_decay, 0))
        here = tl.where((segment == before)[:, None], here, 0)
        whole = whole[None, :]
        left = tl.exp(dot(tl.where(t[:, None] < t[None, :], 1.0, 0.0), log_decay))
        left = tl.where((segment == after)[:, None], left, 0)
    else:
        here = decay_before(log_decay, segment, before)[:, None]
        left = decay_after(log_decay, segment, after, t)[:, None]
    return here, whole, left


@triton.jit
def meetings(
    tile, time, first, k, g, segments, length, n, d_key,
    SHOWS: tl.constexpr, REVERSE: tl.constexpr, BY_KEY: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """How much each step finds of what others wrote, ``x_i^T P_ij k_j``, lower triangular.

    ``P_ij``: the decay from ``j`` to ``i``. ``x`` are the queries in ``first`` if that is what the
    tile ``SHOWS``; else the keys, and the diagonal is left out. By key they are found step by step,
    from the last one, by sums of logarithms: their exponentials taken apart, as products of
    matrices would have them, may overflow.
    """
    met = tl.zeros([BLOCK_T, BLOCK_T], tl.float32)
    for i in tl.range(0, tl.cdiv(d_key, BLOCK_K), disable_licm=True):
        t, token, place, turn, _there, real, _segment, _before, _after = steps_of(
            tile, time + i, segments, length, n, REVERSE, BLOCK_T
        )
        key, is_key = piece_of(tile, i, d_key, BLOCK_K)
        keys = rows_at(k, place, real, key, is_key)
        x = rows_at(first, token, real & (turn == n - 1), key, is_key) if SHOWS else keys
        if BY_KEY:
            logs = logs_of(g, token, real & (turn == 0), key, is_key, True)
            sums = tl.zeros([BLOCK_T, BLOCK_K], tl.float32)
            x, keys = x.to(tl.float32), keys.to(tl.float32)
            for m in tl.range(0, BLOCK_T, disable_licm=True):
                j = BLOCK_T - 1 - m
                is_j = (t == j)[:, None]
                other = tl.sum(tl.where(is_j, keys, 0), 0)[None, :]
                column = tl.sum(x * tl.exp(sums) * other, 1)[:, None]
                met += tl.where((t == j)[None, :], column, 0)
                own = tl.sum(tl.where(is_j, logs, 0), 0)[None, :]
                sums += tl.where((t >= j)[:, None], own, 0)
        else:
            met += dot(x, tl.trans(keys))
    t, token, _place, turn, _there, real, segment, _before, _after = steps_of(
        tile, time, segments, length, n, REVERSE, BLOCK_T
    )
    if BY_KEY:
        met = tl.where(reaches(segment, t), met, 0)
    else:
        met *= decay_between(logs_of(g, token, real & (turn == 0), t, real, False), segment, t)
    return met if SHOWS else strictly(met, t)


@triton.jit
def strictly(x, t):
    """A tile below its diagonal."""
    return tl.where(t[:, None] > t[None, :], x, 0)


@triton.jit
def held(
    tile, time, j, rows, k, g, state, segments, length, n, d_key, d_value,
    READS: tl.constexpr, BEHIND: tl.constexpr, REVERSE: tl.constexpr, BY_KEY: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """What a state holds under each row, ``(T, V)``, of the ``j``-th piece of the values.

    Rows are queries if they are ``READS``, else keys, and are decayed: from the state before the
    tile to each step, or from each step to the state ``BEHIND``.
    """
    found = tl.zeros([BLOCK_T, BLOCK_V], tl.float32)
    for i in tl.range(0, tl.cdiv(d_key, BLOCK_K), disable_licm=True):
        t, token, place, turn, _there, real, segment, before, after = steps_of(
            tile, time + i, segments, length, n, REVERSE, BLOCK_T
        )
        key, is_key = piece_of(tile, i, d_key, BLOCK_K)
        if READS:
            x = rows_at(rows, token, real & (turn == n - 1), key, is_key)
        else:
            x = rows_at(rows, place, real, key, is_key)
        if BY_KEY:
            logs = logs_of(g, token, real & (turn == 0), key, is_key, True)
            here, _, left = ends_of(logs, segment, before, after, t, True)
            x = x.to(tl.float32) * (left if BEHIND else here)
        at, inside = state_at(tile, i, j, d_key, d_value, BLOCK_K, BLOCK_V)
        found += dot(x, tl.trans(tl.load(state + at, mask=inside, other=0)))
    if not BY_KEY:
        t, token, _place, turn, _there, real, segment, before, after = steps_of(
            tile, time, segments, length, n, REVERSE, BLOCK_T
        )
        logs = logs_of(g, token, real & (turn == 0), t, real, False)
        here, _, left = ends_of(logs, segment, before, after, t, False)
        found *= left if BEHIND else here
    return found


@triton.jit
def inverse_of(
    finds, rates, t, BY_VALUE: tl.constexpr, BLOCK_T: tl.constexpr, N_LEVELS: tl.constexpr
):
    """What turns what a tile's steps want before they see each other into what they correct.

    With rates by value each has a system of its own, which is solved step by step; nothing then.
    """
    return finds if BY_VALUE else unit_inverse(rates * finds, t, BLOCK_T, N_LEVELS)


@triton.jit
def written_by(wanted, rates, finds, inverse, t, BY_VALUE: tl.constexpr, BLOCK_T: tl.constexpr):
    """What the steps of a tile write, ``(T, V)``, of what they want before they see each other."""
    if BY_VALUE:
        written = rates * substitute(finds, rates, wanted, t, BLOCK_T)
    else:
        written = dot(inverse, rates * wanted)
    return written


@triton.jit
def take_state_on(
    tile, time, j, written, k, g, state, segments, length, n, d_key, d_value,
    REVERSE: tl.constexpr, BY_KEY: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """Take the ``j``-th piece of a state's values over a tile, whose steps have ``written``."""
    # What other threads of the program read here they may still read, and will read what is new.
    tl.debug_barrier()
    for i in tl.range(0, tl.cdiv(d_key, BLOCK_K), disable_licm=True):
        t, token, place, turn, _there, real, segment, before, after = steps_of(
            tile, time + i, segments, length, n, REVERSE, BLOCK_T
        )
        key, is_key = piece_of(tile, i, d_key, BLOCK_K)
        keys = rows_at(k, place, real, key, is_key)
        logs = logs_of(g, token, real & (turn == 0), key, is_key, BY_KEY)
        _, whole, left = ends_of(logs, segment, before, after, t, BY_KEY)
        if BY_KEY:
            brought = dot(tl.trans(written), keys.to(tl.float32) * left)
        else:
            brought = dot(tl.trans(left * written), keys)
        at, inside = state_at(tile, i, j, d_key, d_value, BLOCK_K, BLOCK_V)
        state_here = tl.load(state + at, mask=inside, other=0)
        tl.store(state + at, whole * state_here + brought, mask=inside)
    tl.debug_barrier()
