"""The selective scan on a CPU: gradients within one tile of time and 16 channels.

The names are those of :mod:`tristate.kernels.selective.cpu_backward`, which walks over the tiles.
"""

import numpy as np

from tristate.kernels.cpu.functions import LN_2, exp2, sigmoid
from tristate.kernels.cpu.tiles import load_tile, store_tile
from tristate.kernels.cpu.vector import (
    VECTOR_BYTES,
    add,
    fma,
    jit,
    load,
    load_int,
    load_one,
    mul,
    routine,
    splat,
    store,
    store_one,
    sub,
    sum_lanes,
)
from tristate.kernels.selective.cpu_forward import ROWS, TILE


@jit
def _add_to(place, value):
    store(place, add(load(place), value))


@routine
def run_states(
    n_states, A, checkpoint, dstates, dt, x, y, g, ddt, dx, befores, decays, B, C, B_lanes, C_lanes,
    dA, dB_lanes, dC_lanes, dB_sums, dC_sums, constant, bounds, runs, fresh,
):  # fmt: skip
    """Run each state forwards and its gradient back; sums go where the last arguments say."""
    zero = splat(np.float32(0))
    for n in range(n_states):
        at = VECTOR_BYTES * n
        rate, h = load(A + at), load(checkpoint + at)
        dB, dC = dB_sums + n * ROWS, dC_sums + n * ROWS
        dA_sum, dB_sum, dC_sum = zero, zero, zero
        for run in range(runs):
            if fresh or run > 0:
                h = zero
            for i in range(load_int(bounds + 4 * run), load_int(bounds + 4 * run + 4)):
                row, place = VECTOR_BYTES * i, 4 * (n * TILE + i)
                weight_in, weight_out = splat(load_one(B + place)), splat(load_one(C + place))
                if constant:
                    weight_in = mul(weight_in, load(B_lanes + at))
                a = exp2(mul(load(dt + row), rate))
                store(befores + row, h)
                store(decays + row, a)
                h = fma(a, h, mul(load(x + row), weight_in))
                leaving = mul(load(g + row), h)
                if constant:
                    dC_sum = fma(leaving, weight_out, dC_sum)
                    leaving = mul(leaving, load(C_lanes + at))
                    weight_out = mul(weight_out, load(C_lanes + at))
                store(y + row, fma(weight_out, h, load(y + row)))
                _add_to(dC + row, leaving)
        dh = load(dstates + at)
        for run in range(runs - 1, -1, -1):
            for i in range(load_int(bounds + 4 * run + 4) - 1, load_int(bounds + 4 * run) - 1, -1):
                row, place = VECTOR_BYTES * i, 4 * (n * TILE + i)
                weight_in, weight_out = splat(load_one(B + place)), splat(load_one(C + place))
                entering = load(x + row)
                if constant:
                    weight_out = mul(weight_out, load(C_lanes + at))
                dh = fma(load(g + row), weight_out, dh)
                if constant:
                    dB_sum = fma(mul(dh, entering), weight_in, dB_sum)
                    weight_in = mul(weight_in, load(B_lanes + at))
                    entering = mul(entering, load(B_lanes + at))
                store(dx + row, fma(dh, weight_in, load(dx + row)))
                store(dB + row, fma(dh, entering, load(dB + row)))
                dh = mul(dh, load(decays + row))
                through = mul(dh, load(befores + row))
                store(ddt + row, fma(through, rate, load(ddt + row)))
                dA_sum = fma(through, load(dt + row), dA_sum)
            if fresh or run > 0:
                dh = zero
        store(dstates + at, dh)
        _add_to(dA + at, dA_sum)
        if constant:
            _add_to(dB_lanes + at, dB_sum)
            _add_to(dC_lanes + at, dC_sum)


@routine
def clear(rows, n_states):
    """Set the sums of all states to zero."""
    for row in range(rows, rows + n_states * ROWS, VECTOR_BYTES):
        store(row, splat(np.float32(0)))


@routine
def write_sums(rows, target, step_n, step_t, n_states, tile, count):
    """Write the sums across lanes, the gradient of one group's B or C at a tile's positions."""
    for n in range(n_states):
        for i in range(count):
            total = sum_lanes(load(rows + n * ROWS + VECTOR_BYTES * i))
            store_one(target + n * step_n + load_int(tile + 4 * i) * step_t, total)


@routine
def before_states(dout, z, u, g, y, ddt, dx, count, skip, gated):
    """The gradient ``g`` of ``y`` from that of the output; start the sums over states.

    Where the output is gated, that of the gate but for ``y`` takes the place of the output's.
    """
    zero, one = splat(np.float32(0)), splat(np.float32(1))
    for i in range(count):
        row = VECTOR_BYTES * i
        grad = load(dout + row)
        if gated:
            gate = load(z + row)
            s = sigmoid(gate)
            # The slope of silu, z s, is s (1 + z (1 - s)).
            store(dout + row, mul(grad, mul(s, fma(gate, sub(one, s), one))))
            grad = mul(grad, mul(gate, s))
        store(g + row, grad)
        store(y + row, mul(skip, load(u + row)))
        store(ddt + row, zero)
        store(dx + row, zero)


@routine
def after_states(
    delta, u, z, dout, dt, y, g, ddt, dx, count, skip, shift, with_softplus, gated, totals
):
    """Turn ``u``, ``delta`` and ``z`` into their gradients; add to those of D and the bias."""
    dD, dbias = load(totals), load(totals + VECTOR_BYTES)
    for i in range(count):
        row = VECTOR_BYTES * i
        value, grad, dx_row = load(u + row), load(g + row), load(dx + row)
        step = fma(load(ddt + row), splat(LN_2), mul(dx_row, value))
        if with_softplus:
            step = mul(step, sigmoid(add(load(delta + row), shift)))
        dD, dbias = fma(grad, value, dD), add(dbias, step)
        store(u + row, fma(dx_row, load(dt + row), mul(grad, skip)))
        store(delta + row, step)
        if gated:
            store(z + row, mul(load(dout + row), load(y + row)))
    store(totals, dD)
    store(totals + VECTOR_BYTES, dbias)


@routine
def put(rows, kind, place, step_d, step_t, tile, count, n_lanes, adds, before):
    """Store rows, or add them to what lies there, which is read into the rows ``before``."""
    if adds:
        load_tile(kind, place, step_d, step_t, tile, count, n_lanes, before)
        for i in range(count):
            _add_to(rows + VECTOR_BYTES * i, load(before + VECTOR_BYTES * i))
    store_tile(kind, rows, place, step_d, step_t, tile, count, n_lanes)
