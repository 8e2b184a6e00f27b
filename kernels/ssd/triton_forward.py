"""Mamba-2's scan on a GPU, forward."""

# Triton compiles what is below: to a type checker its tiles are Python's values.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false
# pyright: reportOperatorIssue=false, reportPossiblyUnboundVariable=false

import triton
import triton.language as tl

from tristate.kernels.ssd.triton_tiles import rows_at, state_after, steps_at, store_rows
from tristate.kernels.triton.decays import (
    decay_before,
    decay_between,
    segment_after,
    segment_before,
)
from tristate.kernels.triton.functions import sigmoid
from tristate.kernels.triton.products import dot, long_dot


@triton.jit
def forward(
    x, dt, A, B, C, D, z, bias, segments, entering,
    out, leaving, decays, kept,
    length, n_places, n_heads, group_heads, width, n_states, n_blocks, n_tiles, least, most,
    x_b, x_t, x_h, x_p, dt_b, dt_t, dt_h, B_b, B_t, B_g, B_n, C_b, C_t, C_g, C_n,
    z_b, z_t, z_h, z_p, out_b, out_t, out_h, out_p, D_h, D_p,
    SOFTPLUS: tl.constexpr, REVERSE: tl.constexpr, KEPT: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """A block of channels of one head, ``n_tiles`` tiles of time one after the other.

    With the scores ``C[t] B[j]^T exp(sum of dt A between) dt[j]`` a tile is matrix products: of the
    scores with ``x``, of ``C`` with the state before the tile, of ``x`` with ``B`` for the state
    behind it. Without ``out`` only what the tiles do to a state is found: where they leave one that
    starts from zero, and by which number they multiply it (``decays``, one a head).

    All that has states is ``(..., H, P, N)``, dense, float32. ``kept``: the states before each
    ``KEPT`` tiles.

    COST: reads ``x``, ``dt``, ``z``, ``B``, ``C`` and writes ``out`` once: the least there is where
    each head has its own ``B`` and ``C``. Heads of a group run side by side and find theirs in the
    second cache. Beyond it ``N / (KEPT BLOCK_T)`` numbers a channel and step for ``kept``, of at
    least ``2 N`` steps: with float32, no gate, and ``B`` and ``C`` not counted, 1.25 times the
    least, 1.17 with a gate; in bfloat16 1.5 and 1.33; 1.0 where no gradient is wanted. A split
    sequence has ``x``, ``dt`` and ``B`` read twice. Operations of a channel and step: ``4 N`` for
    the states, which nothing avoids, and ``2 T (1 + N / BLOCK_P)`` for the scores: 672 with 64
    channels, 128 states and tiles of 16. On an H100, 64 heads of 64 channels and 131,072 steps in
    bfloat16 take 0.7 ms at 3.35 TB/s, and 0.9 ms of matrix units at 989 TFLOP/s if they are full: a
    product of bfloat16 with float32 is three, and all but the scores' are such.
    """
    program, chunk = tl.program_id(0), tl.program_id(1)
    n_chunks = tl.num_programs(1)
    head = program % n_heads
    block = program // n_heads % n_blocks
    b = (program // n_heads // n_blocks).to(tl.int64)
    group = head // group_heads
    t, n = tl.arange(0, BLOCK_T), tl.arange(0, BLOCK_N)
    p = block * BLOCK_P + tl.arange(0, BLOCK_P)
    is_channel, is_n = p < width, n < n_states
    is_state = is_channel[:, None] & is_n[None, :]
    x += b * x_b + head.to(tl.int64) * x_h
    dt += b * dt_b + head.to(tl.int64) * dt_h
    B += b * B_b + group.to(tl.int64) * B_g
    if out is not None:
        C += b * C_b + group.to(tl.int64) * C_g
        out += b * out_b + head.to(tl.int64) * out_h
        if z is not None:
            z += b * z_b + head.to(tl.int64) * z_h
        if D is not None:
            direct = tl.load(D + head * D_h + p * D_p, mask=is_channel, other=0)[None, :]
    if segments is not None:
        segments += b * n_places
    rate = tl.load(A + head)
    shift = 0.0
    if bias is not None:
        shift = tl.load(bias + head)
    state = p[:, None] * n_states + n[None, :]
    n_all = width * n_states
    here = ((b * n_chunks + chunk) * n_heads + head) * n_all
    h = tl.zeros([BLOCK_P, BLOCK_N], tl.float32)
    if entering is not None:
        h = tl.load(entering + here + state, mask=is_state, other=0)
    log_all = 0.0
    start = chunk * n_tiles * BLOCK_T
    before = 0
    if segments is not None:
        before = segment_before(segments, start)
    at_start = before
    for i in range(n_tiles):
        tile = chunk * n_tiles + i
        place = tile * BLOCK_T + t
        _, size, real, segment = steps_at(
            dt, dt_t, shift, segments, place, length, least, most, SOFTPLUS, REVERSE
        )
        log_decay = size * rate
        after = segment_after(segment, t, BLOCK_T)
        if kept is not None:
            n_kept = tl.cdiv(length, KEPT * BLOCK_T)
            to = ((b * n_kept + tile // KEPT) * n_heads + head) * n_all
            is_first = (tile % KEPT == 0) & (tile * BLOCK_T < length)
            tl.store(kept + to + state, h, mask=is_state & is_first)
        x_tile = rows_at(x, x_t, x_p, place, real, p, is_channel, length, REVERSE)
        B_tile = rows_at(B, B_t, B_n, place, real, n, is_n, length, REVERSE)
        if out is not None:
            C_tile = rows_at(C, C_t, C_n, place, real, n, is_n, length, REVERSE)
            # First the wide product: Triton lays the warps out for all by the first one's shape.
            y = decay_before(log_decay, segment, before)[:, None] * long_dot(C_tile, tl.trans(h))
            scores = long_dot(C_tile, tl.trans(B_tile)) * decay_between(log_decay, segment, t)
            y += dot(scores * size[None, :], x_tile)
            if D is not None:
                y += direct * x_tile.to(tl.float32)
            if z is not None:
                gate = rows_at(z, z_t, z_p, place, real, p, is_channel, length, REVERSE)
                gate = gate.to(tl.float32)
                y *= gate * sigmoid(gate)
            if segments is not None:
                y = tl.where(real[:, None], y, 0)
            store_rows(out, out_t, out_p, place, p, is_channel, y, length, REVERSE)
        h = state_after(h, x_tile, B_tile, size, log_decay, segment, before, after, t)
        log_all += tl.sum(log_decay, 0)
        before = after
    tl.store(leaving + here + state, h, mask=is_state)
    if decays is not None:
        kept_all = tl.where(at_start == before, tl.exp(log_all), 0)
        tl.store(decays + (b * n_chunks + chunk) * n_heads + head, kept_all)
