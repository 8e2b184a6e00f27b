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
def filtered(x0, x1, x2, x3, weight, bias, step):
    """Four taps on the rows at the addresses ``x0`` (now) to ``x3``, and the bias."""
    y = fma(load(x0), load(weight + 3 * step), load(bias))
    y = fma(load(x1), load(weight + 2 * step), y)
    y = fma(load(x2), load(weight + step), y)
    return fma(load(x3), load(weight), y)


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
        if activate:
            for d in range(0, n_bytes, VECTOR_BYTES):
                y = filtered(row + d, new + d, mid + d, old + d, weight + d, bias + d, step)
                store(target + d, silu(y))
        else:
            for d in range(0, n_bytes, VECTOR_BYTES):
                y = filtered(row + d, new + d, mid + d, old + d, weight + d, bias + d, step)
                store(target + d, y)
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
def fill_rows(source, d_step, k_step, first, end, taps, n_rows, rows, step):
    """Values of channels ``first`` to ``end``, ``taps`` for each, as the last of ``n_rows`` rows.

    Zeros stand for what there isn't: other rows, lanes of no channel, everything where ``source``
    is 0.
    """
    missing = n_rows - taps
    for d in range(first, first + (end - first + LANES - 1) // LANES * LANES):
        for k in range(n_rows):
            value = np.float32(0)
            if source != 0 and k >= missing and d < end:
                value = load_one(source + d * d_step + (k - missing) * k_step)
            store_one(rows + k * step + 4 * d, value)


@jit
def spill_rows(rows, step, first, end, taps, n_rows, target):
    """The other way round, to ``(channels, taps)`` side by side."""
    for d in range(first, end):
        for k in range(taps):
            value = load_one(rows + (n_rows - taps + k) * step + 4 * d)
            store_one(target + 4 * (d * taps + k), value)


@jit
def forward(
    task, n_tasks, x, xb, xd, xt, out, ob, od, ot, seq, states, sb, sd, sk, last,
    weight, wd, wk, bias, scratch, scratch_bytes, batch, dim, n_steps, step, taps, activate,
    reverse,
):  # fmt: skip
    """``x`` to ``out`` and ``states`` to ``last``, by strides; the last is (B, D, taps - 1), dense.

    Each task has ``scratch_bytes`` for rows of ``step`` bytes: six of parameters, three of states,
    three of last states; and for two lines where channels are gathered.
    """
    rows = scratch + scratch_bytes * task
    biases, zero, window, end_window = (
        rows + 4 * step, rows + 5 * step, rows + 6 * step, rows + 9 * step
    )  # fmt: skip
    line = rows + 12 * step
    out_line = line + VECTOR_BYTES * n_steps
    b_first, b_end, d_first, d_end = part(task, n_tasks, batch, dim)
    fill_rows(weight, wd, wk, d_first, d_end, taps, 4, rows, step)
    fill_rows(bias, 4, 4, d_first, d_end, 1, 1, biases, step)
    fill_rows(0, 0, 0, 0, dim, 1, 1, zero, step)
    for b in range(b_first, b_end):
        segments = seq + 4 * n_steps * b if seq != 0 else 0
        before = states + sb * b if states != 0 else 0
        fill_rows(before, sd, sk, d_first, d_end, taps - 1, 3, window, step)
        d = d_first
        while d < d_end:
            source, target = x + b * xb + d * xd, out + b * ob + d * od
            n = (d_end - d) // LANES * LANES
            n_bytes = 4 * n
            in_place = xd == 4 and od == 4 and n > 0
            source_step, target_step = xt, ot
            if not in_place:
                n, n_bytes = min(LANES, d_end - d), VECTOR_BYTES
                gather(source, xd, xt, n, n_steps, line)
                source, target = line, out_line
                source_step = target_step = VECTOR_BYTES
            forward_rows(
                source, target, source_step, target_step, n_bytes, n_steps, segments,
                window + 4 * d, end_window + 4 * d, rows + 4 * d, biases + 4 * d, zero, step,
                taps, activate, reverse,
            )  # fmt: skip
            if not in_place:
                scatter(out_line, out + b * ob + d * od, od, ot, n, n_steps)
            d += n
        after = last + 4 * (taps - 1) * dim * b
        spill_rows(end_window, step, d_first, d_end, taps - 1, 3, after)


@jit
def backward(
    task, n_tasks, grad, gb, gd, gt, dlast, lb, ld, lk, x, xb, xd, xt, dx, db, dd, dt, seq,
    states, sb, sd, sk, dstates, weight, wd, wk, bias, dweight, dbias, scratch, scratch_bytes,
    batch, dim, n_steps, step, taps, activate, reverse,
):  # fmt: skip
    """Gradients, arguments as in :func:`forward`; ``dlast`` is that of the last state.

    Each task writes ``dweight (D, taps)`` and ``dbias (D,)`` of its own, over all of ``D``. Its
    rows are six of parameters, three each of states, their gradients and the last state's, five of
    the parameters' gradients and one to waste; its lines are three.
    """
    rows = scratch + scratch_bytes * task
    biases, zero, window, dwindow, end_dwindow, sums = (
        rows + 4 * step, rows + 5 * step, rows + 6 * step, rows + 9 * step, rows + 12 * step,
        rows + 15 * step,
    )  # fmt: skip
    waste = rows + 20 * step
    line = rows + 21 * step
    grad_line, dx_line = line + VECTOR_BYTES * n_steps, line + 2 * VECTOR_BYTES * n_steps
    b_first, b_end, d_first, d_end = part(task, n_tasks, batch, dim)
    fill_rows(weight, wd, wk, d_first, d_end, taps, 4, rows, step)
    fill_rows(bias, 4, 4, d_first, d_end, 1, 1, biases, step)
    fill_rows(0, 0, 0, 0, dim, 1, 1, zero, step)
    fill_rows(0, 0, 0, 0, dim, 6, 6, sums, step)
    for b in range(b_first, b_end):
        segments = seq + 4 * n_steps * b if seq != 0 else 0
        before = states + sb * b if states != 0 else 0
        fill_rows(before, sd, sk, d_first, d_end, taps - 1, 3, window, step)
        fill_rows(dlast + lb * b, ld, lk, d_first, d_end, taps - 1, 3, end_dwindow, step)
        fill_rows(0, 0, 0, d_first, d_end, 3, 3, dwindow, step)
        d = d_first
        while d < d_end:
            above, source = grad + b * gb + d * gd, x + b * xb + d * xd
            target = dx + b * db + d * dd
            n = (d_end - d) // LANES * LANES
            n_bytes = 4 * n
            in_place = gd == 4 and xd == 4 and dd == 4 and n > 0
            above_step, source_step, target_step = gt, xt, dt
            if not in_place:
                n, n_bytes = min(LANES, d_end - d), VECTOR_BYTES
                gather(above, gd, gt, n, n_steps, grad_line)
                gather(source, xd, xt, n, n_steps, line)
                above, source, target = grad_line, line, dx_line
                above_step = source_step = target_step = VECTOR_BYTES
            backward_rows(
                above, source, target, above_step, source_step, target_step, n_bytes, n_steps,
                segments, window + 4 * d, end_dwindow + 4 * d, dwindow + 4 * d, rows + 4 * d,
                sums + 4 * d, biases + 4 * d, zero, waste, step, taps, activate, reverse,
            )  # fmt: skip
            if not in_place:
                scatter(dx_line, dx + b * db + d * dd, dd, dt, n, n_steps)
            d += n
        below = dstates + 4 * (taps - 1) * dim * b
        spill_rows(dwindow, step, d_first, d_end, taps - 1, 3, below)
    spill_rows(sums, step, 0, dim, taps, 4, dweight + 4 * taps * dim * task)
    spill_rows(sums + 4 * step, step, 0, dim, 1, 1, dbias + 4 * dim * task)
