"""The linear scan on rows of channels, forward and backward.

A row is what all channels hold at one position; a complex number is two lanes of it. Vectors go
along rows, 16 lanes each, so that storage is read in order, and the state is no more than the
address of a row: the output of the position before, the initial state, or the nothing before a
segment. So too with the gradient, which is a scan the other way.

Time goes in tiles of 64 positions. Storage that isn't made of whole vectors is gathered for each
tile into rows of 16 lanes, and scattered back.

Addresses and strides are in bytes, float32 throughout.
"""

import numpy as np

from tristate.kernels.cpu.pairs import conjugate_multiply_add, multiply_add
from tristate.kernels.cpu.tiles import FLOAT32, load_tile, store_tile
from tristate.kernels.cpu.vector import (
    LANES,
    VECTOR_BYTES,
    add,
    fma,
    jit,
    load,
    load_int,
    load_one,
    routine,
    splat,
    store,
    store_int,
    store_one,
    stream,
)

TILE = 64
ROWS = TILE * VECTOR_BYTES


@routine
def _clear(row, n_bytes):
    for d in range(row, row + n_bytes, VECTOR_BYTES):
        store(d, splat(np.float32(0)))


@routine
def _copy(source, target, n_bytes):
    for d in range(0, n_bytes, VECTOR_BYTES):
        store(target + d, load(source + d))


@jit
def _along(i, n_bytes, up):
    """The offset of vector ``i`` (in bytes) of a row, gone through upwards or downwards.

    Memory is foreseen by the hardware where addresses only rise or only fall, over all rows.
    """
    return i if up else n_bytes - VECTOR_BYTES - i


@routine
def _forward_rows(
    a, a_t, b, b_t, h, h_t, n_bytes, n_steps, seq, seq_t, before, zero, segment, pairs, state
):
    """Run through some positions; the address of the last state, and its segment.

    ``before`` is the address of the state that enters, of segment ``segment`` (below 0: of none).
    With a row ``state`` each state is left there, and goes to memory past the caches.
    """
    for t in range(n_steps):
        target = h + t * h_t
        if seq != 0:
            now = load_int(seq + t * seq_t)
            if now < 0:
                _clear(target, n_bytes)
                continue
            if segment >= 0 and now != segment:
                before = zero
            segment = now
        decay, entering = a + t * a_t, b + t * b_t
        for i in range(0, n_bytes, VECTOR_BYTES):
            d = _along(i, n_bytes, h_t > 0)
            x, y, total = load(decay + d), load(before + d), load(entering + d)
            value = multiply_add(x, y, total) if pairs else fma(x, y, total)
            if state != 0:
                store(state + d, value)
                stream(target + d, value)
            else:
                store(target + d, value)
        before = state if state != 0 else target
    return before, segment


@jit
def _real_before(t, seq, seq_t):
    """The last real position before ``t``, or -1."""
    t -= 1
    if seq != 0:
        while t >= 0 and load_int(seq + t * seq_t) < 0:
            t -= 1
    return t


@jit
def _gradient_row(decay, after, grad, below, n_bytes, up, pairs):
    """``below = grad + conj(decay) after``."""
    for i in range(0, n_bytes, VECTOR_BYTES):
        d = _along(i, n_bytes, up)
        x, y, total = load(decay + d), load(after + d), load(grad + d)
        store(below + d, conjugate_multiply_add(x, y, total) if pairs else fma(x, y, total))


@jit
def _add_product(dh, before, da, n_bytes, up, pairs, is_sum):
    """``da = dh conj(before)``, added to what is there if ``is_sum``."""
    zero = splat(np.float32(0))
    for i in range(0, n_bytes, VECTOR_BYTES):
        d = _along(i, n_bytes, up)
        x, y, total = load(before + d), load(dh + d), load(da + d) if is_sum else zero
        store(da + d, conjugate_multiply_add(x, y, total) if pairs else fma(x, y, total))


