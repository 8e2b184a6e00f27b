"""The selective scan on a CPU: gradients.

Tiles are visited from the last to the first. In each, a state is run forwards again from its
checkpoint while what it was and what it decayed by are kept in L1; then its gradient runs back over
them. Gradients of B and C, which all channels share, are summed in lanes over the channels of a
tile, then across lanes; those of the parameters in lanes over time. With ``g`` the gradient of
``y`` and ``a`` the decay::

    dh[t] = C[t] g[t] + a[t+1] dh[t+1]        dC[t] = sum over channels of g[t] h[t]
    dx[t] = sum over states of B[t] dh[t]     dB[t] = sum over channels of x[t] dh[t]
    dA    = sum over time of dt[t] a[t] dh[t] h[t-1]
    ddt[t] = u[t] dx[t] + sum over states of A a[t] dh[t] h[t-1]

Addresses and strides are as in :mod:`tristate.kernels.selective.cpu_forward`.
"""

import numpy as np

from tristate.kernels.cpu.tiles import down_columns, load_tile, positions, store_lanes
from tristate.kernels.cpu.vector import (
    LANES,
    VECTOR_BYTES,
    jit,
    load,
    load_int,
    splat,
    store,
    store_int,
)
from tristate.kernels.selective.cpu_backward_tile import (
    after_states,
    before_states,
    clear,
    put,
    run_states,
    write_sums,
)
from tristate.kernels.selective.cpu_forward import (
    ROWS,
    TILE,
    channels,
    fill_ones,
    gather_weights,
    load_states,
    prepare,
    set_up,
    share,
    store_states,
)


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
    """One task's share of the sequences, or of their channels where ``n_splits`` is above 1.

    ``du``, ``ddelta`` and ``dz`` are added to what lies there where they say so. Each task writes
    the parameters' gradients of its own: ``dA``, ``dB_fixed``, ``dC_fixed`` (of
    constant weights) ``(tasks, D, N)``, ``dD``, ``dbias`` ``(tasks, D)``. Each split writes ``dB``
    and ``dC`` of its own, ``split_bytes`` apart.
    """
    n_blocks = n_groups * ((group_size + LANES - 1) // LANES)
    n_tiles = (length + TILE - 1) // TILE
    block_bytes = VECTOR_BYTES * n_states
    constant = B_constant != 0 or C_constant != 0
    tile = scratch + task * scratch_bytes
    bounds = tile + 4 * TILE
    delta_rows = bounds + 8 * TILE
    u_rows, z_rows, dout_rows = delta_rows + ROWS, delta_rows + 2 * ROWS, delta_rows + 3 * ROWS
    dt, x, y = delta_rows + 4 * ROWS, delta_rows + 5 * ROWS, delta_rows + 6 * ROWS
    g, ddt, dx = delta_rows + 7 * ROWS, delta_rows + 8 * ROWS, delta_rows + 9 * ROWS
    befores, decays = delta_rows + 10 * ROWS, delta_rows + 11 * ROWS
    dB_sums = delta_rows + 12 * ROWS
    dC_sums = dB_sums + n_states * ROWS
    B_tile = dC_sums + n_states * ROWS
    C_tile = B_tile + 4 * TILE * n_states
    dstates = C_tile + 4 * TILE * n_states
    rates = dstates + n_blocks * block_bytes
    B_rows = rates + n_blocks * block_bytes
    C_rows = B_rows + (n_blocks * block_bytes if constant else 0)
    per_channel = C_rows + (n_blocks * block_bytes if constant else 0)
    totals = per_channel + 2 * VECTOR_BYTES * n_blocks
    dA_lanes = totals + 2 * VECTOR_BYTES * n_blocks
    dB_lanes = dA_lanes + n_blocks * block_bytes
    dC_lanes = dB_lanes + (n_blocks * block_bytes if constant else 0)
    segments = dC_lanes + (n_blocks * block_bytes if constant else 0)
    for row in range(totals, segments, VECTOR_BYTES):
        store(row, splat(np.float32(0)))

    fill_ones(B_tile, 2 * TILE * n_states)
    set_up(
        n_blocks, group_size, n_states, A, B_constant, C_constant, D, bias,
        rates, B_rows, C_rows, per_channel,
    )  # fmt: skip
    first_item, end_item = share(task, n_tasks, batch * n_splits)
    for item in range(first_item, end_item):
        b = item // n_splits
        first_block, end_block = share(item % n_splits, n_splits, n_blocks)
        dB_own = dB + item % n_splits * split_bytes + b * dB_b
        dC_own = dC + item % n_splits * split_bytes + b * dC_b
        load_states(
            first_block, end_block, group_size, n_states, dlast, b * n_groups * group_size, dstates
        )
        line = seq + b * seq_b if seq != 0 else 0
        segment = np.int32(-1)
        for k in range(n_tiles):
            store_int(segments + 4 * k, segment)
            if seq != 0:
                end = min(length, (k + 1) * TILE)
                _, _, _, segment = positions(k * TILE, end, line, seq_t, segment, tile, bounds)

        for k in range(n_tiles - 1, -1, -1):
            segment = load_int(segments + 4 * k)
            end = min(length, (k + 1) * TILE)
            count, runs, fresh, _ = positions(k * TILE, end, line, seq_t, segment, tile, bounds)
            if height != 0:
                down_columns(k * TILE, count, height, length // height, tile)
            for block in range(first_block, end_block):
                group, d, n_lanes = channels(block, group_size)
                group_starts = block == first_block or channels(block - 1, group_size)[0] != group
                if group_starts:
                    clear(dB_sums, 2 * n_states)
                    if B_constant == 0:
                        source = B + b * B_b + group * B_g
                        gather_weights(source, B_n, B_t, n_states, tile, count, B_tile)
                    if C_constant == 0:
                        source = C + b * C_b + group * C_g
                        gather_weights(source, C_n, C_t, n_states, tile, count, C_tile)
                place = delta + b * delta_b + d * delta_d
                load_tile(kind, place, delta_d, delta_t, tile, count, n_lanes, delta_rows)
                place = u + b * u_b + d * u_d
                load_tile(kind, place, u_d, u_t, tile, count, n_lanes, u_rows)
                place = dout + b * dout_b + d * dout_d
                load_tile(kind, place, dout_d, dout_t, tile, count, n_lanes, dout_rows)
                if z != 0:
                    place = z + b * z_b + d * z_d
                    load_tile(kind, place, z_d, z_t, tile, count, n_lanes, z_rows)
                skip = load(per_channel + 2 * VECTOR_BYTES * block)
                shift = load(per_channel + 2 * VECTOR_BYTES * block + VECTOR_BYTES)
                prepare(delta_rows, u_rows, dt, x, count, shift, with_softplus)
                before_states(dout_rows, z_rows, u_rows, g, y, ddt, dx, count, skip, z != 0)

                at = block * block_bytes
                checkpoint = checkpoints + ((b * n_tiles + k) * n_blocks + block) * block_bytes
                if constant:
                    run_states(
                        n_states, rates + at, checkpoint, dstates + at, dt, x, y, g, ddt, dx,
                        befores, decays, B_tile, C_tile, B_rows + at, C_rows + at, dA_lanes + at,
                        dB_lanes + at, dC_lanes + at, dB_sums, dC_sums, True, bounds, runs, fresh,
                    )  # fmt: skip
                else:
                    run_states(
                        n_states, rates + at, checkpoint, dstates + at, dt, x, y, g, ddt, dx,
                        befores, decays, B_tile, C_tile, 0, 0, dA_lanes + at,
                        0, 0, dB_sums, dC_sums, False, bounds, runs, fresh,
                    )  # fmt: skip

                after_states(
                    delta_rows, u_rows, z_rows, dout_rows, dt, y, g, ddt, dx, count, skip, shift,
                    with_softplus, z != 0, totals + 2 * VECTOR_BYTES * block,
                )  # fmt: skip
                place = du + b * du_b + d * du_d
                put(u_rows, du_kind, place, du_d, du_t, tile, count, n_lanes, du_adds, g)
                place = ddelta + b * ddelta_b + d * ddelta_d
                put(
                    delta_rows, ddelta_kind, place, ddelta_d, ddelta_t, tile, count, n_lanes,
                    ddelta_adds, g,
                )  # fmt: skip
                if z != 0:
                    place = dz + b * dz_b + d * dz_d
                    put(z_rows, dz_kind, place, dz_d, dz_t, tile, count, n_lanes, dz_adds, g)

                if block == end_block - 1 or channels(block + 1, group_size)[0] != group:
                    if B_constant == 0:
                        target = dB_own + group * dB_g
                        write_sums(dB_sums, target, dB_n, dB_t, n_states, tile, count)
                    if C_constant == 0:
                        target = dC_own + group * dC_g
                        write_sums(dC_sums, target, dC_n, dC_t, n_states, tile, count)

        if dinitial != 0:
            store_states(
                first_block, end_block, group_size, n_states, dstates, dinitial,
                b * n_groups * group_size,
            )  # fmt: skip

    first_channel = task * n_groups * group_size
    store_states(0, n_blocks, group_size, n_states, dA_lanes, dA, first_channel)
    if constant:
        store_states(0, n_blocks, group_size, n_states, dB_lanes, dB_fixed, first_channel)
        store_states(0, n_blocks, group_size, n_states, dC_lanes, dC_fixed, first_channel)
    for block in range(n_blocks):
        _, d, n_lanes = channels(block, group_size)
        row = totals + 2 * VECTOR_BYTES * block
        store_lanes(row, dD + 4 * (first_channel + d), 4, n_lanes)
        store_lanes(row + VECTOR_BYTES, dbias + 4 * (first_channel + d), 4, n_lanes)
