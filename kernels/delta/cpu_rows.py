"""What the delta rule's kernels read and write: lines of keys and values, blocks of the state.

A line holds what one step (or token) has for each channel, in float32, filled up with zeros to
whole vectors. Addresses and strides are in bytes; a name that ends in an axis is a stride: ``t``
from token to token, ``s`` from step to step of one token.
"""

import numpy as np

from tristate.kernels.cpu.functions import exp
from tristate.kernels.cpu.tiles import FLOAT32, load_row, store_row, width
from tristate.kernels.cpu.vector import (
    LANES,
    VECTOR_BYTES,
    jit,
    load,
    load_int,
    load_one,
    load_short,
    mul,
    prefetch,
    routine,
    splat,
    store,
    store_one,
    store_short,
)


@jit
def share(task, n_tasks, total):
    """The first piece of a task's share of ``total`` pieces, and the one after its last."""
    return task * total // n_tasks, (task + 1) * total // n_tasks


@jit
def line_bytes(n):
    """Bytes of a line of ``n`` channels."""
    return (n + LANES - 1) // LANES * VECTOR_BYTES


@routine
def load_line(kind, source, n, line):
    """``n`` elements side by side as a line."""
    whole = n // LANES
    if kind == FLOAT32:
        for at in range(0, VECTOR_BYTES * whole, VECTOR_BYTES):
            store(line + at, load(source + at))
    else:
        for i in range(whole):
            store(line + VECTOR_BYTES * i, load_row(kind, source + LANES * width(kind) * i))
    if n > LANES * whole:
        source += LANES * width(kind) * whole
        line += VECTOR_BYTES * whole
        store(line, splat(np.float32(0)))
        for i in range(n - LANES * whole):
            if kind == FLOAT32:
                store_one(line + 4 * i, load_one(source + 4 * i))
            else:
                # Side by side first, in the line itself: only vectors are converted.
                store_short(line + 2 * i, load_short(source + 2 * i))
        if kind != FLOAT32:
            store(line, load_row(kind, line))


@routine
def store_line(kind, line, target, n):
    """Write the first ``n`` numbers of a line; one of 16-bit elements may be used up."""
    whole = n // LANES
    for i in range(whole):
        store_row(kind, target + LANES * width(kind) * i, load(line + VECTOR_BYTES * i))
    if n > LANES * whole:
        target += LANES * width(kind) * whole
        line += VECTOR_BYTES * whole
        if kind != FLOAT32:
            store_row(kind, line, load(line))
        for i in range(n - LANES * whole):
            if kind == FLOAT32:
                store_one(target + 4 * i, load_one(line + 4 * i))
            else:
                store_short(target + 2 * i, load_short(line + 2 * i))


@jit
def _foresee(place, n_bytes):
    """Ask for memory that the next tile reads: no hardware foresees its steps, some KB apart."""
    for at in range(place, place + n_bytes, VECTOR_BYTES):
        prefetch(at)


@routine
def load_block(source, n_rows, n_lanes, row_step, lane_step, state):
    """A block of a float32 matrix as rows of lanes, the rest zero; zeros where there is no source.

    An odd number of rows is followed by a row of zeros.
    """
    for r in range(n_rows + n_rows % 2):
        row = state + VECTOR_BYTES * r
        store(row, splat(np.float32(0)))
        if source != 0 and r < n_rows:
            for lane in range(n_lanes):
                store_one(row + 4 * lane, load_one(source + r * row_step + lane * lane_step))


@routine
def store_block(state, n_rows, n_lanes, target, row_step):
    """Write rows of lanes to a float32 matrix with lanes side by side."""
    for r in range(n_rows):
        store_line(FLOAT32, state + VECTOR_BYTES * r, target + r * row_step, n_lanes)


@routine
def load_keys(
    kind, n, d_key, scale, q, q_t, k, k_t, k_s, g, g_t, by_key, tile, count, ahead,
    reads, keys, erases, decays,
):  # fmt: skip
    """Lines of a tile: scaled queries and decays by token, keys by step, and what the keys erase.

    A token's first step erases what has decayed, ``exp(g) k``. Behind the decays of the last token
    stands a line of ones, for its other steps. The tile to come is ``ahead`` tokens from this one.
    """
    size = line_bytes(d_key)
    factor = splat(scale)
    for i in range(count):
        t = load_int(tile + 4 * i)
        line, first = reads + size * i, size * i * n
        load_line(kind, q + t * q_t, d_key, line)
        _foresee(q + (t + ahead) * q_t, width(kind) * d_key)
        for at in range(line, line + size, VECTOR_BYTES):
            store(at, mul(factor, load(at)))
        for j in range(n):
            load_line(kind, k + t * k_t + j * k_s, d_key, keys + first + size * j)
            _foresee(k + (t + ahead) * k_t + j * k_s, width(kind) * d_key)
        line = decays + size * i
        if g == 0:
            for at in range(line, line + size, VECTOR_BYTES):
                store(at, splat(np.float32(1)))
        elif by_key:
            load_line(FLOAT32, g + t * g_t, d_key, line)
            for at in range(line, line + size, VECTOR_BYTES):
                store(at, exp(load(at)))
        else:
            decay = exp(splat(load_one(g + t * g_t)))
            for at in range(line, line + size, VECTOR_BYTES):
                store(at, decay)
        for at in range(0, size, VECTOR_BYTES):
            store(erases + first + at, mul(load(line + at), load(keys + first + at)))
        for at in range(first + size, first + n * size, VECTOR_BYTES):
            store(erases + at, load(keys + at))
    for at in range(decays + size * count, decays + size * (count + 1), VECTOR_BYTES):
        store(at, splat(np.float32(1)))


@jit
def decay_of(decays, size, i, j, count):
    """The line of decays of step ``j`` of token ``i``: ones but for the first step."""
    return decays + size * (i if j == 0 else count)


@routine
def load_rates(by_value, n, n_lanes, beta, beta_t, beta_s, tile, count, rates):
    """One block of value channels' rates, a row for each step."""
    for i in range(count):
        place = beta + load_int(tile + 4 * i) * beta_t
        for j in range(n):
            row = rates + VECTOR_BYTES * (i * n + j)
            if by_value:
                load_line(FLOAT32, place + j * beta_s, n_lanes, row)
            else:
                store(row, splat(load_one(place + j * beta_s)))


@routine
def load_steps(
    kind, n, n_channels, source, source_t, source_s, tile, count, ahead, lines, line_step
):  # fmt: skip
    """Lines of a tile, ``n`` a token, ``line_step`` apart; the next tile is ``ahead`` tokens on."""
    one = kind == FLOAT32 and n_channels == LANES
    for i in range(count):
        place = source + load_int(tile + 4 * i) * source_t
        for j in range(n):
            line = lines + line_step * (i * n + j)
            _foresee(place + ahead * source_t + j * source_s, width(kind) * n_channels)
            if one:
                store(line, load(place + j * source_s))
            else:
                load_line(kind, place + j * source_s, n_channels, line)


@routine
def store_steps(kind, n, n_channels, lines, line_step, target, target_t, target_s, tile, count):
    """Write lines of a tile, ``n`` a token."""
    one = kind == FLOAT32 and n_channels == LANES
    for i in range(count):
        place = target + load_int(tile + 4 * i) * target_t
        for j in range(n):
            line = lines + line_step * (i * n + j)
            if one:
                store(place + j * target_s, load(line))
            else:
                store_line(kind, line, place + j * target_s, n_channels)
