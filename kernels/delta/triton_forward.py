"""The gated delta rule on a GPU, forward."""

# Triton compiles what is below: to a type checker its tiles are Python's values.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false
# pyright: reportOperatorIssue=false, reportPossiblyUnboundVariable=false, reportGeneralTypeIssues=false

import triton
import triton.language as tl

from tristate.kernels.delta.triton_tiles import (
    held,
    inverse_of,
    meetings,
    rates_of,
    rows_at,
    steps_of,
    take_state_on,
    written_by,
)
from tristate.kernels.triton.axes import once, piece_of, tiles_from, uncounted
from tristate.kernels.triton.memory import put_state, state_at
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

    All that has states is ``(..., H, K, V)``, dense, float32. The state is worked on in
    ``leaving``. ``kept``: those before each ``KEPT`` tiles.

    COST: reads ``q``, ``k``, ``v``, ``beta``, ``g`` and writes ``out`` once: the least there is.
    Beyond it ``K / (KEPT BLOCK_T)`` numbers a step and value channel for ``kept``, of at least
    ``2 K`` steps: 1.13 times the least with float32 and as many keys as values, 1.25 in bfloat16;
    1.0 where no gradient is wanted. Blocks of value channels run side by side and find keys and
    queries in the second cache. A split sequence is read three times. Operations of a step and
    value channel: ``6 K + 4 T``, and for what a block shares ``4 T (K + 3 T) / BLOCK_V``: 1,184
    for 128 channels in blocks of 32. On an H100, 16 heads of 131,072 steps in bfloat16 take
    0.7 ms at 3.35 TB/s; the matrix units need 1.0 ms at 989 TFLOP/s if they are full, since a
    product with float32 is three of bfloat16 or more. The state is read or written in the caches
    four times a tile, ``16 K / BLOCK_T`` bytes a step and value channel, 34 GB there: that bounds
    it where the first cache doesn't hold the 16 KB of a block.
    """
    program, chunk = tl.program_id(0), tl.program_id(1)
    n_chunks = tl.num_programs(1)
    block = program % n_blocks
    head = program // n_blocks % n_heads
    b = (program // n_blocks // n_heads).to(tl.int64)
    far = head.to(tl.int64)
    keys = k + b * k_b + far * k_h, k_t, k_c
    rate = beta + b * beta_b + far * beta_h, beta_t, beta_c
    queries, gate, values = (q, q_t, q_c), (g, g_t, g_c), (v, v_t, v_c)
    if v is not None:
        values = v + b * v_b + far * v_h, v_t, v_c
    if g is not None:
        gate = g + b * g_b + far * g_h, g_t, g_c
    if out is not None:
        queries = q + b * q_b + far * q_h, q_t, q_c
        out += b * out_b + far * out_h
    if segments is not None:
        segments += b * n_places
    here = ((b * n_chunks + chunk) * n_heads + head) * d_key * d_value
    state = leaving + here
    if v is None:
        for i in tl.range(0, tl.cdiv(d_key, BLOCK_K), disable_licm=True):
            at, inside = state_at(chunk, i, block, d_key, d_value, BLOCK_K, BLOCK_V)
            key, _ = piece_of(chunk, i, d_key, BLOCK_K)
            value, _ = piece_of(chunk, block, d_value, BLOCK_V)
            tl.store(state + at, tl.where(value[:, None] == key[None, :], 1.0, 0.0), mask=inside)
        tl.debug_barrier()
    else:
        first = None if entering is None else entering + here
        put_state(first, state, True, chunk, block, 1, d_key, d_value, BLOCK_K, BLOCK_V)
    n_here = tiles_from(chunk * n_tiles, n_tiles, length * n, BLOCK_T)
    for i in tl.range(0, n_here, disable_licm=True):
        tile = chunk * n_tiles + uncounted(i, d_value)
        # Whether states are kept is known to the compiler, the tile isn't.
        if kept is not None:  # noqa: SIM102
            if (tile % KEPT == 0) & (tile * BLOCK_T < length * n):
                n_kept = tl.cdiv(length * n, KEPT * BLOCK_T)
                to = kept + ((b * n_kept + tile // KEPT) * n_heads + head) * d_key * d_value
                put_state(state, to, True, tile, block, 1, d_key, d_value, BLOCK_K, BLOCK_V)
        seen = held(
            tile, 0, block, keys, keys, gate, state, segments, length, n, d_key, d_value,
            False, False, REVERSE, BY_KEY, BLOCK_K, BLOCK_V, BLOCK_T,
        )  # fmt: skip
        finds = meetings(
            tile, 1, keys, keys, gate, segments, length, n, d_key,
            False, REVERSE, BY_KEY, BLOCK_K, BLOCK_T,
        )  # fmt: skip
        written = tl.zeros([BLOCK_T, BLOCK_V], tl.float32)
        for again in tl.range(0, once(tile), disable_licm=True):
            t, _token, place, _turn, _there, real, _segment, _before, _after = steps_of(
                tile, 2 + again, segments, length, n, REVERSE, BLOCK_T
            )
            value, is_value = piece_of(tile, block, d_value, BLOCK_V)
            wanted = -seen
            if v is not None:
                wanted += rows_at(values, place, real, value, is_value).to(tl.float32)
            rates = rates_of(rate, place, real, value, is_value, BY_VALUE)
            inverse = inverse_of(finds, rates, t, BY_VALUE, BLOCK_T, N_LEVELS)
            written += written_by(wanted, rates, finds, inverse, t, BY_VALUE, BLOCK_T)
        if out is not None:
            y = tl.zeros([BLOCK_T, BLOCK_V], tl.float32)
            for again in tl.range(0, once(tile), disable_licm=True):
                shows = meetings(
                    tile, 3 + again, queries, keys, gate, segments, length, n, d_key,
                    True, REVERSE, BY_KEY, BLOCK_K, BLOCK_T,
                )  # fmt: skip
                y += dot(shows, written)
            y += held(
                tile, 4, block, queries, keys, gate, state, segments, length, n, d_key, d_value,
                True, False, REVERSE, BY_KEY, BLOCK_K, BLOCK_V, BLOCK_T,
            )  # fmt: skip
            y *= scale
            _t, token, _place, turn, there, real, _segment, _before, _after = steps_of(
                tile, 5, segments, length, n, REVERSE, BLOCK_T
            )
            value, is_value = piece_of(tile + 5, block, d_value, BLOCK_V)
            if segments is not None:
                y = tl.where(real[:, None], y, 0)
            to = out + token[:, None] * out_t + value[None, :] * out_c
            mask = (there & (turn == n - 1))[:, None] & is_value[None, :]
            tl.store(to, y.to(out.dtype.element_ty), mask=mask)
        take_state_on(
            tile, 6, block, written, keys, gate, state, segments, length, n, d_key, d_value,
            REVERSE, BY_KEY, BLOCK_K, BLOCK_V, BLOCK_T,
        )  # fmt: skip