@routine
def _backward_rows(
    a, a_t, h, h_t, g, g_t, da, da_t, db, db_t, n_bytes, n_steps, seq, seq_t, before, segment,
    decay, after, zero, pairs, is_sum,
):  # fmt: skip
    """Run back through some positions; the addresses of what the next one back needs.

    That is ``decay`` and ``after``: the decay of the real position read next, and the gradient of
    its state. ``before`` is the state that enters the first real one, of ``segment``. With
    ``is_sum`` products are added to the row ``da``.
    """
    if seq != 0:
        for t in range(n_steps):
            if load_int(seq + t * seq_t) < 0:
                _clear(db + t * db_t, n_bytes)
                if not is_sum:
                    _clear(da + t * da_t, n_bytes)
    t = _real_before(n_steps, seq, seq_t)
    while t >= 0:
        earlier = _real_before(t, seq, seq_t)
        state, fresh = before, False
        if earlier >= 0:
            state = h + earlier * h_t
        if seq != 0:
            now = load_int(seq + t * seq_t)
            last = load_int(seq + earlier * seq_t) if earlier >= 0 else segment
            fresh = last >= 0 and last != now
        if fresh:
            state = zero
        row = db + t * db_t
        up = h_t < 0  # back in time
        _gradient_row(decay, after, g + t * g_t, row, n_bytes, up, pairs)
        _add_product(row, state, da + t * da_t, n_bytes, up, pairs, is_sum)
        decay, after = a + t * a_t, zero if fresh else row
        t = earlier
    return decay, after


@routine
def _load_lanes(source, step, n_lanes, row, pairs):
    """Bring numbers ``step`` apart into a row; other lanes zero."""
    store(row, splat(np.float32(0)))
    parts = 2 if pairs else 1
    for i in range(n_lanes):
        place = source + i // parts * step + 4 * (i % parts)
        store_one(row + 4 * i, load_one(place))


@jit
def _gather(source, step_d, step_t, tile, count, n_lanes, rows, pairs):
    """Bring some positions into rows of 16 lanes."""
    if not pairs or step_d == 8:
        load_tile(FLOAT32, source, 4 if pairs else step_d, step_t, tile, count, n_lanes, rows)
    else:
        for t in range(count):
            _load_lanes(source + t * step_t, step_d, n_lanes, rows + VECTOR_BYTES * t, True)


@jit
def _scatter(rows, target, step_d, step_t, tile, count, n_lanes, pairs):
    """The other way round."""
    if not pairs or step_d == 8:
        store_tile(FLOAT32, rows, target, 4 if pairs else step_d, step_t, tile, count, n_lanes)
    else:
        for t in range(count):
            for i in range(n_lanes):
                place = target + t * step_t + i // 2 * step_d + 4 * (i % 2)
                store_one(place, load_one(rows + VECTOR_BYTES * t + 4 * i))


