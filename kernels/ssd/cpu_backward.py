"""The scan of Mamba-2 on a CPU: gradients, by three more scans.

With ``g`` the gradient of ``y``, ``X = step x`` and ``a`` the decay, of a head with states
``(P, N)``::

    dh[t] = g[t] C[t]^T + a[t+1] dh[t+1]
    dC[t] = g[t]^T h[t]      dB[t] = X[t]^T dh[t]      dX[t] = dh[t] B[t]

So ``dC`` is the output of a scan whose lanes are states, in which B enters, spread by X and
gathered by g; ``dB`` and ``dX`` are those of scans back in time: in one C enters, spread by g and
gathered by X, in the other g enters, spread by C and gathered by B. What a position adds to its own
gradients, ``C . B`` and ``g . X`` times a row, stands outside of them. The gradient ``r[t]`` of
``log a[t]`` is of what passes from before ``t`` to ``t`` or later. It changes by what ends at ``t``
and what starts there::

    r[t] - r[t+1] = C[t] . dC[t] - X[t] . dX[t]        (both without the position's own part)

It is summed back over a tile, where it starts anew: ``r[t+1] = a[t+1] <dh[t+1], h[t]>``. Chunks of
two tiles are visited from the last to the first. In each the first scan runs from the states that
the forward kept, and leaves its own after each tile; then the others run back.

Addresses and strides are as in :mod:`tristate.kernels.ssd.cpu_tiles`.
"""

import numpy as np

from tristate.kernels.cpu.functions import LOG2_E
from tristate.kernels.cpu.tiles import FLOAT32, load_lanes, store_tile
from tristate.kernels.cpu.vector import (
    LANES,
    VECTOR_BYTES,
    jit,
    load,
    load_int,
    load_one,
    mul,
    store,
    store_int,
    store_one,
)
from tristate.kernels.ssd.cpu_forward import load_weights
from tristate.kernels.ssd.cpu_gradients import (
    add_to_weight,
    copy,
    finish_rows,
    finish_steps,
    load_gradients,
    scale_back,
)
from tristate.kernels.ssd.cpu_tiles import (
    CHUNK,
    NUMBERS,
    PREPARED,
    QUADS,
    ROWS,
    TILE,
    add_lanes,
    add_products,
    add_row,
    blank,
    blocks,
    clear,
    count_up,
    dot,
    load_rows,
    load_state,
    numbers,
    pack,
    prepare,
    quads,
    run,
    store_state,
)


