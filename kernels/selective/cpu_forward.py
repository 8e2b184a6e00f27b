"""The selective scan on a CPU: forward.

Lanes are 16 channels. Time goes in tiles of 32 positions: step sizes and inputs of a tile are made
ready once, then each state runs through the tile in a register while the output is summed in L1.
All channels pass a tile before the next one, so that storage with channels side by side is read in
order, and the tile's B and C are gathered once.

Addresses and strides are in bytes; a name that ends in an axis (``u_t``, ``B_n``) is a stride.
"""

import numpy as np

from tristate.kernels.cpu.functions import LOG2_E, excess, exp2, exp2_within, silu, softplus
from tristate.kernels.cpu.tiles import (
    down_columns,
    load_lanes,
    load_tile,
    positions,
    store_lanes,
    store_tile,
)
from tristate.kernels.cpu.vector import (
    LANES,
    VECTOR_BYTES,
    absolute,
    add,
    fma,
    jit,
    load,
    load_int,
    load_one,
    maximum,
    mul,
    routine,
    splat,
    store,
    store_one,
)

TILE = 32
# A little more than the rows themselves: at a distance of 4 KB, a load waits for a store that has
# nothing to do with it.
ROWS = (TILE + 3) * VECTOR_BYTES


@jit
def share(task, n_tasks, total):
    """The first piece of a task's share of ``total`` pieces, and the one after its last."""
    return task * total // n_tasks, (task + 1) * total // n_tasks


@jit
def channels(block, group_size):
    """A block's group, first channel and number of channels; none spans two groups."""
    per_group = (group_size + LANES - 1) // LANES
    group, first = block // per_group, block % per_group * LANES
    return group, group * group_size + first, min(LANES, group_size - first)


@routine
def gather_weights(source, step_n, step_t, n_states, tile, count, target):
    """One group's B or C at a tile's positions, as ``(N, TILE)`` float32."""
    for i in range(count):
        place = source + load_int(tile + 4 * i) * step_t
        for n in range(n_states):
            store_one(target + 4 * (n * TILE + i), load_one(place + n * step_n))


@routine
def fill_ones(target, count):
    """Write ``count`` float32 ones."""
    for i in range(count):
        store_one(target + 4 * i, np.float32(1))


@routine
def prepare(delta, u, dt, x, count, bias, with_softplus):
    """Step sizes ``dt`` and what enters the states, ``x = dt * u``, of a tile."""
    for i in range(count):
        row = VECTOR_BYTES * i
        step = add(load(delta + row), bias)
        if with_softplus:
            step = softplus(step)
        store(dt + row, step)
        store(x + row, mul(step, load(u + row)))


@routine
def set_up(
    n_blocks, group_size, n_states, A, B_constant, C_constant, D, bias,
    rates, B_lanes, C_lanes, per_channel,
):  # fmt: skip
    """Bring parameters into lanes: ``A log2(e)``, constant B and C (or ones), D and the bias."""
    for block in range(n_blocks):
        _, d, n_lanes = channels(block, group_size)
        row = per_channel + 2 * VECTOR_BYTES * block
        store(row, splat(np.float32(0)))
        store(row + VECTOR_BYTES, splat(np.float32(0)))
        if D != 0:
            load_lanes(D + 4 * d, 4, n_lanes, row, np.float32(1))
        if bias != 0:
            load_lanes(bias + 4 * d, 4, n_lanes, row + VECTOR_BYTES, np.float32(1))
        for n in range(n_states):
            place, at = 4 * (d * n_states + n), VECTOR_BYTES * (block * n_states + n)
            load_lanes(A + place, 4 * n_states, n_lanes, rates + at, LOG2_E)
            if B_constant != 0 or C_constant != 0:
                store(B_lanes + at, splat(np.float32(1)))
                store(C_lanes + at, splat(np.float32(1)))
            if B_constant != 0:
                load_lanes(B_constant + place, 4 * n_states, n_lanes, B_lanes + at, np.float32(1))
            if C_constant != 0:
                load_lanes(C_constant + place, 4 * n_states, n_lanes, C_lanes + at, np.float32(1))


@routine
def load_states(first_block, end_block, group_size, n_states, source, first_channel, states):
    """Bring states ``(channel, N)`` into lanes; zeros where there is no source."""
    for block in range(first_block, end_block):
        _, d, n_lanes = channels(block, group_size)
        for n in range(n_states):
            row = states + VECTOR_BYTES * (block * n_states + n)
            store(row, splat(np.float32(0)))
            if source != 0:
                place = source + 4 * ((first_channel + d) * n_states + n)
                load_lanes(place, 4 * n_states, n_lanes, row, np.float32(1))