@jit
def _lane_address(base, lane, step_d, pairs):
    """Of a lane that starts a number."""
    return base + (lane // 2 if pairs else lane) * step_d


@jit
def _share(item, n_splits, n_lanes):
    """A split's first lane and the one after its last."""
    blocks, split = (n_lanes + LANES - 1) // LANES, item % n_splits
    first, end = split * blocks // n_splits, (split + 1) * blocks // n_splits
    return LANES * first, min(n_lanes, LANES * end)


@jit
def _count_up(tile):
    for i in range(TILE):
        store_int(tile + 4 * i, np.int32(i))


@jit
def forward(
    task, n_tasks, batch, n_splits, length, n_lanes, pairs, a, a_b, a_d, a_t, b, b_b, b_d, b_t,
    h, h_b, h_d, h_t, initial, last, seq, seq_b, seq_t, streams, scratch, scratch_bytes,
):  # fmt: skip
    """One task's share of the sequences, each split by channels into ``n_splits``.

    Strides ``d`` are of numbers, ``n_lanes`` counts real and imaginary parts. ``a_t`` is 0 for a
    decay that is constant in time. ``initial`` (0: zeros) and ``last`` are dense, ``(B, D)``.
    ``streams`` says that rows of ``h`` are whole lines of memory, and too many for the caches.
    """
    row_bytes = (n_lanes + LANES - 1) // LANES * VECTOR_BYTES
    size = 8 if pairs else 4
    zero = scratch + task * scratch_bytes
    start, state = zero + row_bytes, zero + 2 * row_bytes
    carried = state + row_bytes
    tile = carried + VECTOR_BYTES
    a_rows = tile + 4 * TILE
    b_rows, h_rows = a_rows + ROWS, a_rows + 2 * ROWS
    _clear(zero, 2 * row_bytes)
    _count_up(tile)
    items = batch * n_splits
    for item in range(task * items // n_tasks, (task + 1) * items // n_tasks):
        sequence = item // n_splits
        lane, end_lane = _share(item, n_splits, n_lanes)
        line = seq + sequence * seq_b if seq != 0 else 0
        while lane < end_lane:
            n = (end_lane - lane) // LANES * LANES
            direct = n > 0 and a_d == size and b_d == size and h_d == size
            if not direct:
                n = min(LANES, end_lane - lane)
            n_bytes = 4 * n if direct else VECTOR_BYTES
            if initial != 0:
                source = initial + 4 * (sequence * n_lanes + lane)
                for i in range(n):
                    store_one(start + 4 * i, load_one(source + 4 * i))
            before, segment = start, np.int32(-1)
            a_at = _lane_address(a + sequence * a_b, lane, a_d, pairs)
            b_at = _lane_address(b + sequence * b_b, lane, b_d, pairs)
            h_at = _lane_address(h + sequence * h_b, lane, h_d, pairs)
            if direct:
                before, _ = _forward_rows(
                    a_at, a_t, b_at, b_t, h_at, h_t, n_bytes, length, line, seq_t, before, zero,
                    segment, pairs, state if streams else 0,
                )  # fmt: skip
            else:
                row_t = VECTOR_BYTES if a_t != 0 else 0
                if a_t == 0:
                    _load_lanes(a_at, a_d, n, a_rows, pairs)
                _copy(start, carried, VECTOR_BYTES)
                for first in range(0, length, TILE):
                    count = min(TILE, length - first)
                    if a_t != 0:
                        _gather(a_at + first * a_t, a_d, a_t, tile, count, n, a_rows, pairs)
                    _gather(b_at + first * b_t, b_d, b_t, tile, count, n, b_rows, pairs)
                    here = line + first * seq_t if seq != 0 else 0
                    before, segment = _forward_rows(
                        a_rows, row_t, b_rows, VECTOR_BYTES, h_rows, VECTOR_BYTES, VECTOR_BYTES,
                        count, here, seq_t, carried, zero, segment, pairs, 0,
                    )  # fmt: skip
                    _copy(before, carried, VECTOR_BYTES)
                    _scatter(h_rows, h_at + first * h_t, h_d, h_t, tile, count, n, pairs)
                before = carried
            target = last + 4 * (sequence * n_lanes + lane)
            for i in range(n):
                store_one(target + 4 * i, load_one(before + 4 * i))
            lane += n


@jit
def backward(
    task, n_tasks, batch, n_splits, length, n_lanes, pairs, constant, a, a_b, a_d, a_t,
    h, h_b, h_d, h_t, g, g_b, g_d, g_t, da, da_b, da_d, da_t, db, db_b, db_d, db_t,
    initial, dlast, dinitial, seq, seq_b, seq_t, scratch, scratch_bytes,
):  # fmt: skip
    """Gradients, arguments as in :func:`forward`.

    Of a decay that is constant in time, ``da`` is dense, ``(B, D)``.
    """
    row_bytes = (n_lanes + LANES - 1) // LANES * VECTOR_BYTES
    size = 8 if pairs else 4
    n_tiles = (length + TILE - 1) // TILE
    zero = scratch + task * scratch_bytes
    one, start, incoming = zero + row_bytes, zero + 2 * row_bytes, zero + 3 * row_bytes
    sums, totals = zero + 4 * row_bytes, zero + 5 * row_bytes
    entering = zero + 6 * row_bytes
    carried, carried_decay = entering + VECTOR_BYTES, entering + 2 * VECTOR_BYTES
    tile = entering + 3 * VECTOR_BYTES
    a_rows = tile + 4 * TILE
    h_rows, g_rows = a_rows + ROWS, a_rows + 2 * ROWS
    da_rows, db_rows = a_rows + 3 * ROWS, a_rows + 4 * ROWS
    places = a_rows + 5 * ROWS
    _clear(zero, 6 * row_bytes)
    for i in range(0, n_lanes, 2 if pairs else 1):
        store_one(one + 4 * i, np.float32(1))
    _count_up(tile)
    items = batch * n_splits
    for item in range(task * items // n_tasks, (task + 1) * items // n_tasks):
        sequence = item // n_splits
        lane, end_lane = _share(item, n_splits, n_lanes)
        line = seq + sequence * seq_b if seq != 0 else 0
        # The last real position before each tile: looked for once, or padding is passed over again
        # and again.
        place = -1
        for k in range(n_tiles):
            store_int(places + 4 * k, np.int32(place))
            for t in range(k * TILE, min(length, (k + 1) * TILE)):
                if seq == 0 or load_int(line + t * seq_t) >= 0:
                    place = t
        while lane < end_lane:
            n = (end_lane - lane) // LANES * LANES
            direct = (
                n > 0 and a_d == size and h_d == size and g_d == size and db_d == size
                and da_d == size
            )  # fmt: skip
            if not direct:
                n = min(LANES, end_lane - lane)
            n_bytes = 4 * n if direct else VECTOR_BYTES
            dense = 4 * (sequence * n_lanes + lane)
            for i in range(n):
                if initial != 0:
                    store_one(start + 4 * i, load_one(initial + dense + 4 * i))
                store_one(incoming + 4 * i, load_one(dlast + dense + 4 * i))
            _clear(totals, n_bytes)
            a_at = _lane_address(a + sequence * a_b, lane, a_d, pairs)
            h_at = _lane_address(h + sequence * h_b, lane, h_d, pairs)
            g_at = _lane_address(g + sequence * g_b, lane, g_d, pairs)
            da_at = _lane_address(da + sequence * da_b, lane, da_d, pairs)
            db_at = _lane_address(db + sequence * db_b, lane, db_d, pairs)
            if constant and not direct:
                _load_lanes(a_at, a_d, n, a_rows, pairs)
            decay, after = one, incoming
            for k in range(n_tiles - 1, -1, -1):
                first = k * TILE
                count = min(TILE, length - first)
                here = line + first * seq_t if seq != 0 else 0
                earlier = load_int(places + 4 * k)
                segment = np.int32(-1)
                if seq != 0 and earlier >= 0:
                    segment = load_int(line + earlier * seq_t)
                if constant:
                    _clear(sums, n_bytes)
                if direct:
                    before = h_at + earlier * h_t if earlier >= 0 else start
                    products = sums if constant else da_at + first * da_t
                    decay, after = _backward_rows(
                        a_at + first * a_t, a_t, h_at + first * h_t, h_t, g_at + first * g_t, g_t,
                        products, da_t, db_at + first * db_t, db_t, n_bytes, count, here, seq_t,
                        before, segment, decay, after, zero, pairs, constant,
                    )  # fmt: skip
                else:
                    _copy(start, entering, VECTOR_BYTES)
                    if earlier >= 0:
                        _gather(h_at + earlier * h_t, h_d, h_t, tile, 1, n, entering, pairs)
                    _copy(after, carried, VECTOR_BYTES)
                    _copy(decay, carried_decay, VECTOR_BYTES)
                    if not constant:
                        _gather(a_at + first * a_t, a_d, a_t, tile, count, n, a_rows, pairs)
                    _gather(h_at + first * h_t, h_d, h_t, tile, count, n, h_rows, pairs)
                    _gather(g_at + first * g_t, g_d, g_t, tile, count, n, g_rows, pairs)
                    products = sums if constant else da_rows
                    row_t = 0 if constant else VECTOR_BYTES
                    decay, after = _backward_rows(
                        a_rows, row_t, h_rows, VECTOR_BYTES, g_rows, VECTOR_BYTES, products, row_t,
                        db_rows, VECTOR_BYTES, VECTOR_BYTES, count, here, seq_t, entering, segment,
                        carried_decay, carried, zero, pairs, constant,
                    )  # fmt: skip
                    _scatter(db_rows, db_at + first * db_t, db_d, db_t, tile, count, n, pairs)
                    if not constant:
                        _scatter(da_rows, da_at + first * da_t, da_d, da_t, tile, count, n, pairs)
                if constant:
                    for d in range(0, n_bytes, VECTOR_BYTES):
                        store(totals + d, add(load(totals + d), load(sums + d)))
            _gradient_row(decay, after, zero, incoming, n_bytes, True, pairs)
            for i in range(n):
                store_one(dinitial + dense + 4 * i, load_one(incoming + 4 * i))
                if constant:
                    store_one(da + dense + 4 * i, load_one(totals + 4 * i))
            lane += n
