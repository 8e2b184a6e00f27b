"""The scan of Mamba-2 on a CPU: forward.

Time goes in tiles, through which a block of heads passes whose states the second cache holds; lanes
are 16 channels of a head. A position's own part of its output, ``step (C . B) x``, is added where
``D x`` is.
"""

import numpy as np

from tristate.kernels.cpu.functions import LOG2_E, silu
from tristate.kernels.cpu.tiles import FLOAT32, load_lanes, load_tile, store_tile
from tristate.kernels.cpu.vector import (
    LANES,
    VECTOR_BYTES,
    add,
    fma,
    jit,
    load,
    load_one,
    mul,
    routine,
    splat,
    store,
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
    blank,
    blocks,
    clear,
    count_up,
    load_rows,
    load_state,
    numbers,
    pack,
    prepare,
    quads,
    run,
    store_state,
)


@routine
def load_weights(
    B, B_n, B_t, C, C_n, C_t, n_states, tile, count, line, seq_t, B_rows, C_rows, sums, B_quads,
    C_quads, products,
):  # fmt: skip
    """A tile's B and C in fours, and their products ``C . B``."""
    clear(sums, sums + VECTOR_BYTES * TILE)
    for block in range(blocks(n_states)):
        n, at = LANES * block, 4 * QUADS * block
        lanes = min(LANES, n_states - n)
        load_rows(FLOAT32, B + n * B_n, B_n, B_t, tile, count, lanes, B_rows, line, seq_t)
        load_rows(FLOAT32, C + n * C_n, C_n, C_t, tile, count, lanes, C_rows, line, seq_t)
        pack(B_rows, count, B_quads + at)
        pack(C_rows, count, C_quads + at)
        add_products(B_rows, C_rows, sums, count)
    add_lanes(sums, count, products)


@routine
def _enter(x, rows, sums, weights, count):
    """What enters the state, and sums of zero."""
    for i in range(count):
        row = VECTOR_BYTES * i
        store(rows + row, mul(load(x + row), splat(load_one(weights + 4 * i))))
        store(sums + row, splat(np.float32(0)))


@routine
def _leave(x, sums, scales, steps, products, skip, count):
    """The output, before the gate: ``P sums + (D + step C . B) x``."""
    for i in range(count):
        row, place = VECTOR_BYTES * i, 4 * i
        own = splat(load_one(steps + place) * load_one(products + place))
        y = mul(load(sums + row), splat(load_one(scales + place)))
        store(sums + row, fma(load(x + row), add(skip, own), y))


