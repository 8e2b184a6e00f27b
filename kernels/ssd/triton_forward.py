"""Mamba-2's scan on a GPU, forward."""

# Triton compiles what is below: to a type checker its tiles are Python's values.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false
# pyright: reportOperatorIssue=false, reportPossiblyUnboundVariable=false, reportGeneralTypeIssues=false

import triton
import triton.language as tl

from tristate.kernels.ssd.triton_scores import add_earlier
from tristate.kernels.ssd.triton_tiles import rows_at, store_rows, tile_at
from tristate.kernels.ssd.triton_walk import state_after
from tristate.kernels.triton.axes import lanes, tiles_from
from tristate.kernels.triton.decays import decay_before
from tristate.kernels.triton.functions import sigmoid
from tristate.kernels.triton.products import dot


@triton.jit
def forward(
    x, sizes, A, B, C, D, z, segments, state, out, kept,
    length, n_places, n_heads, group_heads, width, n_states, n_blocks, n_tiles,
    x_b, x_t, x_h, x_p, B_b, B_t, B_g, B_n, C_b, C_t, C_g, C_n,
    z_b, z_t, z_h, z_p, out_b, out_t, out_h, out_p, D_h, D_p,
    REVERSE: tl.constexpr, KEPT: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """A block of channels of one head, ``n_tiles`` tiles of time one after the other.

    With the scores ``C[t] B[j]^T exp(sum of dt A between) dt[j]`` a tile is matrix products: of the
    scores with ``x``, of ``C`` with the state before the tile, of ``x`` with ``B`` for the state
    behind it. The state is ``BLOCK_N`` of its ``N`` columns at a time in registers, and in memory
    between tiles: ``state`` is what enters each chunk, and afterwards what leaves it.

    All that has states is ``(..., H, P, N)``, dense, float32. ``kept``: the states before each
    ``KEPT`` tiles.

    COST: reads ``x``, ``sizes``, ``z``, ``B``, ``C`` and writes ``out`` once: the least there is
    where each head has its own ``B`` and ``C``. Heads of a group, and blocks of a head, run side by
    side and find theirs in the second cache. Beyond it ``N / (KEPT BLOCK_T)`` numbers a channel and
    step for ``kept``, of at least ``4 N`` steps: with float32, no gate, and ``B`` and ``C`` not
    counted, 1.13 times the least, 1.08 with a gate; in bfloat16 1.25 and 1.17; 1.0 where no
    gradient is wanted. A split sequence has ``x``, ``sizes`` and ``B`` read twice. ``state`` is 16
    KB a program with 32 channels and 128 states: written over and over it stays in the second
    cache, and is read and written there once a tile: ``2 N / T`` numbers a channel and step.
    Operations of a channel and step: ``4 N`` for the states, which nothing avoids, and ``2 T (1 +
    N / BLOCK_P)`` for the scores: 1152 with 32 channels, 128 states and tiles of 64. On an H100, 64
    heads of 64 channels and 131,072 steps in bfloat16 take 0.8 ms at 3.35 TB/s, and 1.3 ms of
    matrix units at 989 TFLOP/s if they are full: a product of bfloat16 with float32 is three, and
    all but the scores' are such.
    """
    program, chunk = tl.program_id(0), tl.program_id(1)
    n_chunks = tl.num_programs(1)
    head = program % n_heads
    block = program // n_heads % n_blocks
    b = (program // n_heads // n_blocks).to(tl.int64)
    group = head // group_heads
    lane = tl.arange(0, BLOCK_N)
    x += b * x_b + head.to(tl.int64) * x_h
    sizes += (b * n_heads + head) * length
    B += b * B_b + group.to(tl.int64) * B_g
    C += b * C_b + group.to(tl.int64) * C_g
    out += b * out_b + head.to(tl.int64) * out_h
    if z is not None:
        z += b * z_b + head.to(tl.int64) * z_h
    if segments is not None:
        segments += b * n_places
    rate = tl.load(A + head)
    n_all = width * n_states
    state += ((b * n_chunks + chunk) * n_heads + head) * n_all
    n_kept = tl.cdiv(length, KEPT * BLOCK_T)
    for i in tl.range(0, tiles_from(chunk * n_tiles, n_tiles, length, BLOCK_T), disable_licm=True):
        tile = chunk * n_tiles + i
        p = block * BLOCK_P + lanes(tile, BLOCK_P)
        is_channel = p < width
        place, _, real, log_decay, segment, before, after = tile_at(
            tile, sizes, rate, segments, length, BLOCK_T
        )
        is_kept = (tile % KEPT == 0) & (tile * BLOCK_T < length)
        to = ((b * n_kept + tile // KEPT) * n_heads + head) * n_all
        y = tl.zeros([BLOCK_T, BLOCK_P], tl.float32)
        for first in tl.range(0, n_states, BLOCK_N, disable_licm=True):
            n = first + lane
            is_n = n < n_states
            at = p[:, None] * n_states + n[None, :]
            inside = is_channel[:, None] & is_n[None, :]
            h = tl.load(state + at, mask=inside, other=0)
            if kept is not None:
                tl.store(kept + to + at, h, mask=inside & is_kept)
            C_tile = rows_at(C, C_t, C_n, place, real, n, is_n, length, REVERSE)
            y += dot(C_tile, tl.trans(h))
            h = state_after(
                h, tile, x, x_t, x_p, B, B_t, B_n, p, is_channel, n, is_n,
                place, log_decay, before, after, sizes, segments, length, REVERSE, BLOCK_T,
            )  # fmt: skip
            tl.store(state + at, h, mask=inside)
        # What other threads of the program have written is read by the next tile.
        tl.debug_barrier()
        y *= decay_before(log_decay, segment, before)[:, None]
        y = add_earlier(
            y, tile, x, x_t, x_p, B, B_t, B_n, C, C_t, C_n, p, is_channel, n_states, log_decay,
            place, real, segment, sizes, segments, length,
            REVERSE, BLOCK_T,
        )  # fmt: skip
        x_tile = rows_at(x, x_t, x_p, place, real, p, is_channel, length, REVERSE)
        if D is not None:
            direct = tl.load(D + head * D_h + p * D_p, mask=is_channel, other=0)[None, :]
            y += direct * x_tile.to(tl.float32)
        if z is not None:
            gate = rows_at(z, z_t, z_p, place, real, p, is_channel, length, REVERSE).to(tl.float32)
            y *= gate * sigmoid(gate)
        if segments is not None:
            y = tl.where(real[:, None], y, 0)
        store_rows(out, out_t, out_p, place, p, is_channel, y, length, REVERSE)
