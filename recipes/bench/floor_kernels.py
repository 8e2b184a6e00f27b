"""The arithmetic that a selective scan can't do without, on numbers that lie in the first cache.

Forward it is one exponential and three fused multiply-adds for each channel, step and state; with
the backward two exponentials and thirteen. Built of the same parts as the kernels themselves.
"""

import numpy as np

from tristate.kernels.cpu.functions import exp2
from tristate.kernels.cpu.vector import fma, jit, load, mul, splat, store

LINES = 64  # vectors of the buffer: 4 KiB


@jit
def forward(task, buffer, n_rounds):
    """One exponential, three fused multiply-adds and a store for each vector."""
    buffer += task * 64 * 2 * LINES
    h, s, t = splat(np.float32(0)), splat(np.float32(0.3)), splat(np.float32(0.2))
    for _ in range(n_rounds):
        for i in range(LINES):
            x = load(buffer + 64 * i)
            h = fma(exp2(x), h, mul(x, s))
            store(buffer + 64 * (LINES + i), fma(h, t, x))


@jit
def backward(task, buffer, n_rounds):
    """Two exponentials, thirteen fused multiply-adds and a store for each vector."""
    buffer += task * 64 * 2 * LINES
    h, g = splat(np.float32(0)), splat(np.float32(0))
    a, b, c = splat(np.float32(0.1)), splat(np.float32(0.2)), splat(np.float32(0.3))
    s, t = splat(np.float32(0.3)), splat(np.float32(0.2))
    for _ in range(n_rounds):
        for i in range(LINES):
            x = load(buffer + 64 * i)
            decay = exp2(x)
            h = fma(decay, h, mul(x, s))
            y = fma(h, t, x)
            again = exp2(mul(x, t))
            g = fma(again, g, mul(y, s))
            a = fma(g, h, fma(again, a, x))
            b = fma(g, x, fma(decay, b, y))
            c = fma(h, y, mul(c, t))
            store(buffer + 64 * (LINES + i), fma(a, t, fma(b, s, c)))
