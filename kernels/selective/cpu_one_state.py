"""The selective scan on a CPU where a channel has one state and channels lie side by side.

So it is in VMamba. A step is little work for a state, and would be lost among copies: here rows of
channels are read and written where they lie, a position after the other, and nothing is kept
between but the states. Tiles of time are short, and with a slab of channels small enough that what
one loop leaves for the next stays in the first cache: a loop over both halves of the work would
have more in flight than the processor can look ahead. For gradients a tile is run forwards from its
checkpoint, then back.

The arguments are those of :mod:`tristate.kernels.selective.cpu_forward` and ``cpu_backward``, with
``N = 1``, weights that vary in time, no segments, and groups of whole blocks of 16 channels.
"""

import numpy as np

from tristate.kernels.cpu.functions import (
    LN_2,
    LOG2_E,
    exp2,
    sigmoid,
    silu,
    softplus,
    softplus_and_slope,
)
from tristate.kernels.cpu.tiles import down_columns, load_row, store_row, width
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
    prefetch,
    routine,
    splat,
    store,
    store_int,
    sub,
)
from tristate.kernels.selective.cpu_backward_tile import write_sums
from tristate.kernels.selective.cpu_forward import share
from tristate.kernels.selective.cpu_rows import SLAB, SLAB_BACK
from tristate.kernels.selective.ops import SHORT_TILE as TILE

# Room for the places of a tile's positions and of those that will soon be read, and for sums.
SOON = 4
PLACES, ROWS = 2 * VECTOR_BYTES, TILE * VECTOR_BYTES
# What is kept of a block of channels, in vectors: parameters, the state and its gradient, sums.
RATE, SKIP, SHIFT, STATE, GRADIENT = 0, 64, 128, 192, 256
RATE_SUM, SKIP_SUM, SHIFT_SUM, OWN = 320, 384, 448, 512
# What is left of a position and block for the loops after. Nothing is read from the inputs where
# something is written: at a distance of 4 KB, a load waits for a store that has nothing to do with
# it, and outputs often lie so.
STEP, VALUE, GATE, AHEAD = 0, 64, 128, 192
SLOPE, BEFORE, DECAY, GRAD, BACK = 128, 192, 256, 320, 384


@routine
def _set_up(n_blocks, A, D, bias, blocks):
    """Parameters in vectors, sums of zero."""
    zero = splat(np.float32(0))
    for block in range(n_blocks):
        own, place = blocks + OWN * block, VECTOR_BYTES * block
        for row in range(own, own + OWN, VECTOR_BYTES):
            store(row, zero)
        store(own + RATE, mul(load(A + place), splat(LOG2_E)))
        if D != 0:
            store(own + SKIP, load(D + place))
        if bias != 0:
            store(own + SHIFT, load(bias + place))


@routine
def _fill(first_block, end_block, blocks, part, source):
    """Bring ``(D,)`` numbers into a part of the blocks; zeros where there is no source."""
    for block in range(first_block, end_block):
        value = splat(np.float32(0))
        if source != 0:
            value = load(source + VECTOR_BYTES * block)
        store(blocks + OWN * block + part, value)


@routine
def _put(first_block, end_block, blocks, part, target):
    """Write a part of the blocks as ``(D,)`` numbers."""
    for block in range(first_block, end_block):
        store(target + VECTOR_BYTES * block, load(blocks + OWN * block + part))


