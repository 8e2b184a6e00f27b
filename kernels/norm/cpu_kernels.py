"""The fused norms on contiguous rows, one read of memory forward and one backward.

A row is short enough to stay in the nearest cache while it is gone over more than once; what is
read again there costs little. Sums run in 16 lanes. Addresses, float32 throughout;
``spare`` is room for 16 numbers, by which the last ones of a row pass that fill no vector.
"""

import math

import numpy as np

from tristate.kernels.cpu.functions import silu, silu_slope
from tristate.kernels.cpu.vector import (
    LANES,
    VECTOR_BYTES,
    add,
    fma,
    jit,
    load,
    load_one,
    mul,
    splat,
    store,
    store_int,
    store_one,
    sub,
    sum_lanes,
)

ZERO = np.float32(0)


@jit
def read(row, i, n, spare, behind=ZERO):
    """Elements ``i`` to ``i + 16`` of a row of ``n``, and ``behind`` behind its end."""
    if i + LANES <= n:
        return load(row + 4 * i)
    for lane in range(LANES):
        store_one(spare + 4 * lane, load_one(row + 4 * (i + lane)) if i + lane < n else behind)
    return load(spare)


@jit
def write(row, i, n, spare, value):
    """The other way round; nothing is written behind the end."""
    if i + LANES <= n:
        store(row + 4 * i, value)
    else:
        store(spare, value)
        for lane in range(n - i):
            store_one(row + 4 * (i + lane), load_one(spare + 4 * lane))


@jit
def moments(row, n, rms, eps, spare):
    """Mean (0 for ``rms``) and one over the root of the variance plus ``eps``."""
    zero = splat(ZERO)
    one_over_n = np.float32(1) / np.float32(n)
    mean = ZERO
    if not rms:
        total = zero
        for i in range(0, n, LANES):
            total = add(total, read(row, i, n, spare))
        mean = sum_lanes(total) * one_over_n
    squares, centre = zero, splat(mean)
    for i in range(0, n, LANES):
        value = sub(read(row, i, n, spare, mean), centre)
        squares = fma(value, value, squares)
    variance = sum_lanes(squares) * one_over_n
    return mean, np.float32(1) / np.float32(math.sqrt(variance + eps))


@jit
def rows_of(task, n_tasks, n_rows):
    """First row of a task, and the first that isn't its."""
    return n_rows * task // n_tasks, n_rows * (task + 1) // n_tasks


@jit
def float_of(bits, spare):
    """The float32 of these bits; a kernel is given integers only."""
    store_int(spare, np.int32(bits))
    return load_one(spare)


@jit
def add_norm(
    task, n_tasks, x, residual, total, weight, bias, out, spares, n_rows, n, rms, eps_bits
):
    """Sum and norm of rows of ``n``; ``residual``, ``total``, ``bias`` may be 0, for none."""
    spare = spares + VECTOR_BYTES * task
    eps = float_of(eps_bits, spare)
    first, end = rows_of(task, n_tasks, n_rows)
    for r in range(first, end):
        start = 4 * n * r
        row = x + start
        if total != 0:
            for i in range(0, n, LANES):
                value = read(row, i, n, spare)
                if residual != 0:
                    value = add(value, read(residual + start, i, n, spare))
                write(total + start, i, n, spare, value)
            row = total + start
        mean, scale = moments(row, n, rms, eps, spare)
        centre, factor = splat(mean), splat(scale)
        for i in range(0, n, LANES):
            value = mul(mul(sub(read(row, i, n, spare), centre), factor), read(weight, i, n, spare))
            if bias != 0:
                value = add(value, read(bias, i, n, spare))
            write(out + start, i, n, spare, value)


@jit
def add_norm_backward(
    task, n_tasks, grad, grad_total, total, weight, dtotal, dweights, dbiases, spares, n_rows, n,
    rms, eps_bits,
):  # fmt: skip
    """Writes ``dtotal``; each task adds to its row of the weight's and the bias's gradients.

    ``grad_total`` may be 0, for none.
    """
    spare = spares + VECTOR_BYTES * task
    eps = float_of(eps_bits, spare)
    dweight, dbias = dweights + 4 * n * task, dbiases + 4 * n * task
    first, end = rows_of(task, n_tasks, n_rows)
    zero = splat(ZERO)
    one_over_n = np.float32(1) / np.float32(n)
    for r in range(first, end):
        start = 4 * n * r
        row, source = total + start, grad + start
        mean, scale = moments(row, n, rms, eps, spare)
        centre, factor = splat(mean), splat(scale)
        along, across = zero, zero
        for i in range(0, n, LANES):
            g = mul(read(source, i, n, spare), read(weight, i, n, spare))
            along = fma(g, sub(read(row, i, n, spare), centre), along)
            across = add(across, g)
        # What the norm takes away of the gradient: its part along the row, and its mean.
        slope = splat(-sum_lanes(along) * one_over_n * scale * scale)
        shift = zero if rms else splat(-sum_lanes(across) * one_over_n)
        for i in range(0, n, LANES):
            value, g = sub(read(row, i, n, spare), centre), read(source, i, n, spare)
            own = fma(mul(g, value), factor, read(dweight, i, n, spare))
            write(dweight, i, n, spare, own)
            write(dbias, i, n, spare, add(g, read(dbias, i, n, spare)))
            d = mul(factor, fma(value, slope, fma(g, read(weight, i, n, spare), shift)))
            if grad_total != 0:
                d = add(d, read(grad_total + start, i, n, spare))
            write(dtotal + start, i, n, spare, d)


