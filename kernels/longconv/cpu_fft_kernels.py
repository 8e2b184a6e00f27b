"""Convolutions of sequences by FFT, on vectors of 16 positions.

Two sequences are one of complex numbers, convolved with one kernel of real ones: no spectrum needs
to be taken apart. Numbers are stored as :mod:`tristate.kernels.longconv.cpu_fft_passes` says;
addresses are in bytes.
"""

import numpy as np

from tristate.kernels.cpu.vector import (
    LANES,
    VECTOR_BYTES,
    add,
    jit,
    load,
    load_one,
    mul,
    neg,
    routine,
    splat,
    store,
    store_one,
)
from tristate.kernels.longconv.cpu_fft_passes import (
    GROUP_BYTES,
    from_spectrum,
    times,
    to_spectrum,
)


@routine
def enter(x, target, length, size):
    """A sequence with zeros behind, or nothing but zeros where ``x`` is 0."""
    count = length if x != 0 else 0
    whole = count // LANES * LANES
    for t in range(0, 4 * whole, VECTOR_BYTES):
        store(target + t, load(x + t))
    for t in range(4 * whole, 4 * size, VECTOR_BYTES):
        store(target + t, splat(np.float32(0)))
    for t in range(whole, count):
        store_one(target + 4 * t, load_one(x + 4 * t))


@routine
def leave(source, out, length, scale):
    """The first numbers of a plane, times ``scale``."""
    whole = length // LANES * LANES
    for t in range(0, 4 * whole, VECTOR_BYTES):
        store(out + t, mul(load(source + t), splat(scale)))
    for t in range(whole, length):
        store_one(out + 4 * t, load_one(source + 4 * t) * scale)


@routine
def enter_taps(taps, target, n_taps, first, size):
    """Taps on a circle, number ``first`` at its beginning."""
    enter(taps + 4 * first, target, n_taps - first, size)
    for k in range(first):
        store_one(target + 4 * (size - first + k), load_one(taps + 4 * k))


@routine
def weigh(a, k, out, plane, size, conjugate, more):
    """``out = a k``, or ``a conj(k)``; added to what is there where there is ``more``."""
    for t in range(0, 4 * size, VECTOR_BYTES):
        b = load(k + plane + t)
        b = neg(b) if conjugate else b
        real, imaginary = times(load(a + t), load(a + plane + t), load(k + t), b)
        if more:
            real, imaginary = add(real, load(out + t)), add(imaginary, load(out + plane + t))
        store(out + t, real)
        store(out + plane + t, imaginary)


@jit
def forward(
    task, n_tasks, x, taps, out, factors, scratch, scratch_bytes, batch, dim, n_out, length, n_taps,
    first, size, odd,
):  # fmt: skip
    """``out (B, C, D, L)`` from ``x (B, D, L)`` and ``taps (C, D, K)``, dense.

    A task takes its share of the channels. Its scratch memory holds a tile, the sequences, their
    product with a kernel, and the kernels, two planes each.
    """
    plane = 4 * size + VECTOR_BYTES
    tile = scratch + scratch_bytes * task
    a = tile + 2 * GROUP_BYTES
    product, kernels = a + 2 * plane, a + 4 * plane
    scale = np.float32(1) / np.float32(size)
    for d in range(dim * task // n_tasks, dim * (task + 1) // n_tasks):
        for c in range(n_out):
            k = kernels + 2 * plane * c
            enter_taps(taps + 4 * n_taps * (c * dim + d), k, n_taps, first, size)
            enter(0, k + plane, 0, size)
            to_spectrum(k, k + plane, factors, size, odd, tile)
        for b in range(0, batch, 2):
            pair = b + 1 < batch
            enter(x + 4 * length * (b * dim + d), a, length, size)
            enter(x + 4 * length * ((b + 1) * dim + d) if pair else 0, a + plane, length, size)
            to_spectrum(a, a + plane, factors, size, odd, tile)
            for c in range(n_out):
                weigh(a, kernels + 2 * plane * c, product, plane, size, False, False)
                from_spectrum(product, product + plane, factors, size, odd, tile)
                leave(product, out + 4 * length * ((b * n_out + c) * dim + d), length, scale)
                if pair:
                    target = out + 4 * length * (((b + 1) * n_out + c) * dim + d)
                    leave(product + plane, target, length, scale)


@jit
def backward(
    task, n_tasks, grad, x, taps, dx, dtaps, factors, scratch, scratch_bytes, batch, dim, n_out,
    length, n_taps, first, size, odd,
):  # fmt: skip
    """Gradients, axes as in :func:`forward`; the scratch memory holds kernels' gradients too."""
    plane = 4 * size + VECTOR_BYTES
    tile = scratch + scratch_bytes * task
    a = tile + 2 * GROUP_BYTES
    g, product, kernels = a + 2 * plane, a + 4 * plane, a + 6 * plane
    sums = kernels + 2 * plane * n_out
    scale = np.float32(1) / np.float32(size)
    for d in range(dim * task // n_tasks, dim * (task + 1) // n_tasks):
        for c in range(n_out):
            k = kernels + 2 * plane * c
            enter_taps(taps + 4 * n_taps * (c * dim + d), k, n_taps, first, size)
            enter(0, k + plane, 0, size)
            to_spectrum(k, k + plane, factors, size, odd, tile)
        for b in range(0, batch, 2):
            pair = b + 1 < batch
            enter(x + 4 * length * (b * dim + d), a, length, size)
            enter(x + 4 * length * ((b + 1) * dim + d) if pair else 0, a + plane, length, size)
            to_spectrum(a, a + plane, factors, size, odd, tile)
            for c in range(n_out):
                above = grad + 4 * length * ((b * n_out + c) * dim + d)
                enter(above, g, length, size)
                above = grad + 4 * length * (((b + 1) * n_out + c) * dim + d)
                enter(above if pair else 0, g + plane, length, size)
                to_spectrum(g, g + plane, factors, size, odd, tile)
                weigh(g, kernels + 2 * plane * c, product, plane, size, True, c > 0)
                weigh(g, a, sums + 2 * plane * c, plane, size, True, b > 0)
            from_spectrum(product, product + plane, factors, size, odd, tile)
            leave(product, dx + 4 * length * (b * dim + d), length, scale)
            if pair:
                leave(product + plane, dx + 4 * length * ((b + 1) * dim + d), length, scale)
        for c in range(n_out):
            total, target = sums + 2 * plane * c, dtaps + 4 * n_taps * (c * dim + d)
            from_spectrum(total, total + plane, factors, size, odd, tile)
            leave(total, target + 4 * first, n_taps - first, scale)
            leave(total + 4 * (size - first), target, first, scale)
