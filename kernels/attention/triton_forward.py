"""Linear attention on a GPU, forward."""

# Triton compiles what is below: to a type checker its tiles are Python's values.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false
# pyright: reportOperatorIssue=false, reportPossiblyUnboundVariable=false, reportGeneralTypeIssues=false

import triton
import triton.language as tl

from tristate.kernels.attention.triton_tiles import (
    EARLIER,
    UPTO,
    held,
    left_whole,
    meetings,
    rows_at,
    take_state_on,
    tokens_of,
)
from tristate.kernels.triton.axes import once, piece_of, tiles_from, uncounted
from tristate.kernels.triton.memory import put_state, state_at
from tristate.kernels.triton.products import dot
from tristate.kernels.triton.triangular import unit_inverse


@triton.jit
def solved(
    tile, time, finds, moves, g, segments, length, d_key,
    REVERSE: tl.constexpr, BY_KEY: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_T: tl.constexpr, N_LEVELS: tl.constexpr,
):  # fmt: skip
    """What turns what tokens find of what others brought into what they find of all, ``(T, T)``.

    For what is found changes the state for the tokens behind.
    """
    met = meetings(
        tile, time, finds, moves, g, segments, length, d_key,
        True, REVERSE, BY_KEY, BLOCK_K, BLOCK_T,
    )  # fmt: skip
    t, _place, _there, _real, _segment, _before, _after = tokens_of(
        tile, time, segments, length, REVERSE, BLOCK_T
    )
    return unit_inverse(-met, t, BLOCK_T, N_LEVELS)


