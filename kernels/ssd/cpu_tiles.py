"""What the forward and the backward of Mamba-2's scan share: a tile of time of one head.

Everything rests on one routine, :func:`run`. A state is a matrix; its lanes are 16 of one axis, its
rows the other. With ``X`` the rows that enter (of lanes), ``S`` the numbers that spread them over
the rows of the state and ``Q`` those that gather them again, it computes for each position::

    Y[t] += Q[t] . H      H += S[t] X[t]

That is the scan without its decay, and without what a position adds to its own output. The decay is
taken out: with ``P[t]`` the product of decays since the start of a run, ``H = h / P`` does not
decay, what enters is divided by ``P``, what leaves is multiplied by it. A run ends where ``P``
leaves [2^-32, 2^32] or a segment does, and the state is scaled there: two multiply-adds remain for
each element. The gradients are three more such scans, see :mod:`tristate.kernels.ssd.cpu_backward`.

Addresses and strides are in bytes; a name that ends in an axis (``x_t``, ``B_n``) is a stride.
"""

import numpy as np

from tristate.kernels.cpu.functions import exp2, sigmoid, softplus
from tristate.kernels.cpu.tiles import load_tile
from tristate.kernels.cpu.vector import (
    LANES,
    VECTOR_BYTES,
    add,
    div,
    fma,
    jit,
    load,
    load_int,
    load_one,
    maximum,
    minimum,
    mul,
    routine,
    splat,
    store,
    store_int,
    store_one,
    store_quarters,
    sum_lanes,
    transpose,
)

