"""What the kernels of the gated delta rule read of a tile of steps, and how its steps meet.

A token makes ``n`` steps, and is read after its last one. Steps count in the order in which time is
read.
"""

# Triton compiles what is below: to a type checker its tiles are Python's values.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportGeneralTypeIssues=false

import triton
import triton.language as tl

from tristate.kernels.triton.axes import axes_of
from tristate.kernels.triton.decays import (
    decay_after,
    decay_before,
    decay_between,
    reaches,
    segment_after,
    segment_before,
    segments_at,
)
from tristate.kernels.triton.products import dot, long_dot
from tristate.kernels.triton.triangular import substitute, unit_inverse


@triton.jit
def rows_at(x, place, x_t, x_c, mask, lane, inside):
    """A tile ``(T, lanes)`` of the places, zeros where masked."""
    at = x + place[:, None] * x_t + lane[None, :] * x_c
    return tl.load(at, mask=mask[:, None] & inside[None, :], other=0)


@triton.jit
def steps_of(
    tile, time, block, k, beta, g, segments, length, n, d_key, d_value,
    k_t, k_c, beta_t, beta_c, g_t, g_c,
    REVERSE: tl.constexpr, BY_KEY: tl.constexpr, BY_VALUE: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """A tile's steps, keys and values, as :func:`tristate.kernels.triton.axes.axes_of` has them.

    For each ``time`` of a tile, from 0, they are made and read anew. Of the steps the token and the
    step in memory, and the turn in its token; which are there, which of these are real; the segment
    of each, of the state before them and behind; the keys ``(T, K)``; logarithms of the decays
    before each step, ``(T,)`` or ``(T, K)``, 0 but at a token's first; rates, ``(T, 1)`` or ``(T,
    V)``. All is 0 where a step isn't real.
    """
    t, key, is_key, value, is_value = axes_of(
        tile + time, block, d_key, d_value, BLOCK_T, BLOCK_K, BLOCK_V
    )
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
    keys = rows_at(k, place, k_t, k_c, real, key, is_key)
    decays = real & (turn == 0)
    if g is None:
        log_decay = tl.zeros([BLOCK_T], tl.float32)
    elif BY_KEY:
        log_decay = rows_at(g, token, g_t, g_c, decays, key, is_key).to(tl.float32)
    else:
        log_decay = tl.load(g + token * g_t, mask=decays, other=0).to(tl.float32)
    # Nothing is left of an infinite one, whose multiples by 0 were no numbers.
    log_decay = tl.maximum(log_decay, -1e4)
    if BY_VALUE:
        rates = rows_at(beta, place, beta_t, beta_c, real, value, is_value)
    else:
        rates = tl.load(beta + place * beta_t, mask=real, other=0)[:, None]
    rates = rates.to(tl.float32)
    return (
        t, key, is_key, value, is_value,
        token, place, turn, there, real, segment, before, after, keys, log_decay, rates,
    )  # fmt: skip


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
    q, k, log_decay, segment, t, BY_KEY: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_K: tl.constexpr
):
    """How much each step finds of what others wrote, ``q_i^T P_ij k_j``, lower triangular.

    ``P_ij``: the decay from ``j`` to ``i``. By key they are found step by step, from the last one,
    by sums of logarithms: their exponentials taken apart, as products of matrices would have them,
    may overflow.
    """
    if BY_KEY:
        met = tl.zeros([BLOCK_T, BLOCK_T], tl.float32)
        sums = tl.zeros([BLOCK_T, BLOCK_K], tl.float32)
        q, k = q.to(tl.float32), k.to(tl.float32)
        for i in tl.range(0, BLOCK_T, disable_licm=True):
            j = BLOCK_T - 1 - i
            is_j = (t == j)[:, None]
            other = tl.sum(tl.where(is_j, k, 0), 0)[None, :]
            column = tl.sum(q * tl.exp(sums) * other, 1)[:, None]
            met = tl.where((t == j)[None, :], column, met)
            own = tl.sum(tl.where(is_j, log_decay, 0), 0)[None, :]
            sums += tl.where((t >= j)[:, None], own, 0)
        met = tl.where(reaches(segment, t), met, 0)
    else:
        met = long_dot(q, tl.trans(k)) * decay_between(log_decay, segment, t)
    return met


@triton.jit
def strictly(x, t):
    """A tile below its diagonal."""
    return tl.where(t[:, None] > t[None, :], x, 0)


@triton.jit
def held(k, here, state, BY_KEY: tl.constexpr):
    """What the state before a tile holds under each key, ``(T, V)``.

    Wide as it is it comes before products of steps with steps: Triton lays the warps out for all
    products by the first one's shape.
    """
    state = tl.trans(state)
    return long_dot(k.to(tl.float32) * here, state) if BY_KEY else here * long_dot(k, state)


@triton.jit
def written_by(
    wanted, rates, finds, t, BY_VALUE: tl.constexpr, BLOCK_T: tl.constexpr, N_LEVELS: tl.constexpr
):
    """What the steps of a tile write, ``(T, V)``, of what they want before they see each other."""
    if BY_VALUE:
        written = rates * substitute(finds, rates, wanted, t, BLOCK_T)
    else:
        inverse = unit_inverse(rates * finds, t, BLOCK_T, N_LEVELS)
        written = dot(inverse, rates * wanted)
    return written


@triton.jit
def state_after(state, k, written, whole, left, BY_KEY: tl.constexpr):
    """The state ``(V, K)`` behind a tile."""
    if BY_KEY:
        brought = dot(tl.trans(written), k.to(tl.float32) * left)
    else:
        brought = dot(tl.trans(left * written), k)
    return whole * state + brought
