"""The causal convolution on rows of channels, forward and backward.

A row is what all channels hold at one step; vectors go along it, 16 channels each. The window is
kept as the addresses of its rows, not as values: whether a tap reads an earlier input, the initial
state or the nothing before a segment, it only reads another row. So one kernel serves every case,
and reads its input in order.

Storage that isn't made of whole rows (time last, or a number of channels that 16 doesn't divide)
is gathered into rows of 16 channels first, line by line, and scattered back.

Addresses and strides are in bytes, float32 throughout.
"""

import numpy as np

from tristate.kernels.cpu.functions import silu, silu_slope
from tristate.kernels.cpu.vector import (
    LANES,
    VECTOR_BYTES,
    add,
    fma,
    jit,
    load,
    load_int,
    load_one,
    mul,
    store,
    store_one,
    transpose,
)


@jit
def forward_rows(
    x, out, x_step, out_step, n_bytes, n_steps, seq, states, last, weight, bias, zero, step,
    taps, activate, reverse,
):  # fmt: skip
    """One sequence, ``n_bytes`` of channels.

    ``states`` and ``last`` are three rows, newest last, ``weight`` four rows, all ``step`` apart;
    of fewer taps the last ones count. ``seq`` is 0 or the address of the segments, ``zero`` that of
    a row of zeros.
    """
    old, mid, new = states, states + step, states + 2 * step
    segment = np.int32(-1)
    for i in range(n_steps):
        t = n_steps - 1 - i if reverse else i
        row, target = x + t * x_step, out + t * out_step
        if seq != 0:
            now = load_int(seq + 4 * t)
            if now < 0:
                for d in range(0, n_bytes, VECTOR_BYTES):
                    store(target + d, load(zero + d))
                continue
            if segment >= 0 and now != segment:
                old, mid, new = zero, zero, zero
            segment = now
        if taps < 4:
            old = zero
        if taps < 3:
            mid = zero
        for d in range(0, n_bytes, VECTOR_BYTES):
            y = fma(load(row + d), load(weight + 3 * step + d), load(bias + d))
            y = fma(load(new + d), load(weight + 2 * step + d), y)
            y = fma(load(mid + d), load(weight + step + d), y)
            y = fma(load(old + d), load(weight + d), y)
            store(target + d, silu(y) if activate else y)
        old, mid, new = mid, new, row
    for d in range(0, n_bytes, VECTOR_BYTES):
        store(last + d, load(old + d))
        store(last + step + d, load(mid + d))
        store(last + 2 * step + d, load(new + d))


@jit
def backward_rows(
    grad, x, dx, grad_step, x_step, dx_step, n_bytes, n_steps, seq, states, dlast, dstates,
    weight, dweight, bias, zero, waste, step, taps, activate, reverse,
):  # fmt: skip
    """One sequence's gradients, ``n_bytes`` of channels.

    Writes ``dx``; adds to ``dstates`` (three rows) and ``dweight`` (one row a tap, then the bias).
    Every row of inputs has its row of gradients: what has none goes to ``waste``.
    """
    old, mid, new = states, states + step, states + 2 * step
    dold, dmid, dnew = dstates, dstates + step, dstates + 2 * step
    segment = np.int32(-1)
    for i in range(n_steps):
        t = n_steps - 1 - i if reverse else i
        row, drow, source = x + t * x_step, dx + t * dx_step, grad + t * grad_step
        if seq != 0:
            now = load_int(seq + 4 * t)
            if now < 0:
                for d in range(0, n_bytes, VECTOR_BYTES):
                    store(drow + d, load(zero + d))
                continue
            if segment >= 0 and now != segment:
                old, mid, new = zero, zero, zero
                dold, dmid, dnew = waste, waste, waste
            segment = now
        if taps < 4:
            old, dold = zero, waste
        if taps < 3:
            mid, dmid = zero, waste
        for d in range(0, n_bytes, VECTOR_BYTES):
            x0, x1, x2, x3 = load(row + d), load(new + d), load(mid + d), load(old + d)
            w0, w1 = load(weight + 3 * step + d), load(weight + 2 * step + d)
            w2, w3 = load(weight + step + d), load(weight + d)
            g = load(source + d)
            if activate:
                y = fma(x3, w3, fma(x2, w2, fma(x1, w1, fma(x0, w0, load(bias + d)))))
                g = mul(g, silu_slope(y))
            store(dweight + d, fma(g, x3, load(dweight + d)))
            store(dweight + step + d, fma(g, x2, load(dweight + step + d)))
            store(dweight + 2 * step + d, fma(g, x1, load(dweight + 2 * step + d)))
            store(dweight + 3 * step + d, fma(g, x0, load(dweight + 3 * step + d)))
            store(dweight + 4 * step + d, add(g, load(dweight + 4 * step + d)))
            store(dold + d, fma(g, w3, load(dold + d)))
            store(dmid + d, fma(g, w2, load(dmid + d)))
            store(dnew + d, fma(g, w1, load(dnew + d)))
            store(drow + d, mul(g, w0))
        old, mid, new = mid, new, row
        dold, dmid, dnew = dmid, dnew, drow
    for d in range(0, n_bytes, VECTOR_BYTES):
        store(dold + d, add(load(dlast + d), load(dold + d)))
        store(dmid + d, add(load(dlast + step + d), load(dmid + d)))
        store(dnew + d, add(load(dlast + 2 * step + d), load(dnew + d)))


