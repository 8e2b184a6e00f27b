"""Sums of complex powers over states, and over positions, on vectors of 16.

Position ``l`` is ``a * STEPS + j``: ``exp(z l)`` is a factor of the block ``a`` times one of
``STEPS`` powers, which all blocks share. So no power is made by repeated multiplication, few are
made at all, and what is left is a small matrix product for each channel, with two multiply-adds for
each position and state.

Parameters come in planes of float32, ``width`` bytes each, states in lanes: for each channel the
rate, the turns and their rest for one step, turns and rest for ``STEPS`` steps; for each row and
channel the real and the imaginary part of a coefficient. Addresses and strides are in bytes.
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
    mul,
    neg,
    routine,
    splat,
    store,
    store_one,
    sub,
)
from tristate.kernels.ssm_kernel.cpu_powers import power

STEPS = 64
ROWS = 4  # blocks whose sums are made together
STEP_BYTES = 4 * STEPS
N_PLANES = 5


@routine
def fill_factors(planes, width, block, target):
    """``exp(z STEPS block)`` of all states: a plane of real parts and one of imaginary parts."""
    k = splat(np.float32(block))
    for n in range(0, width, VECTOR_BYTES):
        rate = mul(load(planes + n), splat(np.float32(STEPS)))
        real, imaginary = power(rate, load(planes + 3 * width + n), load(planes + 4 * width + n), k)
        store(target + n, real)
        store(target + width + n, imaginary)


@routine
def store_part(target, value, count, spare):
    """The first ``count`` of 16 lanes."""
    if count >= LANES:
        store(target, value)
    elif count > 0:
        store(spare, value)
        for lane in range(count):
            store_one(target + 4 * lane, load_one(spare + 4 * lane))


@jit
def evaluate(
    task, n_tasks, planes, coefficients, out, scratch, scratch_bytes, n_rows, dim, n_states, width,
    length,
):  # fmt: skip
    """``out[r, d, l] = Re sum_n c[r, d, n] exp(z[d, n] l)``.

    A task takes its share of the channels. Its scratch memory holds a vector to waste, the shared
    powers of each state, the factors of ``ROWS`` blocks and the products with the coefficients.
    """
    spare = scratch + scratch_bytes * task
    table = spare + VECTOR_BYTES
    factors = table + 2 * n_states * STEP_BYTES
    left = factors + 2 * width * ROWS
    # The positions 0 to 15.
    for lane in range(LANES):
        store_one(spare + 4 * lane, np.float32(lane))
    first = load(spare)
    for d in range(dim * task // n_tasks, dim * (task + 1) // n_tasks):
        own = planes + N_PLANES * width * d
        for n in range(n_states):
            rate = splat(load_one(own + 4 * n))
            turns = splat(load_one(own + width + 4 * n))
            rest = splat(load_one(own + 2 * width + 4 * n))
            for j in range(0, STEPS, LANES):
                real, imaginary = power(rate, turns, rest, add(first, splat(np.float32(j))))
                store(table + n * STEP_BYTES + 4 * j, real)
                store(table + (n_states + n) * STEP_BYTES + 4 * j, imaginary)
        for start in range(0, length, ROWS * STEPS):
            for i in range(ROWS):
                fill_factors(own, width, start // STEPS + i, factors + 2 * width * i)
            for r in range(n_rows):
                c = coefficients + 2 * width * (r * dim + d)
                for i in range(ROWS):
                    factor, target = factors + 2 * width * i, left + 2 * width * i
                    for n in range(0, width, VECTOR_BYTES):
                        c_real, c_imaginary = load(c + n), load(c + width + n)
                        f_real, f_imaginary = load(factor + n), load(factor + width + n)
                        real = fma(c_real, f_real, neg(mul(c_imaginary, f_imaginary)))
                        imaginary = fma(c_real, f_imaginary, mul(c_imaginary, f_real))
                        store(target + n, real)
                        store(target + width + n, neg(imaginary))
                multiply(
                    left, width, table, n_states, out + 4 * ((r * dim + d) * length + start),
                    length - start, spare,
                )  # fmt: skip


@routine
def multiply(left, width, table, n_states, out, remaining, spare):
    """``ROWS`` blocks of positions, one behind the other, of which ``remaining`` exist."""
    for j in range(0, min(STEPS, remaining), LANES):
        y0 = y1 = y2 = y3 = splat(np.float32(0))
        real, imaginary = table + 4 * j, table + n_states * STEP_BYTES + 4 * j
        l0, l1, l2, l3 = left, left + 2 * width, left + 4 * width, left + 6 * width
        for _ in range(n_states):
            x = load(real)
            y0 = fma(splat(load_one(l0)), x, y0)
            y1 = fma(splat(load_one(l1)), x, y1)
            y2 = fma(splat(load_one(l2)), x, y2)
            y3 = fma(splat(load_one(l3)), x, y3)
            x = load(imaginary)
            y0 = fma(splat(load_one(l0 + width)), x, y0)
            y1 = fma(splat(load_one(l1 + width)), x, y1)
            y2 = fma(splat(load_one(l2 + width)), x, y2)
            y3 = fma(splat(load_one(l3 + width)), x, y3)
            real, imaginary = real + STEP_BYTES, imaginary + STEP_BYTES
            l0, l1, l2, l3 = l0 + 4, l1 + 4, l2 + 4, l3 + 4
        target, count = out + 4 * j, remaining - j
        store_part(target, y0, count, spare)
        store_part(target + STEP_BYTES, y1, count - STEPS, spare)
        store_part(target + 2 * STEP_BYTES, y2, count - 2 * STEPS, spare)
        store_part(target + 3 * STEP_BYTES, y3, count - 3 * STEPS, spare)


@jit
def moments(
    task, n_tasks, planes, x, xr, xd, xl, out, scratch, scratch_bytes, n_rows, dim, width, length
):
    """``S0[r, d, n] = sum_l x[r, d, l] exp(z[d, n] l)``, and ``S1`` with ``l`` times each term.

    ``out`` has four planes for each row and channel: the parts of ``S0``, then of ``S1``. A task
    takes its share of the channels; its scratch memory holds the shared powers, two planes a
    position, and the factors of one block.
    """
    table = scratch + scratch_bytes * task
    factors = table + 2 * width * STEPS
    zero = splat(np.float32(0))
    for d in range(dim * task // n_tasks, dim * (task + 1) // n_tasks):
        own = planes + N_PLANES * width * d
        for j in range(STEPS):
            k = splat(np.float32(j))
            for n in range(0, width, VECTOR_BYTES):
                real, imaginary = power(
                    load(own + n), load(own + width + n), load(own + 2 * width + n), k
                )
                store(table + 2 * width * j + n, real)
                store(table + 2 * width * j + width + n, imaginary)
        for r in range(n_rows):
            target = out + 4 * width * (r * dim + d)
            for n in range(0, 4 * width, VECTOR_BYTES):
                store(target + n, zero)
        for start in range(0, length, STEPS):
            fill_factors(own, width, start // STEPS, factors)
            before = splat(np.float32(start))
            for r in range(n_rows):
                target = out + 4 * width * (r * dim + d)
                source = x + r * xr + d * xd + start * xl
                count = min(STEPS, length - start)
                for n in range(0, width, VECTOR_BYTES):
                    p_real = p_imaginary = q_real = q_imaginary = zero
                    row = table + n
                    for j in range(count):
                        value = load_one(source + j * xl)
                        weight, weighted = splat(value), splat(value * np.float32(j))
                        real, imaginary = load(row), load(row + width)
                        p_real = fma(weight, real, p_real)
                        p_imaginary = fma(weight, imaginary, p_imaginary)
                        q_real = fma(weighted, real, q_real)
                        q_imaginary = fma(weighted, imaginary, q_imaginary)
                        row += 2 * width
                    q_real = fma(before, p_real, q_real)
                    q_imaginary = fma(before, p_imaginary, q_imaginary)
                    f_real, f_imaginary = load(factors + n), load(factors + width + n)
                    place = target + n
                    add_product(place, width, f_real, f_imaginary, p_real, p_imaginary)
                    add_product(place + 2 * width, width, f_real, f_imaginary, q_real, q_imaginary)


@jit
def add_product(target, width, a_real, a_imaginary, b_real, b_imaginary):
    """Add ``a * b`` to a plane of real parts and the next one of imaginary parts."""
    real = sub(mul(a_real, b_real), mul(a_imaginary, b_imaginary))
    imaginary = fma(a_real, b_imaginary, mul(a_imaginary, b_real))
    store(target, add(load(target), real))
    store(target + width, add(load(target + width), imaginary))
