"""The gated delta rule on a GPU, forward."""

# Triton compiles what is below: to a type checker its tiles are Python's values.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false
# pyright: reportOperatorIssue=false, reportPossiblyUnboundVariable=false, reportGeneralTypeIssues=false

import triton
import triton.language as tl

from tristate.kernels.delta.triton_tiles import (
    ends_of,
    held,
    meetings,
    rows_at,
    state_after,
    steps_of,
    strictly,
    written_by,
)
from tristate.kernels.triton.axes import axes_of, state_at
from tristate.kernels.triton.products import dot


@triton.jit
def forward(
    q, k, v, beta, g, segments, entering, out, leaving, kept,
    length, n, n_places, n_heads, d_key, d_value, n_blocks, n_tiles, scale,
    q_b, q_t, q_h, q_c, k_b, k_t, k_h, k_c, v_b, v_t, v_h, v_c,
    beta_b, beta_t, beta_h, beta_c, g_b, g_t, g_h, g_c, out_b, out_t, out_h, out_c,
    REVERSE: tl.constexpr, BY_KEY: tl.constexpr, BY_VALUE: tl.constexpr, KEPT: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_T: tl.constexpr, N_LEVELS: tl.constexpr,
):  # fmt: skip
    """A block of value channels of one head, ``n_tiles`` tiles of steps one after the other.

    A tile is the chunk of :mod:`tristate.kernels.delta.chunked`: products of matrices, and one
    triangular system. Without ``out`` only what the tiles do to a state is found: where they leave
    one that starts from zero; without ``v`` too, where they leave each column of the identity,
    which is by which matrix they multiply the state.

    All that has states is ``(..., H, K, V)``, dense, float32. ``kept``: those before each ``KEPT``
    tiles.

    COST: reads ``q``, ``k``, ``v``, ``beta``, ``g`` and writes ``out`` once: the least there is.
    Beyond it ``K / (KEPT BLOCK_T)`` numbers a step and value channel for ``kept``, of at least
    ``2 K`` steps: 1.13 times the least with float32 and as many keys as values, 1.25 in bfloat16;
    1.0 where no gradient is wanted. Blocks of value channels run side by side and find keys and
    queries in the second cache. A split sequence is read three times. Operations of a step and
    value channel: ``6 K + 4 T``, and for what a block shares ``4 T (K + 2 log2(T) T) / BLOCK_V``:
    1,344 for 128 channels in blocks of 32. On an H100, 16 heads of 131,072 steps in bfloat16 take
    0.7 ms at 3.35 TB/s; the matrix units need 1.2 ms at 989 TFLOP/s if they are full, since a
    product with float32 is three of bfloat16 or more: where heads fill the device, bound by these.
    """
    program, chunk = tl.program_id(0), tl.program_id(1)
    n_chunks = tl.num_programs(1)
    block = program % n_blocks
    head = program // n_blocks % n_heads
    b = (program // n_blocks // n_heads).to(tl.int64)
    far = head.to(tl.int64)
    k += b * k_b + far * k_h
    beta += b * beta_b + far * beta_h
    if v is not None:
        v += b * v_b + far * v_h
    if g is not None:
        g += b * g_b + far * g_h
    if out is not None:
        q += b * q_b + far * q_h
        out += b * out_b + far * out_h
    if segments is not None:
        segments += b * n_places
    here = ((b * n_chunks + chunk) * n_heads + head) * d_key * d_value
    at, inside = state_at(chunk, block, d_key, d_value, BLOCK_K, BLOCK_V)
    if v is None:
        _, key, _, value, _ = axes_of(chunk, block, d_key, d_value, BLOCK_T, BLOCK_K, BLOCK_V)
        state = tl.where(value[:, None] == key[None, :], 1.0, 0.0)
    elif entering is not None:
        state = tl.load(entering + here + at, mask=inside, other=0)
    else:
        state = tl.zeros([BLOCK_V, BLOCK_K], tl.float32)
    for i in tl.range(0, n_tiles, disable_licm=True):
        tile = chunk * n_tiles + i
        if kept is not None:
            n_kept = tl.cdiv(length * n, KEPT * BLOCK_T)
            to = ((b * n_kept + tile // KEPT) * n_heads + head) * d_key * d_value
            is_first = (tile % KEPT == 0) & (tile * BLOCK_T < length * n)
            at, inside = state_at(tile, block, d_key, d_value, BLOCK_K, BLOCK_V)
            tl.store(kept + to + at, state, mask=inside & is_first)
        (
            t, key, is_key, value, is_value,
            token, place, turn, there, real, segment, before, after, keys, log_decay, rates,
        ) = steps_of(
            tile, 0, block, k, beta, g, segments, length, n, d_key, d_value,
            k_t, k_c, beta_t, beta_c, g_t, g_c,
            REVERSE, BY_KEY, BY_VALUE, BLOCK_K, BLOCK_V, BLOCK_T,
        )  # fmt: skip
        if v is None:
            values = tl.zeros([BLOCK_T, BLOCK_V], tl.float32)
        else:
            values = rows_at(v, place, v_t, v_c, real, value, is_value).to(tl.float32)
        left_here, whole, left = ends_of(log_decay, segment, before, after, t, BY_KEY)
        wanted = values - held(keys, left_here, state, BY_KEY)
        finds = strictly(meetings(keys, keys, log_decay, segment, t, BY_KEY, BLOCK_T, BLOCK_K), t)
        written = written_by(wanted, rates, finds, t, BY_VALUE, BLOCK_T, N_LEVELS)
        if out is not None:
            reads = real & (turn == n - 1)
            query = rows_at(q, token, q_t, q_c, reads, key, is_key)
            y = held(query, left_here, state, BY_KEY)
            shows = meetings(query, keys, log_decay, segment, t, BY_KEY, BLOCK_T, BLOCK_K)
            y = scale * (y + dot(shows, written))
            if segments is not None:
                y = tl.where(real[:, None], y, 0)
            to = out + token[:, None] * out_t + value[None, :] * out_c
            mask = (there & (turn == n - 1))[:, None] & is_value[None, :]
            tl.store(to, y.to(out.dtype.element_ty), mask=mask)
        state = state_after(state, keys, written, whole, left, BY_KEY)
    at, inside = state_at(chunk + 1, block, d_key, d_value, BLOCK_K, BLOCK_V)
    tl.store(leaving + here + at, state, mask=inside)