@jit
def gather(source, d_step, t_step, n_channels, n_steps, rows):
    """``n_channels`` of any storage as rows of 16, the missing ones zero."""
    done = 0
    if t_step == 4 and n_channels == LANES:
        done = n_steps // LANES * LANES
        for t in range(0, done, LANES):
            transpose(source + 4 * t, d_step, rows + t * VECTOR_BYTES, VECTOR_BYTES)
    for t in range(done, n_steps):
        for lane in range(LANES):
            value = np.float32(0)
            if lane < n_channels:
                value = load_one(source + lane * d_step + t * t_step)
            store_one(rows + t * VECTOR_BYTES + 4 * lane, value)


@jit
def scatter(rows, target, d_step, t_step, n_channels, n_steps):
    """The first ``n_channels`` of rows of 16, back to any storage."""
    done = 0
    if t_step == 4 and n_channels == LANES:
        done = n_steps // LANES * LANES
        for t in range(0, done, LANES):
            transpose(rows + t * VECTOR_BYTES, VECTOR_BYTES, target + 4 * t, d_step)
    for t in range(done, n_steps):
        for lane in range(n_channels):
            value = load_one(rows + t * VECTOR_BYTES + 4 * lane)
            store_one(target + lane * d_step + t * t_step, value)


@jit
def part(task, n_tasks, batch, dim):
    """Sequences and channels of a task: whole sequences while there are enough of them."""
    if batch >= n_tasks:
        return batch * task // n_tasks, batch * (task + 1) // n_tasks, 0, dim
    blocks = (dim + LANES - 1) // LANES
    first, end = blocks * task // n_tasks, blocks * (task + 1) // n_tasks
    return 0, batch, LANES * first, min(dim, LANES * end)


@jit
def forward(
    task, n_tasks, x, xb, xd, xt, out, ob, od, ot, seq, states, last, parameters, scratch,
    batch, dim, n_steps, step, taps, activate, reverse,
):  # fmt: skip
    """``x`` to ``out`` by their strides in (B, D, L).

    ``parameters`` are four rows of taps, one of biases and one of zeros, ``step`` bytes each, like
    the three rows of ``states`` and ``last`` for each sequence.
    """
    weight, bias, zero = parameters, parameters + 4 * step, parameters + 5 * step
    rows = scratch + 2 * VECTOR_BYTES * n_steps * task
    outs = rows + VECTOR_BYTES * n_steps
    b_first, b_end, d_first, d_end = part(task, n_tasks, batch, dim)
    for b in range(b_first, b_end):
        line = seq + 4 * n_steps * b if seq != 0 else 0
        d = d_first
        while d < d_end:
            own = 3 * step * b + 4 * d
            source, target = x + b * xb + d * xd, out + b * ob + d * od
            n = (d_end - d) // LANES * LANES
            n_bytes = 4 * n
            in_place = xd == 4 and od == 4 and n > 0
            source_step, target_step = xt, ot
            if not in_place:
                n, n_bytes = min(LANES, d_end - d), VECTOR_BYTES
                gather(source, xd, xt, n, n_steps, rows)
                source, target, source_step, target_step = rows, outs, VECTOR_BYTES, VECTOR_BYTES
            forward_rows(
                source, target, source_step, target_step, n_bytes, n_steps, line, states + own,
                last + own, weight + 4 * d, bias + 4 * d, zero, step, taps, activate, reverse,
            )  # fmt: skip
            if not in_place:
                scatter(outs, out + b * ob + d * od, od, ot, n, n_steps)
            d += n


@jit
def backward(
    task, n_tasks, grad, gb, gd, gt, x, xb, xd, xt, dx, db, dd, dt, seq, states, dlast, dstates,
    parameters, sums, scratch, batch, dim, n_steps, step, taps, activate, reverse,
):  # fmt: skip
    """Gradients, arguments as in :func:`forward`.

    Each task adds to its own six rows of ``sums``: four of taps, one of biases, one to waste.
    """
    weight, bias, zero = parameters, parameters + 4 * step, parameters + 5 * step
    dweight = sums + 6 * step * task
    waste = dweight + 5 * step
    rows = scratch + 3 * VECTOR_BYTES * n_steps * task
    grads, drows = rows + VECTOR_BYTES * n_steps, rows + 2 * VECTOR_BYTES * n_steps
    b_first, b_end, d_first, d_end = part(task, n_tasks, batch, dim)
    for b in range(b_first, b_end):
        line = seq + 4 * n_steps * b if seq != 0 else 0
        d = d_first
        while d < d_end:
            own = 3 * step * b + 4 * d
            above, source, target = (
                grad + b * gb + d * gd,
                x + b * xb + d * xd,
                dx + b * db + d * dd,
            )
            n = (d_end - d) // LANES * LANES
            n_bytes = 4 * n
            in_place = gd == 4 and xd == 4 and dd == 4 and n > 0
            above_step, source_step, target_step = gt, xt, dt
            if not in_place:
                n, n_bytes = min(LANES, d_end - d), VECTOR_BYTES
                gather(above, gd, gt, n, n_steps, grads)
                gather(source, xd, xt, n, n_steps, rows)
                above, source, target = grads, rows, drows
                above_step = source_step = target_step = VECTOR_BYTES
            backward_rows(
                above, source, target, above_step, source_step, target_step, n_bytes, n_steps, line,
                states + own, dlast + own, dstates + own, weight + 4 * d, dweight + 4 * d,
                bias + 4 * d, zero, waste, step, taps, activate, reverse,
            )  # fmt: skip
            if not in_place:
                scatter(drows, dx + b * db + d * dd, dd, dt, n, n_steps)
            d += n
