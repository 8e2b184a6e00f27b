"""Sixteen channels at some positions of time, brought into rows of 16 float32, and put back.

A tile's row is what 16 channels hold at one position. Storage may be of any strides (bytes) and of
three element types; the vector code sees rows only. Fast are storage whose channels lie side by
side (rows are copied) and float32 storage whose time does (16 x 16 are transposed in registers).
"""

import numpy as np

from tristate.kernels.cpu.vector import (
    LANES,
    VECTOR_BYTES,
    jit,
    load,
    load_bfloat16,
    load_float16,
    load_int,
    load_one,
    load_short,
    prefetch,
    routine,
    splat,
    store,
    store_bfloat16,
    store_float16,
    store_int,
    store_one,
    store_short,
    transpose,
)

FLOAT32, BFLOAT16, FLOAT16 = 0, 1, 2


@jit
def width(kind):
    """Bytes of an element."""
    return 4 if kind == FLOAT32 else 2


@routine
def positions(first, end, seq, seq_t, segment, tile, bounds):
    """The real positions from ``first`` to ``end``, and where among them segments start.

    Args:
        first: first position.
        end: position after the last.
        seq: address of the segments of this sequence, or 0.
        seq_t: bytes from one position's segment to the next one's.
        segment: of the last real position before; below 0 when there was none.
        tile: the int32 positions are written here.
        bounds: the int32 index of each run's first position is written here, then that of the end.

    Returns:
        How many are real, in how many runs, whether the first run starts a segment, and the segment
        of the last one.
    """
    if seq == 0:
        for t in range(first, end):
            store_int(tile + 4 * (t - first), np.int32(t))
        store_int(bounds, np.int32(0))
        store_int(bounds + 4, np.int32(end - first))
        return end - first, 1, False, segment
    count, runs, fresh = 0, 0, False
    for t in range(first, end):
        now = load_int(seq + t * seq_t)
        if now < 0:
            continue
        changed = segment >= 0 and now != segment
        if count == 0:
            fresh = changed
        if count == 0 or changed:
            store_int(bounds + 4 * runs, np.int32(count))
            runs += 1
        store_int(tile + 4 * count, np.int32(t))
        count += 1
        segment = now
    store_int(bounds + 4 * runs, np.int32(count))
    return count, runs, fresh, segment


@routine
def down_columns(first, count, height, width, tile):
    """The places in a ``(height, width)`` map of positions that are counted down its columns.

    Args:
        first: the first position.
        count: how many follow each other from there.
        height: rows of the map.
        width: columns of the map.
        tile: the int32 places, as they are counted along the rows, are written here.
    """
    h, w = first % height, first // height
    for i in range(count):
        store_int(tile + 4 * i, np.int32(h * width + w))
        h += 1
        if h == height:
            h, w = 0, w + 1


@jit
def _side_by_side(tile, first):
    """Whether 16 places from ``first`` on follow each other: padding or columns may break them.

    Places only ever rise in a row, and down columns of two places and more the second never
    follows the first.
    """
    place = load_int(tile + 4 * first)
    second, last = load_int(tile + 4 * first + 4), load_int(tile + 4 * (first + LANES - 1))
    return second - place == 1 and last - place == LANES - 1


@jit
def load_row(kind, address):
    """16 elements side by side."""
    if kind == FLOAT32:
        return load(address)
    if kind == BFLOAT16:
        return load_bfloat16(address)
    return load_float16(address)


@jit
def store_row(kind, address, row):
    """Write 16 elements side by side."""
    if kind == FLOAT32:
        store(address, row)
    elif kind == BFLOAT16:
        store_bfloat16(address, row)
    else:
        store_float16(address, row)


@routine
def load_tile(kind, base, step_d, step_t, tile, count, n_lanes, rows):
    """Bring positions ``tile[:count]`` of ``n_lanes`` channels into rows, other lanes zero."""
    if n_lanes == LANES and step_d == width(kind):
        for i in range(count):
            place = base + load_int(tile + 4 * i) * step_t
            store(rows + VECTOR_BYTES * i, load_row(kind, place))
            # The next block's, which no hardware foresees: a tile's rows lie far apart.
            prefetch(place + LANES * step_d)
        return
    done = 0
    if n_lanes == LANES and kind == FLOAT32 and (step_t == 4 or step_t == -4):
        while done + LANES <= count:
            if not _side_by_side(tile, done):
                break
            t = load_int(tile + 4 * done)
            target = rows + VECTOR_BYTES * done
            if step_t == 4:
                transpose(base + 4 * t, step_d, target, VECTOR_BYTES)
            else:
                end = target + VECTOR_BYTES * (LANES - 1)
                transpose(base - 4 * (t + LANES - 1), step_d, end, -VECTOR_BYTES)
            done += LANES
    if n_lanes < LANES:
        for i in range(count):
            store(rows + VECTOR_BYTES * i, splat(np.float32(0)))
    for i in range(done, count):
        source, row = base + load_int(tile + 4 * i) * step_t, rows + VECTOR_BYTES * i
        if kind == FLOAT32:
            for lane in range(n_lanes):
                store_one(row + 4 * lane, load_one(source + lane * step_d))
        else:
            # Side by side first, in the row itself: only vectors are converted.
            for lane in range(n_lanes):
                store_short(row + 2 * lane, load_short(source + lane * step_d))
            store(row, load_row(kind, row))


@routine
def store_tile(kind, rows, base, step_d, step_t, tile, count, n_lanes):
    """Put rows back to positions ``tile[:count]``; those of 16-bit elements are used up."""
    if n_lanes == LANES and step_d == width(kind):
        for i in range(count):
            t = load_int(tile + 4 * i)
            store_row(kind, base + t * step_t, load(rows + VECTOR_BYTES * i))
        return
    done = 0
    if n_lanes == LANES and kind == FLOAT32 and (step_t == 4 or step_t == -4):
        while done + LANES <= count:
            if not _side_by_side(tile, done):
                break
            t = load_int(tile + 4 * done)
            source = rows + VECTOR_BYTES * done
            if step_t == 4:
                transpose(source, VECTOR_BYTES, base + 4 * t, step_d)
            else:
                end = source + VECTOR_BYTES * (LANES - 1)
                transpose(end, -VECTOR_BYTES, base - 4 * (t + LANES - 1), step_d)
            done += LANES
    for i in range(done, count):
        target, row = base + load_int(tile + 4 * i) * step_t, rows + VECTOR_BYTES * i
        if kind == FLOAT32:
            for lane in range(n_lanes):
                store_one(target + lane * step_d, load_one(row + 4 * lane))
        else:
            store_row(kind, row, load(row))
            for lane in range(n_lanes):
                store_short(target + lane * step_d, load_short(row + 2 * lane))


@routine
def load_lanes(source, step_d, n_lanes, row, factor):
    """``factor`` times ``n_lanes`` float32, ``step_d`` apart, as a row; other lanes zero."""
    store(row, splat(np.float32(0)))
    for lane in range(n_lanes):
        store_one(row + 4 * lane, load_one(source + lane * step_d) * factor)


@routine
def store_lanes(row, target, step_d, n_lanes):
    """Write the first lanes of a row to places ``step_d`` apart."""
    for lane in range(n_lanes):
        store_one(target + lane * step_d, load_one(row + 4 * lane))
