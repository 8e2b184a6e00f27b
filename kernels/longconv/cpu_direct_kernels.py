"""Convolutions summed directly, on vectors of 16 positions.

One routine does it all: ``out[i] += sum_j w[j] row[i + j]``. With the taps as ``w``, the last one
first, it is the convolution of a padded row; with the taps in order, the gradient of its input;
with a row of the output's gradient as ``w``, the gradient of the taps. Grids of two and three axes
are rows, each of which meets the rows of taps that reach it.

Addresses are in bytes, float32 throughout. A padded row has room for as many positions and taps as
there are, each rounded up to 16.
"""

import numpy as np

from tristate.kernels.cpu.vector import (
    LANES,
    VECTOR_BYTES,
    add,
    fma,
    jit,
    load,
    load_one,
    routine,
    splat,
    store,
    store_one,
)

# Terms that are summed before they are added to the rest: a long sum would lose bits.
CHUNK = 256


@jit
def rounded(n):
    """``n``, or the next multiple of 16."""
    return (n + LANES - 1) // LANES * LANES


@routine
def slide(weights, n_weights, row, before, length, out, n_out):
    """``out[i] += sum_j w[j] row[i + j]`` for ``i`` up to ``n_out``, a multiple of 16.

    Of the row, ``length`` numbers behind ``before`` zeros count; more zeros follow.
    """
    for first in range(0, n_weights, CHUNK):
        end = min(n_weights, first + CHUNK)
        i = 0
        while i + 4 * LANES <= n_out:
            y0 = y1 = y2 = y3 = splat(np.float32(0))
            for j in range(max(first, before - i - 4 * LANES + 1), min(end, before + length - i)):
                w, place = splat(load_one(weights + 4 * j)), row + 4 * (i + j)
                y0 = fma(w, load(place), y0)
                y1 = fma(w, load(place + VECTOR_BYTES), y1)
                y2 = fma(w, load(place + 2 * VECTOR_BYTES), y2)
                y3 = fma(w, load(place + 3 * VECTOR_BYTES), y3)
            target = out + 4 * i
            store(target, add(load(target), y0))
            store(target + VECTOR_BYTES, add(load(target + VECTOR_BYTES), y1))
            store(target + 2 * VECTOR_BYTES, add(load(target + 2 * VECTOR_BYTES), y2))
            store(target + 3 * VECTOR_BYTES, add(load(target + 3 * VECTOR_BYTES), y3))
            i += 4 * LANES
        while i < n_out:
            y0 = splat(np.float32(0))
            for j in range(max(first, before - i - LANES + 1), min(end, before + length - i)):
                y0 = fma(splat(load_one(weights + 4 * j)), load(row + 4 * (i + j)), y0)
            store(out + 4 * i, add(load(out + 4 * i), y0))
            i += LANES


@routine
def fill(target, value, count):
    """So many float32 of one value."""
    whole = count // LANES * LANES
    for i in range(0, whole, LANES):
        store(target + 4 * i, splat(value))
    for i in range(whole, count):
        store_one(target + 4 * i, value)


@routine
def copy(source, target, count):
    """So many float32."""
    whole = count // LANES * LANES
    for i in range(0, whole, LANES):
        store(target + 4 * i, load(source + 4 * i))
    for i in range(whole, count):
        store_one(target + 4 * i, load_one(source + 4 * i))


@routine
def add_to(source, target, count):
    """Add so many float32 to others."""
    whole = count // LANES * LANES
    for i in range(0, whole, LANES):
        store(target + 4 * i, add(load(target + 4 * i), load(source + 4 * i)))
    for i in range(whole, count):
        store_one(target + 4 * i, load_one(target + 4 * i) + load_one(source + 4 * i))


@routine
def pad_rows(source, target, n_rows, length, before, line):
    """Rows with ``before`` zeros in front, and zeros behind, up to ``line`` elements each."""
    for row in range(n_rows):
        to = target + 4 * line * row
        fill(to, np.float32(0), before)
        copy(source + 4 * length * row, to + 4 * before, length)
        fill(to + 4 * (before + length), np.float32(0), line - before - length)


@routine
def order_taps(taps, target, n_rows, count, step, backwards):
    """Rows of taps, ``step`` elements apart, in order or the last one first."""
    for row in range(n_rows):
        for k in range(count):
            at = count - 1 - k if backwards else k
            value = load_one(taps + 4 * (row * count + at))
            store_one(target + 4 * (row * step + k), value)


@routine
def convolve(
    rows, line, before, weights, step, out, spare, p_n, q_n, length, p_taps, q_taps, taps, p_first,
    q_first, sign,
):  # fmt: skip
    """Every row of ``out`` from rows behind ``before`` zeros.

    ``sign`` is -1 where taps weigh what is ahead.
    """
    for p in range(p_n):
        for q in range(q_n):
            fill(spare, np.float32(0), rounded(length))
            for i in range(p_taps):
                p_from = p - sign * (i - p_first)
                if p_from < 0 or p_from >= p_n:
                    continue
                for j in range(q_taps):
                    q_from = q - sign * (j - q_first)
                    if q_from < 0 or q_from >= q_n:
                        continue
                    slide(
                        weights + 4 * step * (i * q_taps + j), taps,
                        rows + 4 * line * (p_from * q_n + q_from), before, length, spare,
                        rounded(length),
                    )  # fmt: skip
            add_to(spare, out + 4 * length * (p * q_n + q), length)