@jit
def square_mean(x, z, n, gate_first, eps, spare):
    """One over the root of the mean square of ``x``, or of ``x * silu(z)``, plus ``eps``."""
    squares = splat(ZERO)
    for i in range(0, n, LANES):
        value = read(x, i, n, spare)
        if gate_first:
            value = mul(value, silu(read(z, i, n, spare)))
        squares = fma(value, value, squares)
    mean = sum_lanes(squares) / np.float32(n)
    return np.float32(1) / np.float32(math.sqrt(mean + eps))


@jit
def gated_rms_norm(
    task, n_tasks, x, z, weight, out, spares, n_rows, n, n_groups, gate_first, eps_bits
):
    """Norm and gate of rows of ``n``, one for each of ``n_groups``; ``z`` may be 0, for none."""
    spare = spares + VECTOR_BYTES * task
    eps = float_of(eps_bits, spare)
    first, end = rows_of(task, n_tasks, n_rows)
    for r in range(first, end):
        start, own = 4 * n * r, weight + 4 * n * (r % n_groups)
        scale = square_mean(x + start, z + start, n, gate_first != 0 and z != 0, eps, spare)
        factor = splat(scale)
        for i in range(0, n, LANES):
            value = mul(mul(read(x + start, i, n, spare), factor), read(own, i, n, spare))
            # The gate is a factor of each element on either side of the norm.
            if z != 0:
                value = mul(value, silu(read(z + start, i, n, spare)))
            write(out + start, i, n, spare, value)


@jit
def gated_rms_norm_backward(
    task, n_tasks, grad, x, z, weight, dx, dz, dweights, spares, n_rows, n, n_groups, gate_first,
    eps_bits,
):  # fmt: skip
    """Writes ``dx`` and ``dz``; each task adds to its row of the weight's gradients."""
    spare = spares + VECTOR_BYTES * task
    eps = float_of(eps_bits, spare)
    dweight = dweights + 4 * n * n_groups * task
    first, end = rows_of(task, n_tasks, n_rows)
    one_over_n = np.float32(1) / np.float32(n)
    for r in range(first, end):
        start, group = 4 * n * r, 4 * n * (r % n_groups)
        scale = square_mean(x + start, z + start, n, gate_first != 0 and z != 0, eps, spare)
        factor = splat(scale)
        along = splat(ZERO)
        for i in range(0, n, LANES):
            value = read(x + start, i, n, spare)
            g = mul(read(grad + start, i, n, spare), read(weight + group, i, n, spare))
            if z != 0:
                # Once in the product whichever factor it belongs to.
                g = mul(g, silu(read(z + start, i, n, spare)))
            along = fma(g, value, along)
        slope = splat(-sum_lanes(along) * one_over_n * scale * scale)
        for i in range(0, n, LANES):
            value, g = read(x + start, i, n, spare), read(grad + start, i, n, spare)
            w = read(weight + group, i, n, spare)
            own = mul(mul(g, value), factor)
            if z == 0:
                d = mul(factor, fma(value, slope, mul(g, w)))
            else:
                gate = read(z + start, i, n, spare)
                opened = silu(gate)
                own = mul(own, opened)
                if gate_first:
                    # Through the gated value, whose gradient goes on to both of its factors.
                    inner = mul(value, opened)
                    through = mul(factor, fma(inner, slope, mul(g, w)))
                    d = mul(through, opened)
                    write(dz + start, i, n, spare, mul(mul(through, value), silu_slope(gate)))
                else:
                    d = mul(factor, fma(value, slope, mul(mul(g, w), opened)))
                    outer = mul(mul(mul(g, w), value), factor)
                    write(dz + start, i, n, spare, mul(outer, silu_slope(gate)))
            write(dweight + group, i, n, spare, add(own, read(dweight + group, i, n, spare)))
            write(dx + start, i, n, spare, d)