@routine
def store_states(first_block, end_block, group_size, n_states, states, target, first_channel):
    """Write states in lanes as ``(channel, N)``."""
    for block in range(first_block, end_block):
        _, d, n_lanes = channels(block, group_size)
        for n in range(n_states):
            place = target + 4 * ((first_channel + d) * n_states + n)
            row = states + VECTOR_BYTES * (block * n_states + n)
            store_lanes(row, place, 4 * n_states, n_lanes)


@routine
def _within(n_states, A, dt, count):
    """Whether no decay of a tile needs the bounds of :func:`exp2`, a sixth of its work."""
    fastest, longest = splat(np.float32(0)), splat(np.float32(0))
    for n in range(n_states):
        fastest = maximum(absolute(load(A + VECTOR_BYTES * n)), fastest)
    for i in range(count):
        longest = maximum(absolute(load(dt + VECTOR_BYTES * i)), longest)
    return excess(mul(fastest, longest)) == 0


def _varying(power):
    """A routine that runs states whose weights vary in time, with decays by this function.

    One state at a time: the numbers of two don't fit 16 registers of AVX2.
    """

    @routine
    def run_varying(n_states, A, states, checkpoint, dt, x, y, B, C, bounds, runs, fresh):
        zero = splat(np.float32(0))
        for n in range(n_states):
            at = VECTOR_BYTES * n
            rate, h = load(A + at), load(states + at)
            if checkpoint != 0:
                store(checkpoint + at, h)
            for run in range(runs):
                if fresh or run > 0:
                    h = zero
                for i in range(load_int(bounds + 4 * run), load_int(bounds + 4 * run + 4)):
                    row, place = VECTOR_BYTES * i, 4 * (n * TILE + i)
                    enters = mul(load(x + row), splat(load_one(B + place)))
                    h = fma(power(mul(load(dt + row), rate)), h, enters)
                    store(y + row, fma(splat(load_one(C + place)), h, load(y + row)))
            store(states + at, h)

    return run_varying


_run_varying, _run_varying_within = _varying(exp2), _varying(exp2_within)


@routine
def _run_constant(
    n_states, A, states, checkpoint, dt, x, y, B, C, B_lanes, C_lanes, bounds, runs, fresh
):
    """Run states, of whose weights at least one is constant in time, through a tile."""
    zero = splat(np.float32(0))
    for n in range(n_states):
        at = VECTOR_BYTES * n
        rate, h = load(A + at), load(states + at)
        B_own, C_own = load(B_lanes + at), load(C_lanes + at)
        if checkpoint != 0:
            store(checkpoint + at, h)
        for run in range(runs):
            if fresh or run > 0:
                h = zero
            for i in range(load_int(bounds + 4 * run), load_int(bounds + 4 * run + 4)):
                row, place = VECTOR_BYTES * i, 4 * (n * TILE + i)
                weight_in = mul(splat(load_one(B + place)), B_own)
                weight_out = mul(splat(load_one(C + place)), C_own)
                a = exp2(mul(load(dt + row), rate))
                h = fma(a, h, mul(load(x + row), weight_in))
                store(y + row, fma(weight_out, h, load(y + row)))
        store(states + at, h)


