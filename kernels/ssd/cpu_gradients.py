"""What the gradients of Mamba-2's scan do with a tile's rows, before and after their scans."""

import numpy as np

from tristate.kernels.cpu.functions import sigmoid
from tristate.kernels.cpu.tiles import FLOAT32, load_tile, store_tile
from tristate.kernels.cpu.vector import (
    LANES,
    VECTOR_BYTES,
    add,
    fma,
    load,
    load_one,
    mul,
    routine,
    splat,
    store,
    store_one,
    sub,
)
from tristate.kernels.ssd.cpu_tiles import load_rows

# A decay below this lets nothing through that rounding elsewhere doesn't outweigh.
_NOTHING = np.float32(1e-8)


@routine
def copy(source, target, n_bytes):
    """Copy rows."""
    for row in range(0, n_bytes, VECTOR_BYTES):
        store(target + row, load(source + row))


@routine
def load_gradients(
    kind, gated, x, x_p, x_t, z, z_p, z_t, dout, dout_p, dout_t, tile, count, lanes, line, seq_t,
    x_rows, z_rows, dout_rows, g_rows,
):  # fmt: skip
    """A tile's x, and gradients of the output and of ``y``; zero at padding.

    With a gate ``z_rows`` holds what makes the gradient of z of ``y``: the output's by the gate's
    slope.
    """
    load_rows(kind, x, x_p, x_t, tile, count, lanes, x_rows, line, seq_t)
    load_rows(kind, dout, dout_p, dout_t, tile, count, lanes, dout_rows, line, seq_t)
    if gated:
        load_rows(kind, z, z_p, z_t, tile, count, lanes, z_rows, line, seq_t)
    for row in range(0, VECTOR_BYTES * count, VECTOR_BYTES):
        g = load(dout_rows + row)
        if gated:
            gate = load(z_rows + row)
            share = sigmoid(gate)
            value = mul(gate, share)
            slope = fma(value, sub(splat(np.float32(1)), share), share)
            store(z_rows + row, mul(g, slope))
            g = mul(g, value)
        store(g_rows + row, g)


@routine
def _scale(rows, factors, target, count):
    """Rows times a number each."""
    for i in range(count):
        row = VECTOR_BYTES * i
        store(target + row, mul(load(rows + row), splat(load_one(factors + 4 * i))))


@routine
def scale_back(x, g, weights, scales, entering, leaving, count):
    """What enters the states, ``X / P``, and what enters their gradients, ``P g``."""
    _scale(x, weights, entering, count)
    _scale(g, scales, leaving, count)


@routine
def add_to_weight(sums, others, steps, products, target, step_n, step_t, tile, count, lanes, room):
    """Add to a gradient of B or C: the sums, and ``step products`` times the other one's rows."""
    if lanes == LANES and step_n == 4:
        for i in range(count):
            row, place = VECTOR_BYTES * i, target + i * step_t
            own = splat(load_one(steps + 4 * i) * load_one(products + 4 * i))
            total = fma(own, load(others + row), load(sums + row))
            store(place, add(load(place), total))
        return
    load_tile(FLOAT32, target, step_n, step_t, tile, count, lanes, room)
    for i in range(count):
        row = VECTOR_BYTES * i
        own = splat(load_one(steps + 4 * i) * load_one(products + 4 * i))
        total = fma(own, load(others + row), load(sums + row))
        store(room + row, add(load(room + row), total))
    store_tile(FLOAT32, room, target, step_n, step_t, tile, count, lanes)


@routine
def finish_rows(x, g, sums, steps, inverses, products, skip, passed, whole, count):
    """The gradient of x, in place of ``sums``.

    Adds ``X . dX`` without the position's own part to the rows ``passed``, and ``x . dX`` to those
    of ``whole``; the sum of ``g x``.
    """
    total = splat(np.float32(0))
    for i in range(count):
        row, place = VECTOR_BYTES * i, 4 * i
        step, grad, value = splat(load_one(steps + place)), load(g + row), load(x + row)
        others = mul(load(sums + row), splat(load_one(inverses + place)))
        dX = fma(splat(load_one(products + place)), grad, others)
        store(passed + row, fma(mul(step, value), others, load(passed + row)))
        store(whole + row, fma(value, dX, load(whole + row)))
        total = fma(grad, value, total)
        store(sums + row, fma(step, dX, mul(skip, grad)))
    return total


@routine
def finish_steps(
    ended, started, whole, steps, decays, slopes, rate, passing, ddt, ddt_t, count, totals
):  # fmt: skip
    """The gradient of a tile's dt; adds those of A and the bias to ``totals``.

    ``passing`` is the gradient of the logarithm of the decay that follows the tile.
    """
    of_rate, of_shift = np.float32(0), np.float32(0)
    for i in range(count - 1, -1, -1):
        place = 4 * i
        passing = passing + (load_one(ended + place) - load_one(started + place))
        if load_one(decays + place) < _NOTHING:
            passing = np.float32(0)
        slope = load_one(slopes + place)
        step = (load_one(whole + place) + rate * passing) * slope
        of_rate += passing * load_one(steps + place)
        of_shift += step
        store_one(ddt + i * ddt_t, step)
    store_one(totals, load_one(totals) + of_rate)
    store_one(totals + 4, load_one(totals + 4) + of_shift)