@jit
def forward(
    task, n_tasks, x, taps, out, scratch, scratch_bytes, batch, dim, n_out, p_n, q_n, length,
    p_taps, q_taps, n_taps, p_first, q_first, first,
):  # fmt: skip
    """``out (B, C, D, P, Q, L)`` from ``x (B, D, P, Q, L)`` and ``taps (C, D, KP, KQ, K)``, dense.

    A task takes its share of the channels. Its scratch memory holds a line to sum in, the taps, and
    padded rows.
    """
    step, line = rounded(n_taps), rounded(length) + rounded(n_taps)
    spare = scratch + scratch_bytes * task
    weights = spare + 4 * line
    rows = weights + 4 * step * p_taps * q_taps
    size, n_kernel = p_n * q_n * length, p_taps * q_taps * n_taps
    for d in range(dim * task // n_tasks, dim * (task + 1) // n_tasks):
        for c in range(n_out):
            own = taps + 4 * n_kernel * (c * dim + d)
            order_taps(own, weights, p_taps * q_taps, n_taps, step, True)
            for b in range(batch):
                source = x + 4 * size * (b * dim + d)
                pad_rows(source, rows, p_n * q_n, length, n_taps - 1 - first, line)
                target = out + 4 * size * ((b * n_out + c) * dim + d)
                fill(target, np.float32(0), size)
                convolve(
                    rows, line, n_taps - 1 - first, weights, step, target, spare, p_n, q_n, length,
                    p_taps, q_taps, n_taps, p_first, q_first, 1,
                )  # fmt: skip


@jit
def backward(
    task, n_tasks, grad, x, taps, dx, dtaps, scratch, scratch_bytes, batch, dim, n_out, p_n, q_n,
    length, p_taps, q_taps, n_taps, p_first, q_first, first,
):  # fmt: skip
    """Gradients, axes as in :func:`forward`; the scratch memory holds padded rows twice."""
    step, line = rounded(n_taps), rounded(length) + rounded(n_taps)
    spare = scratch + scratch_bytes * task
    weights = spare + 4 * line
    rows = weights + 4 * step * p_taps * q_taps
    grad_rows = rows + 4 * line * p_n * q_n
    size, n_kernel = p_n * q_n * length, p_taps * q_taps * n_taps
    for d in range(dim * task // n_tasks, dim * (task + 1) // n_tasks):
        for b in range(batch):
            fill(dx + 4 * size * (b * dim + d), np.float32(0), size)
        for c in range(n_out):
            own = 4 * n_kernel * (c * dim + d)
            order_taps(taps + own, weights, p_taps * q_taps, n_taps, step, False)
            fill(dtaps + own, np.float32(0), n_kernel)
            for b in range(batch):
                above = grad + 4 * size * ((b * n_out + c) * dim + d)
                source, target = 4 * size * (b * dim + d) + x, 4 * size * (b * dim + d) + dx
                pad_rows(above, grad_rows, p_n * q_n, length, first, line)
                convolve(
                    grad_rows, line, first, weights, step, target, spare, p_n, q_n, length, p_taps,
                    q_taps, n_taps, p_first, q_first, -1,
                )  # fmt: skip
                pad_rows(source, rows, p_n * q_n, length, n_taps - 1 - first, line)
                correlate(
                    above, rows, line, n_taps - 1 - first, dtaps + own, spare, p_n, q_n, length,
                    p_taps, q_taps, n_taps, p_first, q_first,
                )  # fmt: skip


@routine
def correlate(
    grad, rows, line, before, dtaps, spare, p_n, q_n, length, p_taps, q_taps, n_taps, p_first,
    q_first,
):  # fmt: skip
    """Add what one channel of one sequence gives to the taps' gradient."""
    for i in range(p_taps):
        for j in range(q_taps):
            fill(spare, np.float32(0), rounded(n_taps))
            for p in range(max(0, i - p_first), min(p_n, p_n + i - p_first)):
                for q in range(max(0, j - q_first), min(q_n, q_n + j - q_first)):
                    above = grad + 4 * length * (p * q_n + q)
                    row = (p - i + p_first) * q_n + q - j + q_first
                    source = rows + 4 * line * row
                    slide(above, length, source, before, length, spare, rounded(n_taps))
            target = dtaps + 4 * n_taps * (i * q_taps + j)
            for k in range(n_taps):
                value = load_one(spare + 4 * (n_taps - 1 - k))
                store_one(target + 4 * k, load_one(target + 4 * k) + value)
