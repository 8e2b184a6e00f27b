"""The gradients of linear attention on a GPU."""

# Triton compiles what is below: to a type checker its tiles are Python's values.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false
# pyright: reportOperatorIssue=false, reportPossiblyUnboundVariable=false, reportGeneralTypeIssues=false

import triton
import triton.language as tl

from tristate.kernels.attention.triton_forward import leave_decays
from tristate.kernels.attention.triton_gradients import add_up_decays, gradients
from tristate.kernels.attention.triton_walks import find_slopes, walk
from tristate.kernels.triton.axes import tiles_from, uncounted
from tristate.kernels.triton.memory import put_state, state_ends


@triton.jit
def backward(
    grad, q, k, v, g, a, b, segments, kept, incoming, dq, dk, dv, dg, da, db, outgoing, decays,
    own, at_found, at_d_found, at_d_keys, at_d_moves, at_flows, at_late, tables, at_ends, own_size,
    length, n_places, n_heads, d_key, d_value, n_parts, scale,
    grad_b, grad_t, grad_h, grad_c, q_b, q_t, q_h, q_c, k_b, k_t, k_h, k_c, v_b, v_t, v_h, v_c,
    g_b, g_t, g_h, g_c, a_b, a_t, a_h, a_c, b_b, b_t, b_h, b_c,
    REVERSE: tl.constexpr, BEFORE: tl.constexpr, BY_KEY: tl.constexpr, KEPT: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_T: tl.constexpr, N_LEVELS: tl.constexpr,
):  # fmt: skip
    """A head, ``n_parts`` times ``KEPT`` tiles of tokens, the last part first.

    Each part is taken up to three times. Forwards from the kept state: what each token finds, and
    products of the state behind the part with its gradient. Backwards with the gradient of the
    state: those of what was found, of values, and what comes to keys and moves from the state
    behind. Forwards again: what comes to queries and finds from the state before, and to all from
    the tile itself. The first time is left out where nothing is found and the state behind the part
    is the next kept one. So one state at a time is at work, in memory of the program's ``own`` or,
    of gradients, in ``outgoing``; ``incoming`` is the gradient behind all tiles. Without ``dq``
    only what the tiles do to that of zero is found, and to any (``decays``).

    By the recurrence the gradient of a decay's logarithm is the sum of ``q dq + a da - k dk - b
    db`` from its token to the end of the part, less what its own token reads before it decays, and
    of ``S dS`` behind the part.

    COST: reads ``q``, ``k``, ``v``, ``grad`` and what there is of ``g``, ``a``, ``b``, writes their
    gradients once: the least there is, and reads ``K / (KEPT BLOCK_T)`` numbers a token and value
    channel of ``kept``: 1.07 times the least with float32, no gate and as many keys as values, 1.14
    in 16 bits. What a program keeps of a part lies in memory of its own and is written over for the
    next part: a state, and ``KEPT BLOCK_T (K + 2)`` numbers, with an ``a`` ``K + 2 V`` more, with
    decays by key ``2 K`` more: 0.21 megabytes for 64 channels with both; it stays in the second
    cache. States are read or written there seven to 13 times a tile, up to ``52 K / BLOCK_T`` bytes
    a token and value channel: the caches bound it, not main memory. A split sequence is read twice,
    with an ``a`` three times. Operations of a token and value channel: ``10 K + 4 T``, with an
    ``a`` ``26 K + 20 T``; and for what all share ``6 T K / V``, with an ``a`` ``(28 K + 36 T) T /
    V``; by key more, since decays are summed by products.
    """
    program, chunk = tl.program_id(0), tl.program_id(1)
    n_chunks = tl.num_programs(1)
    head = program % n_heads
    batch, far = (program // n_heads).to(tl.int64), head.to(tl.int64)
    grads = grad + batch * grad_b + far * grad_h, grad_t, grad_c
    queries = q + batch * q_b + far * q_h, q_t, q_c
    keys = k + batch * k_b + far * k_h, k_t, k_c
    values, gate = (v, v_t, v_c), (g, g_t, g_c)
    finds, moves = (a, a_t, a_c), (b, b_t, b_c)
    if g is not None:
        gate = g + batch * g_b + far * g_h, g_t, g_c
    if a is not None:
        finds = a + batch * a_b + far * a_h, a_t, a_c
        moves = b + batch * b_b + far * b_h, b_t, b_c
    if segments is not None:
        segments += batch * n_places
    if dq is not None:
        values = v + batch * v_b + far * v_h, v_t, v_c
    own += (program.to(tl.int64) * n_chunks + chunk) * own_size
    row = batch * length * n_heads + head
    here = (batch * n_chunks + chunk) * n_heads + head
    slope = outgoing + here * d_key * d_value
    n_values, n_kept = tl.cdiv(d_value, BLOCK_V), tl.cdiv(length, KEPT * BLOCK_T)
    first = None if incoming is None else incoming + here * d_key * d_value
    put_state(first, slope, True, chunk, 0, n_values, d_key, d_value, BLOCK_K, BLOCK_V)
    for p in tl.range(0, n_parts, disable_licm=True):
        part = (chunk + 1) * n_parts - 1 - p
        n_here = tiles_from(part * KEPT, KEPT, length, BLOCK_T)
        if dq is not None:
            state = kept + ((batch * n_kept + part) * n_heads + head) * d_key * d_value
            is_kept = part < n_kept
        if dq is not None and (a is not None or g is not None):
            behind, n_walked, n_put = own, n_here, n_values
            if a is None:
                # Nothing is found on the way: the state behind the part may be the next kept one.
                is_next = part + 1 < n_kept
                n_walked, n_put = tl.where(is_next, 0, n_here), tl.where(is_next, 0, n_values)
                if is_next:
                    behind = state + n_heads * d_key * d_value
            put_state(state, own, is_kept, part, 0, n_put, d_key, d_value, BLOCK_K, BLOCK_V)
            for m in tl.range(0, n_walked, disable_licm=True):
                i = uncounted(m, d_value)
                walk(
                    part * KEPT + i, i, keys, values, finds, moves, gate, segments,
                    own, at_found, tables, length, d_key, d_value,
                    a is not None, REVERSE, BY_KEY, BLOCK_K, BLOCK_V, BLOCK_T, N_LEVELS,
                )  # fmt: skip
            if g is not None:
                state_ends(
                    part, behind, slope, own + at_ends, d_key, d_value, BY_KEY, BLOCK_K, BLOCK_V
                )
        for m in tl.range(0, n_here, disable_licm=True):
            i = uncounted(n_here - 1 - m, d_value)
            find_slopes(
                part * KEPT + i, i, grads, queries, keys, values, finds, moves, gate, segments,
                slope, own, at_found, at_d_found, at_d_keys, at_d_moves, tables, dv, row,
                length, n_heads, d_key, d_value, scale, a is not None,
                BEFORE, REVERSE, BY_KEY, BLOCK_K, BLOCK_V, BLOCK_T, N_LEVELS,
            )  # fmt: skip
        if dq is not None:
            put_state(state, own, is_kept, part, 0, n_values, d_key, d_value, BLOCK_K, BLOCK_V)
            for m in tl.range(0, n_here, disable_licm=True):
                i = uncounted(m, d_value)
                gradients(
                    part * KEPT + i, i, grads, queries, keys, values, finds, moves, gate, segments,
                    own, at_found, at_d_found, at_d_keys, at_d_moves, at_flows, at_late, tables,
                    dq, dk, da, db, row, length, n_heads, d_key, d_value, scale, a is not None,
                    BEFORE, REVERSE, BY_KEY, BLOCK_K, BLOCK_V, BLOCK_T,
                )  # fmt: skip
            if g is not None:
                add_up_decays(
                    part * KEPT, n_here, segments, own, at_flows, at_late, at_ends, dg, row,
                    length, n_heads, d_key, REVERSE, BY_KEY, BLOCK_K, BLOCK_T,
                )  # fmt: skip
    if decays is not None:
        n_keys = d_key if BY_KEY else 1
        leave_decays(
            decays + here * n_keys, chunk * n_parts * KEPT, n_parts * KEPT, gate, segments,
            length, n_keys, REVERSE, BY_KEY, BLOCK_K, BLOCK_T,
        )  # fmt: skip
