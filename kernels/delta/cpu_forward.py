"""The gated delta rule on a CPU: forward.

A head's state is cut into blocks of 16 value channels, which know nothing of each other: 16 lanes
by K rows, a few KB. Time goes in tiles of 16 tokens: lines of queries, keys and decays are made
ready once for all blocks. A block then passes a tile step by step, one pass over it a step: it
decays, the correction enters, and out come the token's output and what the next step's key finds.

Addresses, strides and lines are as in :mod:`tristate.kernels.delta.cpu_rows`.
"""

import numpy as np

from tristate.kernels.cpu.tiles import FLOAT32, positions, width
from tristate.kernels.cpu.vector import (
    LANES,
    VECTOR_BYTES,
    jit,
    load,
    load_int,
    load_one,
    mul,
    routine,
    store,
    sub,
)
from tristate.kernels.delta.cpu import TILE
from tristate.kernels.delta.cpu_rows import (
    decay_of,
    line_bytes,
    load_block,
    load_keys,
    load_rates,
    load_steps,
    share,
    store_block,
    store_steps,
)
from tristate.kernels.delta.cpu_sweep import BY_ROW, advance, clear, product


@routine
def _run(
    n, size, state, n_rows, count, decays, reads, keys, erases, values, rates, outs, first, end,
):  # fmt: skip
    """Pass the tokens of one run; values become errors."""
    last = end * n - 1
    found = product(state, n_rows, erases + size * first * n)
    for i in range(first, end):
        for j in range(n):
            step = i * n + j
            row = VECTOR_BYTES * step
            error = sub(load(values + row), found)
            store(values + row, error)
            # Of the last step's pass nothing is found any more: its own key stands in.
            out, found = advance(
                BY_ROW, state, n_rows, decay_of(decays, size, i, j, count), keys + size * step,
                mul(load(rates + row), error), reads + size * i,
                erases + size * min(step + 1, last),
            )  # fmt: skip
            # That of a token's last step stays.
            store(outs + VECTOR_BYTES * i, out)


@jit
def forward(
    task, n_tasks, kind, batch, heads, n_splits, length, n, d_key, d_value,
    q, q_b, q_h, q_t, q_s, k, k_b, k_h, k_t, k_s, v, v_b, v_h, v_t, v_s,
    beta, beta_b, beta_h, beta_t, beta_s, by_value, g, g_b, g_h, g_t, g_s, by_key, scale,
    out, out_b, out_h, out_t, out_s, error, error_b, error_h, error_t, error_s,
    initial, last, seq, seq_b, seq_t, scratch, scratch_bytes,
):  # fmt: skip
    """One task's share of the heads, or of their blocks where ``n_splits`` is above 1.

    Address 0 stands for what is absent; ``scale`` is the address of a float32. ``error`` takes
    ``v - k^T S`` of each step.
    """
    n_rows = d_key + d_key % 2
    size = line_bytes(d_key)
    n_blocks = (d_value + LANES - 1) // LANES
    n_tiles = (length + TILE - 1) // TILE
    tile = scratch + task * scratch_bytes
    bounds = tile + 4 * TILE
    reads = bounds + 8 * TILE
    # A vector more than the lines: tables of powers of two apart share few places in a cache.
    decays = reads + size * TILE + VECTOR_BYTES
    keys = decays + size * (TILE + 1) + VECTOR_BYTES
    erases = keys + size * TILE * n + VECTOR_BYTES
    values = erases + size * TILE * n + VECTOR_BYTES
    rates = values + VECTOR_BYTES * TILE * n
    outs = rates + VECTOR_BYTES * TILE * n
    states = outs + VECTOR_BYTES * TILE

    first_item, end_item = share(task, n_tasks, batch * heads * n_splits)
    for item in range(first_item, end_item):
        b, h = item // (heads * n_splits), item // n_splits % heads
        first_block, end_block = share(item % n_splits, n_splits, n_blocks)
        corner = 4 * (b * heads + h) * d_key * d_value
        for block in range(first_block, end_block):
            source = initial + corner + VECTOR_BYTES * block if initial != 0 else 0
            n_lanes = min(LANES, d_value - LANES * block)
            state = states + VECTOR_BYTES * n_rows * block
            load_block(source, d_key, n_lanes, 4 * d_value, 4, state)
        segment = np.int32(-1)
        line = seq + b * seq_b if seq != 0 else 0
        for part in range(n_tiles):
            count, runs, fresh, segment = positions(
                part * TILE, min(length, (part + 1) * TILE), line, seq_t, segment, tile, bounds
            )
            load_keys(
                kind, n, d_key, load_one(scale), q + b * q_b + h * q_h, q_t,
                k + b * k_b + h * k_h, k_t, k_s, g + b * g_b + h * g_h, g_t, by_key,
                tile, count, TILE, reads, keys, erases, decays,
            )  # fmt: skip
            for block in range(first_block, end_block):
                n_lanes = min(LANES, d_value - LANES * block)
                state = states + VECTOR_BYTES * n_rows * block
                shift = LANES * block
                place = v + b * v_b + h * v_h + shift * width(kind)
                load_steps(
                    kind, n, n_lanes, place, v_t, v_s, tile, count, TILE, values, VECTOR_BYTES
                )
                place = beta + b * beta_b + h * beta_h + (4 * shift if by_value else 0)
                load_rates(by_value, n, n_lanes, place, beta_t, beta_s, tile, count, rates)
                for run in range(runs):
                    if fresh or run > 0:
                        clear(state, n_rows)
                    _run(
                        n, size, state, n_rows, count, decays, reads, keys, erases, values, rates,
                        outs, load_int(bounds + 4 * run), load_int(bounds + 4 * run + 4),
                    )  # fmt: skip
                place = out + b * out_b + h * out_h + shift * width(kind)
                store_steps(kind, 1, n_lanes, outs, VECTOR_BYTES, place, out_t, 0, tile, count)
                if error != 0:
                    place = error + b * error_b + h * error_h + 4 * shift
                    store_steps(
                        FLOAT32, n, n_lanes, values, VECTOR_BYTES, place, error_t, error_s,
                        tile, count,
                    )  # fmt: skip

        for block in range(first_block, end_block):
            n_lanes = min(LANES, d_value - LANES * block)
            state = states + VECTOR_BYTES * n_rows * block
            target = last + corner + VECTOR_BYTES * block
            store_block(state, d_key, n_lanes, target, 4 * d_value)