@routine
def _places(first, count, room, height, length, tile):
    """The places in memory of so many positions, then the last one's until there are ``room``."""
    count = min(count, room)
    if height != 0:
        down_columns(first, count, height, length // height, tile)
    else:
        for i in range(count):
            store_int(tile + 4 * i, np.int32(first + i))
    for i in range(count, room):
        store_int(tile + 4 * i, load_int(tile + 4 * count - 4))


@routine
def _steps(
    kind, first_block, end_block, tile, soon, count, delta, delta_t, u, u_t, z, z_t, blocks, left,
    with_softplus,
):  # fmt: skip
    """Step sizes of blocks at a tile's positions, inputs, and gates where there are any."""
    size = LANES * width(kind)
    for i in range(count):
        t = load_int(tile + 4 * i)
        ahead = load_int(soon + 4 * i) - t
        for block in range(first_block, end_block):
            place = delta + t * delta_t + size * block
            prefetch(place + ahead * delta_t)
            step = add(load_row(kind, place), load(blocks + OWN * block + SHIFT))
            if with_softplus:
                step = softplus(step)
            store(left + STEP, step)
            place = u + t * u_t + size * block
            prefetch(place + ahead * u_t)
            store(left + VALUE, load_row(kind, place))
            if z != 0:
                place = z + t * z_t + size * block
                prefetch(place + ahead * z_t)
                store(left + GATE, silu(load_row(kind, place)))
            left += AHEAD


@routine
def _forward_rows(
    out_kind, adds, gated, first_block, end_block, tile, soon, count, out, out_t, B, B_t, C, C_t,
    blocks, left,
):  # fmt: skip
    """Run blocks of one group through a tile."""
    out_size = LANES * width(out_kind)
    for i in range(count):
        t = load_int(tile + 4 * i)
        ahead = load_int(soon + 4 * i) - t
        weight_in, weight_out = splat(load_one(B + t * B_t)), splat(load_one(C + t * C_t))
        for block in range(first_block, end_block):
            own, step, value = blocks + OWN * block, load(left + STEP), load(left + VALUE)
            decay = exp2(mul(step, load(own + RATE)))
            h = fma(decay, load(own + STATE), mul(mul(step, value), weight_in))
            store(own + STATE, h)
            y = fma(weight_out, h, mul(load(own + SKIP), value))
            target = out + t * out_t + out_size * block
            prefetch(target + ahead * out_t)
            if adds:
                y = add(y, load_row(out_kind, target))
            if gated:
                y = mul(y, load(left + GATE))
            store_row(out_kind, target, y)
            left += AHEAD


@jit
def forward(
    task, n_tasks, kind, batch, n_splits, n_groups, group_size, length, n_states, height,
    u, u_b, u_d, u_t, delta, delta_b, delta_d, delta_t, z, z_b, z_d, z_t,
    out, out_b, out_d, out_t, out_kind, adds,
    A, B, B_b, B_g, B_n, B_t, C, C_b, C_g, C_n, C_t, B_constant, C_constant,
    D, bias, with_softplus, initial, last, seq, seq_b, seq_t, checkpoints, scratch, scratch_bytes,
):  # fmt: skip
    """One task's share, as the general kernel has it."""
    per_group = group_size // LANES
    n_blocks, n_tiles = n_groups * per_group, (length + TILE - 1) // TILE
    row_bytes = VECTOR_BYTES * n_blocks
    tile = scratch + task * scratch_bytes
    soon, left = tile + 4 * SOON, tile + PLACES
    blocks = left + TILE * SLAB * AHEAD
    _set_up(n_blocks, A, D, bias, blocks)
    first_item, end_item = share(task, n_tasks, batch * n_splits)
    for item in range(first_item, end_item):
        b = item // n_splits
        first_block, end_block = share(item % n_splits, n_splits, n_blocks)
        source = initial + b * row_bytes if initial != 0 else 0
        _fill(first_block, end_block, blocks, STATE, source)
        for k in range(n_tiles):
            count = min(TILE, length - k * TILE)
            _places(k * TILE, length - k * TILE, TILE + SOON, height, length, tile)
            if checkpoints != 0:
                target = checkpoints + (b * n_tiles + k) * row_bytes
                _put(first_block, end_block, blocks, STATE, target)
            block = first_block
            while block < end_block:
                group = block // per_group
                end = min(block + SLAB, min(end_block, (group + 1) * per_group))
                _steps(
                    kind, block, end, tile, soon, count, delta + b * delta_b, delta_t, u + b * u_b,
                    u_t, z + b * z_b, z_t, blocks, left, with_softplus,
                )  # fmt: skip
                _forward_rows(
                    out_kind, adds, z != 0, block, end, tile, soon, count, out + b * out_b, out_t,
                    B + b * B_b + group * B_g, B_t, C + b * C_b + group * C_g, C_t, blocks, left,
                )  # fmt: skip
                block = end
        if last != 0:
            _put(first_block, end_block, blocks, STATE, last + b * row_bytes)


@routine
def _steps_and_slopes(
    kind, first_block, end_block, tile, soon, count, delta, delta_t, u, u_t, blocks, left,
    with_softplus,
):  # fmt: skip
    """Step sizes of blocks at a tile's positions with their slopes, and inputs."""
    size = LANES * width(kind)
    for i in range(count):
        t = load_int(tile + 4 * i)
        ahead = load_int(soon + 4 * i) - t
        for block in range(first_block, end_block):
            place = delta + t * delta_t + size * block
            prefetch(place + ahead * delta_t)
            step = add(load_row(kind, place), load(blocks + OWN * block + SHIFT))
            slope = splat(np.float32(1))
            if with_softplus:
                step, slope = softplus_and_slope(step)
            store(left + STEP, step)
            store(left + SLOPE, slope)
            place = u + t * u_t + size * block
            prefetch(place + ahead * u_t)
            store(left + VALUE, load_row(kind, place))
            left += BACK


@routine
def _again(
    kind, first_block, end_block, tile, soon, count, dout, dout_t, B, B_t, blocks, left, z, z_t,
    du, du_t, ddelta, ddelta_t, dz, dz_t,
):  # fmt: skip
    """Run a slab of blocks forwards through a tile; leave what its gradients need."""
    size = LANES * width(kind)
    for i in range(count):
        t = load_int(tile + 4 * i)
        ahead = load_int(soon + 4 * i) - t
        weight_in = splat(load_one(B + t * B_t))
        for block in range(first_block, end_block):
            own, step, at = blocks + OWN * block, load(left + STEP), size * block
            place = dout + t * dout_t + at
            prefetch(place + ahead * dout_t)
            store(left + GRAD, load_row(kind, place))
            # What the way back writes.
            prefetch(du + t * du_t + at)
            prefetch(ddelta + t * ddelta_t + at)
            if z != 0:
                prefetch(z + t * z_t + at)
                prefetch(dz + t * dz_t + at)
            decay, h = exp2(mul(step, load(own + RATE))), load(own + STATE)
            store(left + BEFORE, h)
            store(left + DECAY, decay)
            entering = mul(mul(step, load(left + VALUE)), weight_in)
            store(own + STATE, fma(decay, h, entering))
            left += BACK


@jit
def _write(kind, adds, place, value):
    """Store a row, or add it to what lies there."""
    if adds:
        value = add(value, load_row(kind, place))
    store_row(kind, place, value)


@routine
def _back(
    kind, first_block, end_block, tile, count, z, z_t,
    du, du_t, du_kind, du_adds, ddelta, ddelta_t, ddelta_kind, ddelta_adds,
    dz, dz_t, dz_kind, dz_adds, B, B_t, C, C_t, blocks, left, dB_rows, dC_rows,
):  # fmt: skip
    """Run the gradients of a slab of blocks back through a tile."""
    size, du_size = LANES * width(kind), LANES * width(du_kind)
    ddelta_size, dz_size = LANES * width(ddelta_kind), LANES * width(dz_kind)
    left += count * (end_block - first_block) * BACK
    for i in range(count - 1, -1, -1):
        t = load_int(tile + 4 * i)
        weight_in, weight_out = splat(load_one(B + t * B_t)), splat(load_one(C + t * C_t))
        row = VECTOR_BYTES * i
        dB, dC = load(dB_rows + row), load(dC_rows + row)
        for block in range(end_block - 1, first_block - 1, -1):
            own, at = blocks + OWN * block, size * block
            left -= BACK
            before, step, decay = load(left + BEFORE), load(left + STEP), load(left + DECAY)
            value, g = load(left + VALUE), load(left + GRAD)
            skip, entering = load(own + SKIP), mul(step, value)
            h = fma(decay, before, mul(entering, weight_in))
            if z != 0:
                gate = load_row(kind, z + t * z_t + at)
                s = sigmoid(gate)
                y = fma(weight_out, h, mul(skip, value))
                # The slope of silu, z s, is s (1 + z (1 - s)).
                slope = mul(s, fma(gate, sub(splat(np.float32(1)), s), splat(np.float32(1))))
                _write(dz_kind, dz_adds, dz + t * dz_t + dz_size * block, mul(mul(g, slope), y))
                g = mul(g, mul(gate, s))
            dh = fma(g, weight_out, load(own + GRADIENT))
            dB, dC = fma(dh, entering, dB), fma(g, h, dC)
            dx = mul(dh, weight_in)
            dh = mul(dh, decay)
            store(own + GRADIENT, dh)
            through = mul(dh, before)
            store(own + RATE_SUM, fma(through, step, load(own + RATE_SUM)))
            store(own + SKIP_SUM, fma(g, value, load(own + SKIP_SUM)))
            dstep = fma(mul(through, load(own + RATE)), splat(LN_2), mul(dx, value))
            dstep = mul(dstep, load(left + SLOPE))
            store(own + SHIFT_SUM, add(load(own + SHIFT_SUM), dstep))
            _write(du_kind, du_adds, du + t * du_t + du_size * block, fma(dx, step, mul(g, skip)))
            place = ddelta + t * ddelta_t + ddelta_size * block
            _write(ddelta_kind, ddelta_adds, place, dstep)
        store(dB_rows + row, dB)
        store(dC_rows + row, dC)


@jit
def backward(
    task, n_tasks, kind, batch, n_splits, n_groups, group_size, length, n_states, height,
    u, u_b, u_d, u_t, delta, delta_b, delta_d, delta_t, z, z_b, z_d, z_t,
    dout, dout_b, dout_d, dout_t, du, du_b, du_d, du_t, du_kind, du_adds,
    ddelta, ddelta_b, ddelta_d, ddelta_t, ddelta_kind, ddelta_adds,
    dz, dz_b, dz_d, dz_t, dz_kind, dz_adds,
    A, B, B_b, B_g, B_n, B_t, C, C_b, C_g, C_n, C_t, dB, dB_b, dB_g, dB_n, dB_t,
    dC, dC_b, dC_g, dC_n, dC_t, B_constant, C_constant, split_bytes,
    D, bias, with_softplus, dinitial, dlast, seq, seq_b, seq_t, checkpoints,
    dA, dB_fixed, dC_fixed, dD, dbias, scratch, scratch_bytes,
):  # fmt: skip
    """One task's share, as the general kernel has it."""
    per_group = group_size // LANES
    n_blocks, n_tiles = n_groups * per_group, (length + TILE - 1) // TILE
    row_bytes = VECTOR_BYTES * n_blocks
    tile = scratch + task * scratch_bytes
    soon = tile + VECTOR_BYTES
    dB_rows, dC_rows = tile + PLACES, tile + PLACES + ROWS
    left = dC_rows + ROWS
    blocks = left + TILE * SLAB_BACK * BACK
    _set_up(n_blocks, A, D, bias, blocks)
    first_item, end_item = share(task, n_tasks, batch * n_splits)
    for item in range(first_item, end_item):
        b, split = item // n_splits, item % n_splits * split_bytes
        first_block, end_block = share(item % n_splits, n_splits, n_blocks)
        source = dlast + b * row_bytes if dlast != 0 else 0
        _fill(first_block, end_block, blocks, GRADIENT, source)
        for k in range(n_tiles - 1, -1, -1):
            count = min(TILE, length - k * TILE)
            _places(k * TILE, count, TILE, height, length, tile)
            # What comes next is the tile before.
            _places(max(0, k - 1) * TILE, TILE, TILE, height, length, soon)
            source = checkpoints + (b * n_tiles + k) * row_bytes
            _fill(first_block, end_block, blocks, STATE, source)
            block = first_block
            while block < end_block:
                group = block // per_group
                end_group = min(end_block, (group + 1) * per_group)
                B_at, C_at = B + b * B_b + group * B_g, C + b * C_b + group * C_g
                for row in range(dB_rows, left, VECTOR_BYTES):
                    store(row, splat(np.float32(0)))
                while block < end_group:
                    end = min(end_group, block + SLAB_BACK)
                    _steps_and_slopes(
                        kind, block, end, tile, soon, count, delta + b * delta_b, delta_t,
                        u + b * u_b, u_t, blocks, left, with_softplus,
                    )  # fmt: skip
                    _again(
                        kind, block, end, tile, soon, count, dout + b * dout_b, dout_t, B_at, B_t,
                        blocks, left, z + b * z_b, z_t, du + b * du_b, du_t,
                        ddelta + b * ddelta_b, ddelta_t, dz + b * dz_b, dz_t,
                    )  # fmt: skip
                    _back(
                        kind, block, end, tile, count, z + b * z_b, z_t,
                        du + b * du_b, du_t, du_kind, du_adds,
                        ddelta + b * ddelta_b, ddelta_t, ddelta_kind, ddelta_adds,
                        dz + b * dz_b, dz_t, dz_kind, dz_adds,
                        B_at, B_t, C_at, C_t, blocks, left, dB_rows, dC_rows,
                    )  # fmt: skip
                    block = end
                target = dB + split + b * dB_b + group * dB_g
                write_sums(dB_rows, target, dB_n, dB_t, 1, tile, count)
                target = dC + split + b * dC_b + group * dC_g
                write_sums(dC_rows, target, dC_n, dC_t, 1, tile, count)
        if dinitial != 0:
            _put(first_block, end_block, blocks, GRADIENT, dinitial + b * row_bytes)

    first = task * row_bytes
    _put(0, n_blocks, blocks, RATE_SUM, dA + first)
    _put(0, n_blocks, blocks, SKIP_SUM, dD + first)
    _put(0, n_blocks, blocks, SHIFT_SUM, dbias + first)
