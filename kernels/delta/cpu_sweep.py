"""One pass over a state: it decays, rank-one terms enter, and products with it leave.

The state is a matrix of rows of 16 lanes, in the first cache. What is a number for each row is
read from a line of float32 and broadcast. A step of a recurrence wants the next step's product
with the state that it leaves behind: both are had in one pass, four operations for each vector.

The same passes serve a state with value channels in its lanes and key channels in its rows, whose
decay is by row, and the transposed one, whose decay is by lane.
"""

import numpy as np

from tristate.kernels.cpu.vector import (
    VECTOR_BYTES,
    add,
    fma,
    jit,
    load,
    load_one,
    mul,
    neg,
    routine,
    splat,
    store,
)

BY_ROW, BY_LANE = 1, 2


@jit
def _decayed(kind, h, decay, lanes):
    if kind == BY_ROW:
        return mul(splat(load_one(decay)), h)
    if kind == BY_LANE:
        return mul(lanes, h)
    return h


@jit
def _advance(
    kind, reads, state, n_rows, decay, entering_rows, entering, read_rows, next_rows, read, next_
):  # fmt: skip
    zero = splat(np.float32(0))
    lanes = zero
    if kind == BY_LANE:
        lanes = load(decay)
    x = load(entering)
    read_0, read_1, next_0, next_1 = zero, zero, zero, zero
    for r in range(0, 4 * n_rows, 8):
        at = state + LINES * r
        h_0 = _decayed(kind, load(at), decay + r, lanes)
        h_1 = _decayed(kind, load(at + VECTOR_BYTES), decay + r + 4, lanes)
        h_0 = fma(splat(load_one(entering_rows + r)), x, h_0)
        h_1 = fma(splat(load_one(entering_rows + r + 4)), x, h_1)
        if reads:
            read_0 = fma(splat(load_one(read_rows + r)), h_0, read_0)
            read_1 = fma(splat(load_one(read_rows + r + 4)), h_1, read_1)
        next_0 = fma(splat(load_one(next_rows + r)), h_0, next_0)
        next_1 = fma(splat(load_one(next_rows + r + 4)), h_1, next_1)
        store(at, h_0)
        store(at + VECTOR_BYTES, h_1)
    if reads:
        store(read, add(read_0, read_1))
    store(next_, add(next_0, next_1))


# Bytes of a row of lanes for each byte of a line of one number a row.
LINES = VECTOR_BYTES // 4


@jit
def advance(
    kind, decays, reads, state, n_rows, decay, entering_rows, entering, read_rows, next_rows, read,
    next_,
):  # fmt: skip
    """``S = decay S + rows x``; write ``read_rows . S`` to ``read`` and ``next_rows . S``.

    Args:
        kind: ``BY_ROW`` or ``BY_LANE``, how ``decay`` is given; known when compiled.
        decays: whether it decays.
        reads: whether ``read`` is wanted.
        state: address of the rows; an even number of them, ``n_rows``.
        decay: address of a number for each row, or of lanes.
        entering_rows: of the numbers by which ``entering``, lanes, enters each row.
        read_rows: of the rows' weights in ``read``.
        next_rows: of those in ``next_``.
    """
    if decays and reads:
        _advance(
            kind, True, state, n_rows, decay, entering_rows, entering, read_rows, next_rows, read,
            next_,
        )  # fmt: skip
    elif decays:
        _advance(
            kind, False, state, n_rows, decay, entering_rows, entering, read_rows, next_rows, read,
            next_,
        )  # fmt: skip
    elif reads:
        _advance(
            0, True, state, n_rows, decay, entering_rows, entering, read_rows, next_rows, read,
            next_,
        )  # fmt: skip
    else:
        _advance(
            0, False, state, n_rows, decay, entering_rows, entering, read_rows, next_rows, read,
            next_,
        )  # fmt: skip


@jit
def _retreat(
    kind, adds, state, n_rows, decay, leaving_rows, leaving, added_rows, added, next_rows, next_
):  # fmt: skip
    zero = splat(np.float32(0))
    lanes, y = zero, zero
    if kind == BY_LANE:
        lanes = load(decay)
    x = neg(load(leaving))
    if adds:
        y = load(added)
    next_0, next_1 = zero, zero
    for r in range(0, 4 * n_rows, 8):
        at = state + LINES * r
        h_0 = _decayed(kind, load(at), decay + r, lanes)
        h_1 = _decayed(kind, load(at + VECTOR_BYTES), decay + r + 4, lanes)
        h_0 = fma(splat(load_one(leaving_rows + r)), x, h_0)
        h_1 = fma(splat(load_one(leaving_rows + r + 4)), x, h_1)
        if adds:
            h_0 = fma(splat(load_one(added_rows + r)), y, h_0)
            h_1 = fma(splat(load_one(added_rows + r + 4)), y, h_1)
        next_0 = fma(splat(load_one(next_rows + r)), h_0, next_0)
        next_1 = fma(splat(load_one(next_rows + r + 4)), h_1, next_1)
        store(at, h_0)
        store(at + VECTOR_BYTES, h_1)
    store(next_, add(next_0, next_1))


@jit
def retreat(
    kind, decays, adds, state, n_rows, decay, leaving_rows, leaving, added_rows, added, next_rows,
    next_,
):  # fmt: skip
    """``G = decay G - rows x``, and where it ``adds``, ``+ added_rows y``; write ``next_rows . G``.

    The transpose of :func:`advance`, with arguments like its own.
    """
    if decays and adds:
        _retreat(
            kind, True, state, n_rows, decay, leaving_rows, leaving, added_rows, added, next_rows,
            next_,
        )  # fmt: skip
    elif decays:
        _retreat(
            kind, False, state, n_rows, decay, leaving_rows, leaving, added_rows, added, next_rows,
            next_,
        )  # fmt: skip
    elif adds:
        _retreat(
            0, True, state, n_rows, decay, leaving_rows, leaving, added_rows, added, next_rows,
            next_,
        )  # fmt: skip
    else:
        _retreat(
            0, False, state, n_rows, decay, leaving_rows, leaving, added_rows, added, next_rows,
            next_,
        )  # fmt: skip


@routine
def product(state, n_rows, rows, target):
    """Write ``rows . S``."""
    total = splat(np.float32(0))
    for r in range(0, 4 * n_rows, 4):
        total = fma(splat(load_one(rows + r)), load(state + LINES * r), total)
    store(target, total)


@routine
def enter(state, n_rows, rows, entering):
    """``S = S + rows x``."""
    x = load(entering)
    for r in range(0, 4 * n_rows, 4):
        at = state + LINES * r
        store(at, fma(splat(load_one(rows + r)), x, load(at)))


@routine
def clear(state, n_rows):
    """Set the state to zero."""
    for r in range(n_rows):
        store(state + VECTOR_BYTES * r, splat(np.float32(0)))