TILE, CHUNK = 64, 2  # positions; tiles after which the forward keeps the states
# More than the rows themselves: at a distance of 4 KB, a load waits for a store that has nothing to
# do with it. So it is half a tile away from it, in either direction of time.
ROWS = (TILE + TILE // 2) * VECTOR_BYTES
# Numbers of a tile, one a position; and four a position, as ``run`` reads them.
NUMBERS = 4 * TILE
QUADS = 4 * NUMBERS
# Bytes of what ``prepare`` writes, see ``numbers``.
PREPARED = 11 * NUMBERS + 2 * VECTOR_BYTES

# Runs end where the product of decays leaves these: X / P must not overflow.
_LEAST, _MOST = np.float32(2.0**-32), np.float32(2.0**32)


@jit
def blocks(n):
    """How many blocks of 16 lanes hold ``n``."""
    return (n + LANES - 1) // LANES


@jit
def quads(n):
    """How many fours hold ``n``."""
    return (n + 3) // 4


@jit
def numbers(base):
    """Where ``prepare`` puts the numbers of a tile.

    Steps; decays (0 where a segment starts, 1 at padding); products ``P``; ``1 / P``; steps / P;
    slopes of the steps in ``dt``; positions 0, 1, ...; and of runs: bounds, first decay (0 where a
    segment starts), last ``P``.
    """
    steps, decays, scales = base, base + NUMBERS, base + 2 * NUMBERS
    inverses, weights, slopes = base + 3 * NUMBERS, base + 4 * NUMBERS, base + 5 * NUMBERS
    tile, firsts, lasts = base + 6 * NUMBERS, base + 7 * NUMBERS, base + 8 * NUMBERS
    bounds = base + 9 * NUMBERS
    return steps, decays, scales, inverses, weights, slopes, tile, bounds, firsts, lasts


@routine
def clear(start, end):
    """Write zeros."""
    for row in range(start, end, VECTOR_BYTES):
        store(row, splat(np.float32(0)))


@routine
def count_up(tile):
    """Write the positions of a tile, 0, 1, ..."""
    for i in range(TILE):
        store_int(tile + 4 * i, np.int32(i))


@routine
def prepare(dt, dt_t, count, bias, rate, with_softplus, least, most, line, seq_t, segment, base):
    """Steps, decays and runs of a tile; how many runs, and the last real position's segment.

    ``rate`` is ``A log2(e)``; ``line`` the address of the tile's segments, or 0; ``segment`` that
    of the last real position before.
    """
    steps, decays, scales, inverses, weights, slopes, _, bounds, firsts, lasts = numbers(base)
    clear(steps, steps + NUMBERS)
    for i in range(count):
        store_one(steps + 4 * i, load_one(dt + i * dt_t) + bias)
    for row in range(0, NUMBERS, VECTOR_BYTES):
        raw, slope = load(steps + row), splat(np.float32(1))
        value = raw
        if with_softplus:
            value, slope = softplus(raw), sigmoid(raw)
        step = minimum(maximum(value, splat(least)), splat(most))
        store(steps + row, step)
        store(slopes + row, slope)
        store(decays + row, exp2(mul(step, splat(rate))))
        store(weights + row, value)
        store(scales + row, splat(np.float32(1)))
    product, runs = np.float32(1), 0
    for i in range(count):
        place = 4 * i
        decay, fresh = load_one(decays + place), False
        if load_one(weights + place) != load_one(steps + place):
            store_one(slopes + place, np.float32(0))
        if line != 0:
            now = load_int(line + i * seq_t)
            if now < 0:
                decay = np.float32(1)
                store_one(steps + place, np.float32(0))
                store_one(slopes + place, np.float32(0))
            else:
                fresh = segment >= 0 and now != segment
                segment = now
            if fresh:
                decay = np.float32(0)
            store_one(decays + place, decay)
        further = product * decay
        if i == 0 or fresh or not (further > _LEAST and further < _MOST):
            if i > 0:
                store_one(lasts + 4 * runs - 4, product)
            store_int(bounds + 4 * runs, np.int32(i))
            store_one(firsts + 4 * runs, decay)
            further = np.float32(1)
            runs += 1
        product = further
        store_one(scales + place, product)
    store_one(lasts + 4 * runs - 4, product)
    store_int(bounds + 4 * runs, np.int32(count))
    for row in range(0, NUMBERS, VECTOR_BYTES):
        inverse = div(splat(np.float32(1)), load(scales + row))
        store(inverses + row, inverse)
        store(weights + row, mul(inverse, load(steps + row)))
    return runs, segment


@jit
def _scaled(row, factor):
    # What comes before a segment is nothing, be it infinite.
    if factor == 0:
        return splat(np.float32(0))
    return mul(load(row), splat(factor))


@routine
def run(n_quads, states, rows, spread, gather, sums, bounds, runs, firsts, lasts, back):
    """Run a tile through ``4 n_quads`` rows of a state, ``back`` in time if so; see the module.

    ``spread`` and ``gather`` are numbers in fours, ``(n_quads, TILE, 4)``; ``sums`` rows to which
    is added.
    """
    step = -1 if back else 1
    for quad in range(n_quads):
        state = states + 4 * VECTOR_BYTES * quad
        for k in range(runs):
            this = runs - 1 - k if back else k
            first, end = load_int(bounds + 4 * this), load_int(bounds + 4 * this + 4)
            enters, leaves = load_one(firsts + 4 * this), load_one(lasts + 4 * this)
            if back:
                enters, leaves = leaves, enters
            i = end - 1 if back else first
            h0, h1 = _scaled(state, enters), _scaled(state + VECTOR_BYTES, enters)
            h2 = _scaled(state + 2 * VECTOR_BYTES, enters)
            h3 = _scaled(state + 3 * VECTOR_BYTES, enters)
            for _ in range(end - first):
                row, place = VECTOR_BYTES * i, QUADS * quad + 16 * i
                x, y = load(rows + row), load(sums + row)
                y = fma(h0, splat(load_one(gather + place)), y)
                y = fma(h1, splat(load_one(gather + place + 4)), y)
                y = fma(h2, splat(load_one(gather + place + 8)), y)
                y = fma(h3, splat(load_one(gather + place + 12)), y)
                h0 = fma(x, splat(load_one(spread + place)), h0)
                h1 = fma(x, splat(load_one(spread + place + 4)), h1)
                h2 = fma(x, splat(load_one(spread + place + 8)), h2)
                h3 = fma(x, splat(load_one(spread + place + 12)), h3)
                store(sums + row, y)
                i += step
            store(state, h0)
            store(state + VECTOR_BYTES, h1)
            store(state + 2 * VECTOR_BYTES, h2)
            store(state + 3 * VECTOR_BYTES, h3)
            if leaves != 1:
                for row in range(state, state + 4 * VECTOR_BYTES, VECTOR_BYTES):
                    store(row, _scaled(row, leaves))


@routine
def blank(rows, count, line, seq_t):
    """Set the rows at padding to zero; ``line`` is the address of the tile's segments, or 0."""
    if line != 0:
        for i in range(count):
            if load_int(line + i * seq_t) < 0:
                store(rows + VECTOR_BYTES * i, splat(np.float32(0)))


@jit
def load_rows(kind, source, step_d, step_t, tile, count, n_lanes, rows, line, seq_t):
    """Bring a tile of 16 channels into rows, zero at padding."""
    load_tile(kind, source, step_d, step_t, tile, count, n_lanes, rows)
    blank(rows, count, line, seq_t)


@routine
def pack(rows, count, target):
    """Write rows of 16 lanes as four fours a position, as :func:`run` reads them."""
    for i in range(count):
        store_quarters(target + 16 * i, QUADS, load(rows + VECTOR_BYTES * i))


@routine
def add_products(rows, others, sums, count):
    """Add products of rows to sums, lane by lane."""
    for row in range(0, VECTOR_BYTES * count, VECTOR_BYTES):
        store(sums + row, fma(load(rows + row), load(others + row), load(sums + row)))


@routine
def add_lanes(sums, count, target):
    """Write the sum over the lanes of each row."""
    for i in range(count):
        store_one(target + 4 * i, sum_lanes(load(sums + VECTOR_BYTES * i)))


@routine
def dot(first, second, n_bytes):
    """The sum of the products of two stretches of memory."""
    total = splat(np.float32(0))
    for row in range(0, n_bytes, VECTOR_BYTES):
        total = fma(load(first + row), load(second + row), total)
    return sum_lanes(total)


@jit
def add_row(place, value):
    """Add a vector to what is there."""
    store(place, add(load(place), value))


@jit
def _axes(width, n_states, of_states):
    """Lanes and rows of a state, and the bytes between them in ``(P, N)``."""
    if of_states:
        return n_states, width, 4, 4 * n_states
    return width, n_states, 4 * n_states, 4


@routine
def load_state(source, width, n_states, of_states, states):
    """Bring a state ``(P, N)`` into lanes of ``P``, or ``of_states``; zeros without a source.

    Blocks of 16 lanes, each with a row for every index of the other axis, in fours.
    """
    n_lanes, n_rows, lane_step, row_step = _axes(width, n_states, of_states)
    block_bytes = 4 * VECTOR_BYTES * quads(n_rows)
    clear(states, states + blocks(n_lanes) * block_bytes)
    if source == 0:
        return
    for lane in range(0, n_lanes, LANES):
        for row in range(0, n_rows, LANES):
            place = source + lane * lane_step + row * row_step
            target = states + lane // LANES * block_bytes + VECTOR_BYTES * row
            if lane + LANES <= n_lanes and row + LANES <= n_rows and not of_states:
                transpose(place, lane_step, target, VECTOR_BYTES)
                continue
            for k in range(min(LANES, n_rows - row)):
                for i in range(min(LANES, n_lanes - lane)):
                    value = load_one(place + i * lane_step + k * row_step)
                    store_one(target + VECTOR_BYTES * k + 4 * i, value)


@routine
def store_state(states, width, n_states, of_states, target):
    """The other way round."""
    n_lanes, n_rows, lane_step, row_step = _axes(width, n_states, of_states)
    block_bytes = 4 * VECTOR_BYTES * quads(n_rows)
    for lane in range(0, n_lanes, LANES):
        for row in range(0, n_rows, LANES):
            place = target + lane * lane_step + row * row_step
            source = states + lane // LANES * block_bytes + VECTOR_BYTES * row
            if lane + LANES <= n_lanes and row + LANES <= n_rows and not of_states:
                transpose(source, VECTOR_BYTES, place, lane_step)
                continue
            for k in range(min(LANES, n_rows - row)):
                for i in range(min(LANES, n_lanes - lane)):
                    value = load_one(source + VECTOR_BYTES * k + 4 * i)
                    store_one(place + i * lane_step + k * row_step, value)