@jit
def forward(
    task, n_tasks, kind, batch, n_splits, n_groups, group_size, length, n_states, height,
    u, u_b, u_d, u_t, delta, delta_b, delta_d, delta_t, z, z_b, z_d, z_t,
    out, out_b, out_d, out_t, out_kind, adds,
    A, B, B_b, B_g, B_n, B_t, C, C_b, C_g, C_n, C_t, B_constant, C_constant,
    D, bias, with_softplus, initial, last, seq, seq_b, seq_t, checkpoints, scratch, scratch_bytes,
):  # fmt: skip
    """One task's share of the sequences, or of their channels where ``n_splits`` is above 1.

    Address 0 stands for what is absent; ``B_constant`` and ``C_constant`` are the addresses of
    ``(D, N)`` weights. With a ``height`` positions lie on a map of so many rows, and go down its
    columns. Where it ``adds``, ``y`` starts from what lies in ``out``, and the gate is put on the
    sum. ``checkpoints`` takes the states before each tile, ``(B, tiles, blocks, N, 16)``.
    """
    n_blocks = n_groups * ((group_size + LANES - 1) // LANES)
    n_tiles = (length + TILE - 1) // TILE
    block_bytes = VECTOR_BYTES * n_states
    constant = B_constant != 0 or C_constant != 0
    tile = scratch + task * scratch_bytes
    bounds = tile + 4 * TILE
    delta_rows = bounds + 8 * TILE
    u_rows, dt = delta_rows + ROWS, delta_rows + 2 * ROWS
    x, y = delta_rows + 3 * ROWS, delta_rows + 4 * ROWS
    B_tile = y + ROWS
    C_tile = B_tile + 4 * TILE * n_states
    rates = C_tile + 4 * TILE * n_states
    states = rates + n_blocks * block_bytes
    B_lanes = states + n_blocks * block_bytes
    C_lanes = B_lanes + (n_blocks * block_bytes if constant else 0)
    per_channel = C_lanes + (n_blocks * block_bytes if constant else 0)

    fill_ones(B_tile, 2 * TILE * n_states)
    set_up(
        n_blocks, group_size, n_states, A, B_constant, C_constant, D, bias,
        rates, B_lanes, C_lanes, per_channel,
    )  # fmt: skip
    first_item, end_item = share(task, n_tasks, batch * n_splits)
    for item in range(first_item, end_item):
        b = item // n_splits
        first_block, end_block = share(item % n_splits, n_splits, n_blocks)
        channel = b * n_groups * group_size
        load_states(first_block, end_block, group_size, n_states, initial, channel, states)
        segment = np.int32(-1)
        line = seq + b * seq_b if seq != 0 else 0
        for k in range(n_tiles):
            count, runs, fresh, segment = positions(
                k * TILE, min(length, (k + 1) * TILE), line, seq_t, segment, tile, bounds
            )
            if height != 0:
                down_columns(k * TILE, count, height, length // height, tile)
            group_before = -1
            for block in range(first_block, end_block):
                group, d, n_lanes = channels(block, group_size)
                if group != group_before:
                    group_before = group
                    if B_constant == 0:
                        source = B + b * B_b + group * B_g
                        gather_weights(source, B_n, B_t, n_states, tile, count, B_tile)
                    if C_constant == 0:
                        source = C + b * C_b + group * C_g
                        gather_weights(source, C_n, C_t, n_states, tile, count, C_tile)
                source = delta + b * delta_b + d * delta_d
                load_tile(kind, source, delta_d, delta_t, tile, count, n_lanes, delta_rows)
                load_tile(kind, u + b * u_b + d * u_d, u_d, u_t, tile, count, n_lanes, u_rows)
                skip = load(per_channel + 2 * VECTOR_BYTES * block)
                shift = load(per_channel + 2 * VECTOR_BYTES * block + VECTOR_BYTES)
                prepare(delta_rows, u_rows, dt, x, count, shift, with_softplus)
                target = out + b * out_b + d * out_d
                if adds:
                    load_tile(out_kind, target, out_d, out_t, tile, count, n_lanes, y)
                    for i in range(count):
                        row = VECTOR_BYTES * i
                        store(y + row, fma(skip, load(u_rows + row), load(y + row)))
                else:
                    for i in range(count):
                        store(y + VECTOR_BYTES * i, mul(skip, load(u_rows + VECTOR_BYTES * i)))

                at = block * block_bytes
                checkpoint = 0
                if checkpoints != 0:
                    checkpoint = checkpoints + ((b * n_tiles + k) * n_blocks + block) * block_bytes
                if constant:
                    _run_constant(
                        n_states, rates + at, states + at, checkpoint, dt, x, y, B_tile, C_tile,
                        B_lanes + at, C_lanes + at, bounds, runs, fresh,
                    )  # fmt: skip
                elif _within(n_states, rates + at, dt, count):
                    _run_varying_within(
                        n_states, rates + at, states + at, checkpoint, dt, x, y, B_tile, C_tile,
                        bounds, runs, fresh,
                    )  # fmt: skip
                else:
                    _run_varying(
                        n_states, rates + at, states + at, checkpoint, dt, x, y, B_tile, C_tile,
                        bounds, runs, fresh,
                    )  # fmt: skip

                if z != 0:
                    load_tile(kind, z + b * z_b + d * z_d, z_d, z_t, tile, count, n_lanes, u_rows)
                    for i in range(count):
                        gate = silu(load(u_rows + VECTOR_BYTES * i))
                        store(y + VECTOR_BYTES * i, mul(gate, load(y + VECTOR_BYTES * i)))
                store_tile(out_kind, y, target, out_d, out_t, tile, count, n_lanes)

        if last != 0:
            store_states(first_block, end_block, group_size, n_states, states, last, channel)
