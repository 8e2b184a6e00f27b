"""Linear attention on a GPU, forward."""

# Triton compiles what is below: to a type checker its tiles are Python's values.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false
# pyright: reportOperatorIssue=false, reportPossiblyUnboundVariable=false, reportGeneralTypeIssues=false

import triton
import triton.language as tl

from tristate.kernels.attention.triton_tiles import ends_of, meetings, rows_at, tokens_of, under
from tristate.kernels.triton.axes import axes_of, lanes, state_at
from tristate.kernels.triton.products import dot
from tristate.kernels.triton.triangular import unit_inverse


@triton.jit
def found_in(
    seen, finds, keys, moves, values, logs, segment, t, n_steps,
    BY_KEY: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_K: tl.constexpr, N_LEVELS: tl.constexpr,
):  # fmt: skip
    """What a tile's tokens find in the states before them, which what was found has changed.

    ``seen`` is what they find of the state before the tile.
    """
    inside = meetings(finds, moves, logs, segment, t, n_steps, True, BY_KEY, BLOCK_T, BLOCK_K)
    inverse = unit_inverse(-inside, t, BLOCK_T, N_LEVELS)
    written = meetings(finds, keys, logs, segment, t, n_steps, True, BY_KEY, BLOCK_T, BLOCK_K)
    return dot(inverse, seen + dot(written, values))


@triton.jit
def forward(
    q, k, v, g, a, b, segments, entering, out, leaving, decays, kept,
    length, n_places, n_heads, d_key, d_value, n_blocks, n_tiles, n_steps, scale,
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

    All that has states is ``(..., H, K, V)``, dense, float32. ``kept``: those before each ``KEPT``
    tiles.

    COST: reads ``q``, ``k``, ``v`` and what there is of ``g``, ``a``, ``b``, and writes ``out``
    once: the least there is. Beyond it ``K / (KEPT BLOCK_T)`` numbers a token and value channel for
    ``kept``, at most half a one: 1.13 times the least with float32, no gate and as many keys as
    values, 1.25 in 16 bits; 1.0 where no gradient is wanted. Blocks of value channels run side by
    side and find the rest in the second cache. A split sequence is read twice, with an ``a`` three
    times. Operations of a token and value channel: ``4 K + 2 T``, with an ``a`` ``8 K + 8 T``; and
    for what all share ``2 T K / V`` a table, by key with as many exponentials. On an H100, 16 heads
    of 64 keys and values of 131,072 tokens in bfloat16 take 0.3 ms at 3.35 TB/s, and 0.2 ms of
    matrix units at 989 TFLOP/s if they are full: a product with float32 is six of bfloat16.
    """
    program, chunk = tl.program_id(0), tl.program_id(1)
    n_chunks = tl.num_programs(1)
    block, head = program % n_blocks, program // n_blocks % n_heads
    batch, far = (program // n_blocks // n_heads).to(tl.int64), head.to(tl.int64)
    k += batch * k_b + far * k_h
    if v is not None:
        v += batch * v_b + far * v_h
    if g is not None:
        g += batch * g_b + far * g_h
    if a is not None:
        a += batch * a_b + far * a_h
        b += batch * b_b + far * b_h
    if out is not None:
        q += batch * q_b + far * q_h
    if segments is not None:
        segments += batch * n_places
    here = (batch * n_chunks + chunk) * n_heads + head
    at, inside = state_at(chunk, block, d_key, d_value, BLOCK_K, BLOCK_V)
    if v is None:
        _, key, _, value, _ = axes_of(chunk, block, d_key, d_value, BLOCK_T, BLOCK_K, BLOCK_V)
        state = tl.where(value[:, None] == key[None, :], 1.0, 0.0)
    elif entering is not None:
        state = tl.load(entering + here * d_key * d_value + at, mask=inside, other=0)
    else:
        state = tl.zeros([BLOCK_V, BLOCK_K], tl.float32)
    decay_all = tl.full([1, BLOCK_K if BY_KEY else 1], 1, tl.float32)
    for i in tl.range(0, n_tiles, disable_licm=True):
        tile = chunk * n_tiles + i
        if kept is not None:
            n_kept = tl.cdiv(length, KEPT * BLOCK_T)
            to = ((batch * n_kept + tile // KEPT) * n_heads + head) * d_key * d_value
            is_first = (tile % KEPT == 0) & (tile * BLOCK_T < length)
            at, inside = state_at(tile, block, d_key, d_value, BLOCK_K, BLOCK_V)
            tl.store(kept + to + at, state, mask=inside & is_first)
        (
            t, key, is_key, value, is_value, place, there, real, segment, before, after, logs,
        ) = tokens_of(
            tile, 0, block, g, segments, length, d_key, d_value, g_t, g_c,
            REVERSE, BY_KEY, BLOCK_K, BLOCK_V, BLOCK_T,
        )  # fmt: skip
        keys = rows_at(k, place, k_t, k_c, real, key, is_key)
        if v is None:
            values = tl.zeros([BLOCK_T, BLOCK_V], tl.float32)
        else:
            values = rows_at(v, place, v_t, v_c, real, value, is_value)
        upto, earlier, left, whole = ends_of(logs, segment, before, after, t, BY_KEY)
        # One product after the other: what they share doesn't stay in registers in between.
        if out is not None:
            query = rows_at(q, place, q_t, q_c, real, key, is_key)
            y = under(query * (earlier if BEFORE else upto), state)
        if a is not None:
            finds = rows_at(a, place, a_t, a_c, real, key, is_key)
            moves = rows_at(b, place, b_t, b_c, real, key, is_key)
            found = found_in(
                under(finds * earlier, state), finds, keys, moves, values, logs, segment, t,
                n_steps, BY_KEY, BLOCK_T, BLOCK_K, N_LEVELS,
            )  # fmt: skip
        if out is not None:
            shows = meetings(
                query, keys, logs, segment, t, n_steps, BEFORE, BY_KEY, BLOCK_T, BLOCK_K
            )
            y += dot(shows, values)
            if a is not None:
                shows = meetings(
                    query, moves, logs, segment, t, n_steps, BEFORE, BY_KEY, BLOCK_T, BLOCK_K
                )
                y += dot(shows, found)
            to = out + ((batch * length + place) * n_heads + head)[:, None] * d_value
            mask = there[:, None] & is_value[None, :]
            tl.store(to + value[None, :], (scale * y).to(out.dtype.element_ty), mask=mask)
        state = whole * state + dot(tl.trans(values), keys * left)
        if a is not None:
            state += dot(tl.trans(found), moves * left)
        if decays is not None:
            decay_all *= whole
    at, inside = state_at(chunk + 1, block, d_key, d_value, BLOCK_K, BLOCK_V)
    tl.store(leaving + here * d_key * d_value + at, state, mask=inside)
    if decays is not None:
        if BY_KEY:
            key = lanes(chunk + 1, BLOCK_K)[None, :]
            tl.store(decays + here * d_key + key, decay_all, mask=key < d_key)
        else:
            tl.store(decays + here, tl.sum(tl.sum(decay_all, 1), 0))