@jit
def backward(
    task, n_tasks, kind, batch, length, n_heads, per_block, per_group, width, n_states,
    x, x_b, x_t, x_h, x_p, z, z_b, z_t, z_h, z_p, dout, dout_b, dout_t, dout_h, dout_p,
    y, y_b, y_t, y_h, y_p, dt, dt_b, dt_t, dt_h, B, B_b, B_t, B_g, B_n, C, C_b, C_t, C_g, C_n,
    dx, dx_b, dx_t, dx_h, dx_p, dz, dz_b, dz_t, dz_h, dz_p, ddt, ddt_b, ddt_t, ddt_h,
    dB, dB_s, dB_b, dB_t, dB_g, dB_n, dC, dC_s, dC_b, dC_t, dC_g, dC_n,
    A, D, D_h, D_p, bias, kept, dlast, dinitial, dA, dD, dbias, seq, seq_b, seq_t,
    with_softplus, limits, scratch, scratch_bytes,
):  # fmt: skip
    """One task's share of the sequences' blocks of heads.

    ``dA`` and ``dbias`` are ``(B, H)``, ``dD`` is ``(B, H, P)``. To the gradients of B and C is
    added; those of the tasks are ``dB_s`` and ``dC_s`` apart.
    """
    base = scratch + task * scratch_bytes
    steps, decays, scales, inverses, weights, slopes, tile, bounds, firsts, lasts = numbers(base)
    products = base + PREPARED
    crossed, started, whole = products + NUMBERS, products + 2 * NUMBERS, products + 3 * NUMBERS
    skip = products + 4 * NUMBERS
    x_rows = skip + VECTOR_BYTES
    z_rows, dout_rows, g_rows = x_rows + ROWS, x_rows + 2 * ROWS, x_rows + 3 * ROWS
    entering, leaving, sums = x_rows + 4 * ROWS, x_rows + 5 * ROWS, x_rows + 6 * ROWS
    B_rows, C_rows = x_rows + 7 * ROWS, x_rows + 8 * ROWS
    first_sums, second_sums = x_rows + 9 * ROWS, x_rows + 10 * ROWS
    B_quads = x_rows + 11 * ROWS
    C_quads = B_quads + 4 * QUADS * blocks(n_states)
    X_quads = C_quads + 4 * QUADS * blocks(n_states)
    g_quads = X_quads + 4 * QUADS * blocks(width)
    lane_bytes = 4 * VECTOR_BYTES * quads(n_states)  # of a block of channels
    column_bytes = 4 * VECTOR_BYTES * quads(width)  # of a block of states
    by_channel, by_state = blocks(width) * lane_bytes, blocks(n_states) * column_bytes
    channel_states = g_quads + 4 * QUADS * blocks(width)
    states = channel_states + per_block * by_channel
    dD_rows = states + per_block * by_state
    totals = dD_rows + per_block * blocks(width) * VECTOR_BYTES
    n_tiles = (length + TILE - 1) // TILE
    n_chunks = (n_tiles + CHUNK - 1) // CHUNK
    ended = totals + VECTOR_BYTES * per_block
    reached = ended + CHUNK * per_block * NUMBERS
    segments = reached + CHUNK * per_block * by_state
    least, most = load_one(limits), load_one(limits + 4)
    state_bytes = 4 * width * n_states
    count_up(tile)
    head_blocks = (n_heads + per_block - 1) // per_block
    items = batch * head_blocks
    for item in range(task * items // n_tasks, (task + 1) * items // n_tasks):
        b, first_head = item // head_blocks, item % head_blocks * per_block
        end_head = min(n_heads, first_head + per_block)
        clear(dD_rows, ended)
        for h in range(first_head, end_head):
            mine = h - first_head
            place = dlast + (b * n_heads + h) * state_bytes if dlast != 0 else 0
            load_state(place, width, n_states, True, states + mine * by_state)
            load_state(place, width, n_states, False, channel_states + mine * by_channel)
        segment = np.int32(-1)
        for k in range(n_tiles):
            store_int(segments + 4 * k, segment)
            if seq != 0:
                for t in range(k * TILE, min(length, (k + 1) * TILE)):
                    now = load_int(seq + b * seq_b + t * seq_t)
                    segment = now if now >= 0 else segment

        for chunk in range(n_chunks - 1, -1, -1):
            # Forwards: the gradient of C.
            for k in range(chunk * CHUNK, min(n_tiles, (chunk + 1) * CHUNK)):
                first = k * TILE
                count = min(TILE, length - first)
                line = seq + b * seq_b + first * seq_t if seq != 0 else 0
                slot = k % CHUNK * per_block
                x_at, z_at = x + b * x_b + first * x_t, z + b * z_b + first * z_t
                dout_at, dt_at = dout + b * dout_b + first * dout_t, dt + b * dt_b + first * dt_t
                B_at, C_at = B + b * B_b + first * B_t, C + b * C_b + first * C_t
                for h in range(first_head, end_head):
                    mine, group = h - first_head, h // per_group
                    rate, shift = load_one(A + 4 * h) * LOG2_E, np.float32(0)
                    if bias != 0:
                        shift = load_one(bias + 4 * h)
                    place = dt_at + h * dt_h
                    runs, _ = prepare(
                        place, dt_t, count, shift, rate, with_softplus, least, most, line, seq_t,
                        load_int(segments + 4 * k), base,
                    )  # fmt: skip
                    here = reached + (slot + mine) * by_state
                    if slot == 0:
                        place = ((b * n_heads + h) * n_chunks + chunk) * state_bytes
                        load_state(kept + place, width, n_states, True, here)
                    else:
                        copy(here - per_block * by_state, here, by_state)
                    clear(first_sums, first_sums + ROWS)
                    for block in range(blocks(width)):
                        p, lanes = LANES * block, min(LANES, width - LANES * block)
                        load_gradients(
                            kind, z != 0, x_at + h * x_h + p * x_p, x_p, x_t,
                            z_at + h * z_h + p * z_p, z_p, z_t,
                            dout_at + h * dout_h + p * dout_p, dout_p, dout_t,
                            tile, count, lanes, line, seq_t, x_rows, z_rows, dout_rows, g_rows,
                        )  # fmt: skip
                        scale_back(x_rows, g_rows, weights, scales, entering, leaving, count)
                        pack(entering, count, X_quads + 4 * QUADS * block)
                        pack(leaving, count, g_quads + 4 * QUADS * block)
                        add_products(x_rows, g_rows, first_sums, count)
                    add_lanes(first_sums, count, crossed)
                    clear(second_sums, second_sums + ROWS)
                    for block in range(blocks(n_states)):
                        n, lanes = LANES * block, min(LANES, n_states - LANES * block)
                        source = B_at + group * B_g + n * B_n
                        load_rows(
                            FLOAT32, source, B_n, B_t, tile, count, lanes, B_rows, line, seq_t
                        )
                        source = C_at + group * C_g + n * C_n
                        load_rows(
                            FLOAT32, source, C_n, C_t, tile, count, lanes, C_rows, line, seq_t
                        )
                        clear(sums, sums + ROWS)
                        run(
                            quads(width), here + block * column_bytes, B_rows, X_quads, g_quads,
                            sums, bounds, runs, firsts, lasts, False,
                        )  # fmt: skip
                        add_products(C_rows, sums, second_sums, count)
                        target = (
                            dC + task * dC_s + b * dC_b + first * dC_t + group * dC_g + n * dC_n
                        )
                        add_to_weight(
                            sums,
                            B_rows,
                            steps,
                            crossed,
                            target,
                            dC_n,
                            dC_t,
                            tile,
                            count,
                            lanes,
                            x_rows,
                        )
                    add_lanes(second_sums, count, ended + (slot + mine) * NUMBERS)

            # Back: all other gradients.
            for k in range(min(n_tiles, (chunk + 1) * CHUNK) - 1, chunk * CHUNK - 1, -1):
                first = k * TILE
                count = min(TILE, length - first)
                line = seq + b * seq_b + first * seq_t if seq != 0 else 0
                slot = k % CHUNK * per_block
                x_at, z_at = x + b * x_b + first * x_t, z + b * z_b + first * z_t
                dout_at, dt_at = dout + b * dout_b + first * dout_t, dt + b * dt_b + first * dt_t
                B_at, C_at = B + b * B_b + first * B_t, C + b * C_b + first * C_t
                group = -1
                for h in range(first_head, end_head):
                    mine = h - first_head
                    if h // per_group != group:
                        group = h // per_group
                        load_weights(
                            B_at + group * B_g, B_n, B_t, C_at + group * C_g, C_n, C_t, n_states,
                            tile, count, line, seq_t, B_rows, C_rows, sums, B_quads, C_quads,
                            products,
                        )  # fmt: skip
                    rate, shift = load_one(A + 4 * h), np.float32(0)
                    if bias != 0:
                        shift = load_one(bias + 4 * h)
                    place = dt_at + h * dt_h
                    runs, _ = prepare(
                        place, dt_t, count, shift, rate * LOG2_E, with_softplus, least, most, line,
                        seq_t, load_int(segments + 4 * k), base,
                    )  # fmt: skip
                    # What passes from this tile on: before the gradient of the state moves on.
                    here = reached + (slot + mine) * by_state
                    passing = dot(states + mine * by_state, here, by_state)
                    clear(first_sums, first_sums + ROWS)
                    clear(second_sums, second_sums + ROWS)
                    clear(entering, entering + ROWS)
                    for block in range(blocks(width)):
                        p, lanes = LANES * block, min(LANES, width - LANES * block)
                        load_gradients(
                            kind, z != 0, x_at + h * x_h + p * x_p, x_p, x_t,
                            z_at + h * z_h + p * z_p, z_p, z_t,
                            dout_at + h * dout_h + p * dout_p, dout_p, dout_t,
                            tile, count, lanes, line, seq_t, x_rows, z_rows, dout_rows, g_rows,
                        )  # fmt: skip
                        scale_back(x_rows, g_rows, weights, scales, sums, leaving, count)
                        pack(sums, count, X_quads + 4 * QUADS * block)
                        pack(leaving, count, g_quads + 4 * QUADS * block)
                        add_products(x_rows, g_rows, entering, count)
                        clear(sums, sums + ROWS)
                        run(
                            quads(n_states),
                            channel_states + mine * by_channel + block * lane_bytes,
                            leaving, C_quads, B_quads, sums, bounds, runs, firsts, lasts, True,
                        )  # fmt: skip
                        clear(skip, skip + VECTOR_BYTES)
                        if D != 0:
                            load_lanes(D + h * D_h + p * D_p, D_p, lanes, skip, np.float32(1))
                        total = finish_rows(
                            x_rows, g_rows, sums, steps, inverses, products, load(skip), first_sums,
                            second_sums, count,
                        )  # fmt: skip
                        add_row(dD_rows + (mine * blocks(width) + block) * VECTOR_BYTES, total)
                        blank(sums, count, line, seq_t)
                        target = dx + b * dx_b + first * dx_t + h * dx_h + p * dx_p
                        store_tile(kind, sums, target, dx_p, dx_t, tile, count, lanes)
                        if z != 0:
                            source = y + b * y_b + first * y_t + h * y_h + p * y_p
                            load_rows(
                                FLOAT32, source, y_p, y_t, tile, count, lanes, sums, line, seq_t
                            )
                            for row in range(0, VECTOR_BYTES * count, VECTOR_BYTES):
                                store(sums + row, mul(load(z_rows + row), load(sums + row)))
                            target = dz + b * dz_b + first * dz_t + h * dz_h + p * dz_p
                            store_tile(kind, sums, target, dz_p, dz_t, tile, count, lanes)
                    add_lanes(first_sums, count, started)
                    add_lanes(second_sums, count, whole)
                    add_lanes(entering, count, crossed)
                    for block in range(blocks(n_states)):
                        n, lanes = LANES * block, min(LANES, n_states - LANES * block)
                        source = C_at + group * C_g + n * C_n
                        load_rows(
                            FLOAT32, source, C_n, C_t, tile, count, lanes, C_rows, line, seq_t
                        )
                        clear(sums, sums + ROWS)
                        run(
                            quads(width), states + mine * by_state + block * column_bytes, C_rows,
                            g_quads, X_quads, sums, bounds, runs, firsts, lasts, True,
                        )  # fmt: skip
                        target = (
                            dB + task * dB_s + b * dB_b + first * dB_t + group * dB_g + n * dB_n
                        )
                        add_to_weight(
                            sums,
                            C_rows,
                            steps,
                            crossed,
                            target,
                            dB_n,
                            dB_t,
                            tile,
                            count,
                            lanes,
                            x_rows,
                        )
                    finish_steps(
                        ended + (slot + mine) * NUMBERS, started, whole, steps, decays, slopes,
                        rate, passing, ddt + b * ddt_b + h * ddt_h + first * ddt_t, ddt_t, count,
                        totals + VECTOR_BYTES * mine,
                    )  # fmt: skip

        for h in range(first_head, end_head):
            mine, head = h - first_head, b * n_heads + h
            place = dinitial + head * state_bytes
            store_state(states + mine * by_state, width, n_states, True, place)
            store_one(dA + 4 * head, load_one(totals + VECTOR_BYTES * mine))
            store_one(dbias + 4 * head, load_one(totals + VECTOR_BYTES * mine + 4))
            for p in range(width):
                value = load_one(dD_rows + mine * blocks(width) * VECTOR_BYTES + 4 * p)
                store_one(dD + 4 * (head * width + p), value)