@jit
def forward(
    task, n_tasks, kind, batch, length, n_heads, per_block, per_group, width, n_states,
    x, x_b, x_t, x_h, x_p, z, z_b, z_t, z_h, z_p, out, out_b, out_t, out_h, out_p,
    y, y_b, y_t, y_h, y_p, dt, dt_b, dt_t, dt_h, B, B_b, B_t, B_g, B_n, C, C_b, C_t, C_g, C_n,
    A, D, D_h, D_p, bias, initial, last, kept, seq, seq_b, seq_t, with_softplus, limits,
    scratch, scratch_bytes,
):  # fmt: skip
    """One task's share of the sequences' blocks of ``per_block`` heads.

    Address 0 stands for what is absent; ``limits`` holds the least and the largest step. ``kept``
    takes the states before each chunk, ``(B, H, chunks, P, N)``.
    """
    base = scratch + task * scratch_bytes
    steps, _, scales, _, weights, _, tile, bounds, firsts, lasts = numbers(base)
    products = base + PREPARED
    skip = products + NUMBERS
    x_rows = skip + VECTOR_BYTES
    entering, sums, B_rows = x_rows + ROWS, x_rows + 2 * ROWS, x_rows + 3 * ROWS
    C_rows = x_rows + 4 * ROWS
    B_quads = x_rows + 5 * ROWS
    C_quads = B_quads + 4 * QUADS * blocks(n_states)
    states = C_quads + 4 * QUADS * blocks(n_states)
    n_quads = quads(n_states)
    block_bytes = 4 * VECTOR_BYTES * n_quads
    head_bytes, state_bytes = blocks(width) * block_bytes, 4 * width * n_states
    least, most = load_one(limits), load_one(limits + 4)
    n_chunks = (length + CHUNK * TILE - 1) // (CHUNK * TILE)
    count_up(tile)
    head_blocks = (n_heads + per_block - 1) // per_block
    items = batch * head_blocks
    for item in range(task * items // n_tasks, (task + 1) * items // n_tasks):
        b, first_head = item // head_blocks, item % head_blocks * per_block
        end_head = min(n_heads, first_head + per_block)
        for h in range(first_head, end_head):
            place = initial + (b * n_heads + h) * state_bytes if initial != 0 else 0
            load_state(place, width, n_states, False, states + (h - first_head) * head_bytes)
        segment = np.int32(-1)
        for first in range(0, length, TILE):
            count = min(TILE, length - first)
            line = seq + b * seq_b + first * seq_t if seq != 0 else 0
            before, group = segment, -1
            for h in range(first_head, end_head):
                if h // per_group != group:
                    group = h // per_group
                    load_weights(
                        B + b * B_b + first * B_t + group * B_g, B_n, B_t,
                        C + b * C_b + first * C_t + group * C_g, C_n, C_t, n_states, tile, count,
                        line, seq_t, B_rows, C_rows, sums, B_quads, C_quads, products,
                    )  # fmt: skip
                rate, shift = load_one(A + 4 * h) * LOG2_E, np.float32(0)
                if bias != 0:
                    shift = load_one(bias + 4 * h)
                place = dt + b * dt_b + h * dt_h + first * dt_t
                runs, segment = prepare(
                    place, dt_t, count, shift, rate, with_softplus, least, most, line, seq_t,
                    before, base,
                )  # fmt: skip
                own = states + (h - first_head) * head_bytes
                if kept != 0 and first % (CHUNK * TILE) == 0:
                    place = (b * n_heads + h) * n_chunks + first // (CHUNK * TILE)
                    store_state(own, width, n_states, False, kept + place * state_bytes)
                for block in range(blocks(width)):
                    p = LANES * block
                    lanes = min(LANES, width - p)
                    source = x + b * x_b + first * x_t + h * x_h + p * x_p
                    load_rows(kind, source, x_p, x_t, tile, count, lanes, x_rows, line, seq_t)
                    _enter(x_rows, entering, sums, weights, count)
                    run(
                        n_quads, own + block * block_bytes, entering, B_quads, C_quads, sums,
                        bounds, runs, firsts, lasts, False,
                    )  # fmt: skip
                    clear(skip, skip + VECTOR_BYTES)
                    if D != 0:
                        load_lanes(D + h * D_h + p * D_p, D_p, lanes, skip, np.float32(1))
                    _leave(x_rows, sums, scales, steps, products, load(skip), count)
                    if y != 0:
                        target = y + b * y_b + first * y_t + h * y_h + p * y_p
                        store_tile(FLOAT32, sums, target, y_p, y_t, tile, count, lanes)
                    if z != 0:
                        source = z + b * z_b + first * z_t + h * z_h + p * z_p
                        load_tile(kind, source, z_p, z_t, tile, count, lanes, x_rows)
                        for row in range(0, VECTOR_BYTES * count, VECTOR_BYTES):
                            store(sums + row, mul(load(sums + row), silu(load(x_rows + row))))
                    blank(sums, count, line, seq_t)
                    target = out + b * out_b + first * out_t + h * out_h + p * out_p
                    store_tile(kind, sums, target, out_p, out_t, tile, count, lanes)
        for h in range(first_head, end_head):
            place = last + (b * n_heads + h) * state_bytes
            store_state(states + (h - first_head) * head_bytes, width, n_states, False, place)