@triton.jit
def add_met(
    found, tile, time, j, left, right, values, g, segments, length, d_key, d_value,
    BEFORE: tl.constexpr, REVERSE: tl.constexpr, BY_KEY: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """Adds what a tile's tokens find of the values of others in it, of their ``j``-th piece."""
    for turn in tl.range(0, once(tile), disable_licm=True):
        met = meetings(
            tile, time + turn, left, right, g, segments, length, d_key,
            BEFORE, REVERSE, BY_KEY, BLOCK_K, BLOCK_T,
        )  # fmt: skip
        _t, place, _there, real, _segment, _before, _after = tokens_of(
            tile, time + turn, segments, length, REVERSE, BLOCK_T
        )
        value, is_value = piece_of(tile + turn, j, d_value, BLOCK_V)
        found += dot(met, rows_at(values, place, real, value, is_value))
    return found


@triton.jit
def forward(
    q, k, v, g, a, b, segments, entering, out, leaving, decays, kept,
    length, n_places, n_heads, d_key, d_value, n_blocks, n_tiles, scale,
    q_b, q_t, q_h, q_c, k_b, k_t, k_h, k_c, v_b, v_t, v_h, v_c, g_b, g_t, g_h, g_c,
    a_b, a_t, a_h, a_c, b_b, b_t, b_h, b_c,
    REVERSE: tl.constexpr, BEFORE: tl.constexpr, BY_KEY: tl.constexpr, KEPT: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_T: tl.constexpr, N_LEVELS: tl.constexpr,
):  # fmt: skip
    """A block of value channels of one head, ``n_tiles`` tiles of tokens one after the other.

    A tile is the chunk of :mod:`tristate.kernels.attention.chunked`: products of matrices, and with
    an ``a`` one triangular system. Without ``out`` only what the tiles do to a state is found:
    where they leave one that starts from zero, and by what they multiply it (``decays``); without
    ``v`` too, where they leave each column of the identity.

    All that has states is ``(..., H, K, V)``, dense, float32. The state is worked on in
    ``leaving``. ``kept``: those before each ``KEPT`` tiles.

    COST: reads ``q``, ``k``, ``v`` and what there is of ``g``, ``a``, ``b``, and writes ``out``
    once: the least there is. Beyond it ``K / (KEPT BLOCK_T)`` numbers a token and value channel for
    ``kept``, at most half a one: 1.13 times the least with float32, no gate and as many keys as
    values, 1.25 in 16 bits; 1.0 where no gradient is wanted. Blocks of value channels run side by
    side and find the rest in the second cache. A split sequence is read twice, with an ``a`` three
    times. Operations of a token and value channel: ``4 K + 2 T``, with an ``a`` ``8 K + 8 T``; and
    for what a block shares ``2 T K / BLOCK_V``, with an ``a`` ``(8 K + 16 T) T / BLOCK_V``. On an
    H100, 16 heads of 64 keys and values of 131,072 tokens in bfloat16 take 0.3 ms at 3.35 TB/s, and
    0.2 ms of matrix units at 989 TFLOP/s if they are full: a product with float32 is six of
    bfloat16. The state is read or written in the caches three or four times a tile, ``16 K /
    BLOCK_T`` bytes a token and value channel: that bounds it where the first cache doesn't hold a
    block's state.
    """
    program, chunk = tl.program_id(0), tl.program_id(1)
    n_chunks = tl.num_programs(1)
    block, head = program % n_blocks, program // n_blocks % n_heads
    batch, far = (program // n_blocks // n_heads).to(tl.int64), head.to(tl.int64)
    keys = k + batch * k_b + far * k_h, k_t, k_c
    queries, values, gate = (q, q_t, q_c), (v, v_t, v_c), (g, g_t, g_c)
    finds, moves = (a, a_t, a_c), (b, b_t, b_c)
    if v is not None:
        values = v + batch * v_b + far * v_h, v_t, v_c
    if g is not None:
        gate = g + batch * g_b + far * g_h, g_t, g_c
    if a is not None:
        finds = a + batch * a_b + far * a_h, a_t, a_c
        moves = b + batch * b_b + far * b_h, b_t, b_c
    if out is not None:
        queries = q + batch * q_b + far * q_h, q_t, q_c
    if segments is not None:
        segments += batch * n_places
    here = (batch * n_chunks + chunk) * n_heads + head
    state = leaving + here * d_key * d_value
    if v is None:
        for i in tl.range(0, tl.cdiv(d_key, BLOCK_K), disable_licm=True):
            at, inside = state_at(chunk, i, block, d_key, d_value, BLOCK_K, BLOCK_V)
            key, _ = piece_of(chunk, i, d_key, BLOCK_K)
            value, _ = piece_of(chunk, block, d_value, BLOCK_V)
            tl.store(state + at, tl.where(value[:, None] == key[None, :], 1.0, 0.0), mask=inside)
        tl.debug_barrier()
    else:
        first = None if entering is None else entering + here * d_key * d_value
        put_state(first, state, True, chunk, block, 1, d_key, d_value, BLOCK_K, BLOCK_V)
    n_here = tiles_from(chunk * n_tiles, n_tiles, length, BLOCK_T)
    for i in tl.range(0, n_here, disable_licm=True):
        tile = chunk * n_tiles + uncounted(i, d_value)
        # Whether states are kept is known to the compiler, the tile isn't.
        if kept is not None:  # noqa: SIM102
            if (tile % KEPT == 0) & (tile * BLOCK_T < length):
                n_kept = tl.cdiv(length, KEPT * BLOCK_T)
                to = kept + ((batch * n_kept + tile // KEPT) * n_heads + head) * d_key * d_value
                put_state(state, to, True, tile, block, 1, d_key, d_value, BLOCK_K, BLOCK_V)
        found = None
        if a is not None:
            found = held(
                tile, 0, block, finds, gate, state, segments, length, d_key, d_value,
                EARLIER, REVERSE, BY_KEY, BLOCK_K, BLOCK_V, BLOCK_T,
            )  # fmt: skip
            if v is not None:
                found = add_met(
                    found, tile, 1, block, finds, keys, values, gate, segments, length, d_key,
                    d_value, True, REVERSE, BY_KEY, BLOCK_K, BLOCK_V, BLOCK_T,
                )  # fmt: skip
            inverse = solved(
                tile, 2, finds, moves, gate, segments, length, d_key,
                REVERSE, BY_KEY, BLOCK_K, BLOCK_T, N_LEVELS,
            )  # fmt: skip
            found = dot(inverse, found)
        if out is not None:
            y = held(
                tile, 3, block, queries, gate, state, segments, length, d_key, d_value,
                EARLIER if BEFORE else UPTO, REVERSE, BY_KEY, BLOCK_K, BLOCK_V, BLOCK_T,
            )  # fmt: skip
            y = add_met(
                y, tile, 4, block, queries, keys, values, gate, segments, length, d_key,
                d_value, BEFORE, REVERSE, BY_KEY, BLOCK_K, BLOCK_V, BLOCK_T,
            )  # fmt: skip
            if a is not None:
                shows = meetings(
                    tile, 5, queries, moves, gate, segments, length, d_key,
                    BEFORE, REVERSE, BY_KEY, BLOCK_K, BLOCK_T,
                )  # fmt: skip
                y += dot(shows, found)
            _t, place, there, _real, _segment, _before, _after = tokens_of(
                tile, 6, segments, length, REVERSE, BLOCK_T
            )
            value, is_value = piece_of(tile + 6, block, d_value, BLOCK_V)
            to = out + ((batch * length + place) * n_heads + head)[:, None] * d_value
            mask = there[:, None] & is_value[None, :]
            tl.store(to + value[None, :], (scale * y).to(out.dtype.element_ty), mask=mask)
        brings = None
        if v is not None:
            _t, place, _there, real, _segment, _before, _after = tokens_of(
                tile, 7, segments, length, REVERSE, BLOCK_T
            )
            value, is_value = piece_of(tile + 7, block, d_value, BLOCK_V)
            brings = rows_at(values, place, real, value, is_value)
        take_state_on(
            tile, block, brings, found, keys, moves, gate, state, segments,
            length, d_key, d_value, REVERSE, BY_KEY, BLOCK_K, BLOCK_V, BLOCK_T,
        )  # fmt: skip
    if decays is not None:
        n_keys = d_key if BY_KEY else 1
        leave_decays(
            decays + here * n_keys, chunk * n_tiles, n_tiles, gate, segments, length, n_keys,
            REVERSE, BY_KEY, BLOCK_K, BLOCK_T,
        )  # fmt: skip


@triton.jit
def leave_decays(
    decays, first, n_tiles, g, segments, length, n_keys,
    REVERSE: tl.constexpr, BY_KEY: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """Write down what is left, behind all of a program's tiles, of the state before them."""
    for i in tl.range(0, tl.cdiv(n_keys, BLOCK_K), disable_licm=True):
        left = tl.full([1, BLOCK_K if BY_KEY else 1], 1, tl.float32)
        for tile in tl.range(first, first + n_tiles, disable_licm=True):
            left *= left_whole(
                tile, i, i, g, segments, length, n_keys, REVERSE, BY_KEY, BLOCK_K, BLOCK_T
            )
        if BY_KEY:
            key, is_key = piece_of(first, i, n_keys, BLOCK_K)
            tl.store(decays + key[None, :], left, mask=is_key[None, :])
        else:
            tl.store(decays + tl.arange(0, 1)[None, :], left)
