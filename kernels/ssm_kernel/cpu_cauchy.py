"""Sums of simple fractions over pairs of conjugate poles, forward and backward, on vectors of 16.

With ``a = 1 / (z - w)`` and ``b = 1 / (z - conj(w))`` a pair is ``v a + conj(v) b``, that is
``Re(v) s + Im(v) d`` with ``s = a + b`` and ``d = i (a - b)``. Both are made once for a node and a
pole, from the differences themselves: their product would cancel where a node is close to a pole.

Poles and coefficients come in planes of float32, ``width`` bytes each, poles in lanes: real parts
and then imaginary ones. Addresses and strides are in bytes.
"""

import numpy as np

from tristate.kernels.cpu.vector import (
    LANES,
    VECTOR_BYTES,
    add,
    div,
    fma,
    jit,
    load,
    load_one,
    mul,
    neg,
    splat,
    store,
    store_one,
    sub,
)

TILE = 16  # nodes whose fractions are kept while all rows go over them


@jit
def fractions(z_real, z_imaginary, w_real, w_imaginary):
    """``1 / (z - w)`` and ``1 / (z - conj(w))`` as four parts."""
    one = splat(np.float32(1))
    real = sub(z_real, w_real)
    near, far = sub(z_imaginary, w_imaginary), add(z_imaginary, w_imaginary)
    square = mul(real, real)
    a, b = div(one, fma(near, near, square)), div(one, fma(far, far, square))
    return mul(real, a), neg(mul(near, a)), mul(real, b), neg(mul(far, b))


@jit
def forward(
    task, n_tasks, nodes, node_bytes, poles, coefficients, out, scratch, scratch_bytes, n_rows, dim,
    n_states, width, length,
):  # fmt: skip
    """``out[r, d, l]``, complex, for nodes in two planes of ``node_bytes``.

    A task takes its share of the channels. Its scratch memory holds two vectors, and four for each
    pole: the parts of ``s`` and ``d``.
    """
    real, imaginary = scratch + scratch_bytes * task, scratch + scratch_bytes * task + VECTOR_BYTES
    table = imaginary + VECTOR_BYTES
    for d in range(dim * task // n_tasks, dim * (task + 1) // n_tasks):
        own = poles + 2 * width * d
        for start in range(0, length, LANES):
            z_real, z_imaginary = load(nodes + 4 * start), load(nodes + node_bytes + 4 * start)
            for n in range(n_states):
                a_real, a_imaginary, b_real, b_imaginary = fractions(
                    z_real, z_imaginary, splat(load_one(own + 4 * n)),
                    splat(load_one(own + width + 4 * n)),
                )  # fmt: skip
                row = table + 4 * VECTOR_BYTES * n
                store(row, add(a_real, b_real))
                store(row + VECTOR_BYTES, add(a_imaginary, b_imaginary))
                store(row + 2 * VECTOR_BYTES, sub(b_imaginary, a_imaginary))
                store(row + 3 * VECTOR_BYTES, sub(a_real, b_real))
            count = min(LANES, length - start)
            for r in range(n_rows):
                c = coefficients + 2 * width * (r * dim + d)
                y_real = y_imaginary = x_real = x_imaginary = splat(np.float32(0))
                row = table
                for n in range(n_states):
                    v_real = splat(load_one(c + 4 * n))
                    v_imaginary = splat(load_one(c + width + 4 * n))
                    y_real = fma(v_real, load(row), y_real)
                    y_imaginary = fma(v_real, load(row + VECTOR_BYTES), y_imaginary)
                    x_real = fma(v_imaginary, load(row + 2 * VECTOR_BYTES), x_real)
                    x_imaginary = fma(v_imaginary, load(row + 3 * VECTOR_BYTES), x_imaginary)
                    row += 4 * VECTOR_BYTES
                store(real, add(y_real, x_real))
                store(imaginary, add(y_imaginary, x_imaginary))
                target = out + 8 * ((r * dim + d) * length + start)
                for lane in range(count):
                    store_one(target + 8 * lane, load_one(real + 4 * lane))
                    store_one(target + 8 * lane + 4, load_one(imaginary + 4 * lane))


@jit
def backward(
    task, n_tasks, grad, nodes, node_bytes, poles, out, scratch, scratch_bytes, n_rows, dim, width,
    length,
):  # fmt: skip
    """What the gradients are made of, for ``grad[r, d, l]``, complex.

    ``out`` has four planes for each row and channel: the sums over ``l`` of ``Re(conj(g) s)``, of
    ``Re(conj(g) d)``, and the parts of that of ``g conj(a)**2 + conj(g) b**2``. A task takes its
    share of the channels; its scratch memory holds eight vectors for each node of a tile.
    """
    table = scratch + scratch_bytes * task
    zero = splat(np.float32(0))
    for d in range(dim * task // n_tasks, dim * (task + 1) // n_tasks):
        own = poles + 2 * width * d
        for r in range(n_rows):
            target = out + 4 * width * (r * dim + d)
            for n in range(0, 4 * width, VECTOR_BYTES):
                store(target + n, zero)
        for n in range(0, width, VECTOR_BYTES):
            w_real, w_imaginary = load(own + n), load(own + width + n)
            for start in range(0, length, TILE):
                count = min(TILE, length - start)
                for i in range(count):
                    node = nodes + 4 * (start + i)
                    fill_row(
                        table + 8 * VECTOR_BYTES * i, splat(load_one(node)),
                        splat(load_one(node + node_bytes)), w_real, w_imaginary,
                    )  # fmt: skip
                for r in range(n_rows):
                    target = out + 4 * width * (r * dim + d) + n
                    source = grad + 8 * ((r * dim + d) * length + start)
                    v_real = v_imaginary = t_real = t_imaginary = zero
                    row = table
                    for i in range(count):
                        g_real = splat(load_one(source + 8 * i))
                        g_imaginary = splat(load_one(source + 8 * i + 4))
                        v_real = fma(g_real, load(row), v_real)
                        v_imaginary = fma(g_real, load(row + 2 * VECTOR_BYTES), v_imaginary)
                        t_real = fma(g_real, load(row + 4 * VECTOR_BYTES), t_real)
                        t_imaginary = fma(g_real, load(row + 6 * VECTOR_BYTES), t_imaginary)
                        v_real = fma(g_imaginary, load(row + VECTOR_BYTES), v_real)
                        v_imaginary = fma(g_imaginary, load(row + 3 * VECTOR_BYTES), v_imaginary)
                        t_real = fma(g_imaginary, load(row + 5 * VECTOR_BYTES), t_real)
                        t_imaginary = fma(g_imaginary, load(row + 7 * VECTOR_BYTES), t_imaginary)
                        row += 8 * VECTOR_BYTES
                    store(target, add(load(target), v_real))
                    store(target + width, add(load(target + width), v_imaginary))
                    store(target + 2 * width, add(load(target + 2 * width), t_real))
                    store(target + 3 * width, add(load(target + 3 * width), t_imaginary))


@jit
def fill_row(row, z_real, z_imaginary, w_real, w_imaginary):
    """What a node's gradient is weighted by: its real part, then its imaginary part, four times."""
    a_real, a_imaginary, b_real, b_imaginary = fractions(z_real, z_imaginary, w_real, w_imaginary)
    store(row, add(a_real, b_real))
    store(row + VECTOR_BYTES, add(a_imaginary, b_imaginary))
    store(row + 2 * VECTOR_BYTES, sub(b_imaginary, a_imaginary))
    store(row + 3 * VECTOR_BYTES, sub(a_real, b_real))
    two = splat(np.float32(2))
    aa_real = sub(mul(a_real, a_real), mul(a_imaginary, a_imaginary))
    bb_real = sub(mul(b_real, b_real), mul(b_imaginary, b_imaginary))
    aa_imaginary = mul(two, mul(a_real, a_imaginary))
    bb_imaginary = mul(two, mul(b_real, b_imaginary))
    store(row + 4 * VECTOR_BYTES, add(aa_real, bb_real))
    store(row + 5 * VECTOR_BYTES, add(aa_imaginary, bb_imaginary))
    store(row + 6 * VECTOR_BYTES, sub(bb_imaginary, aa_imaginary))
    store(row + 7 * VECTOR_BYTES, sub(aa_real, bb_real))
