"""The gradients of linear attention on a GPU."""

# Triton compiles what is below: to a type checker its tiles are Python's values.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false
# pyright: reportOperatorIssue=false, reportPossiblyUnboundVariable=false

import triton
import triton.language as tl

from tristate.kernels.attention.triton_forward import found_in
from tristate.kernels.attention.triton_tiles import (
    dot,
    ends_of,
    meetings,
    meetings_back,
    rows_at,
    tokens_of,
    totals,
)
from tristate.kernels.triton.decays import reaches
from tristate.kernels.triton.triangular import unit_inverse


@triton.jit
def backward(
    grad, q, k, v, g, a, b, segments, kept, known, incoming,
    dq, dk, dv, dg, da, db, outgoing, decays,
    length, n_places, n_heads, d_key, d_value, n_blocks, n_parts, n_steps, scale,
    grad_b, grad_t, grad_h, grad_c, q_b, q_t, q_h, q_c, k_b, k_t, k_h, k_c, v_b, v_t, v_h, v_c,
    g_b, g_t, g_h, g_c, a_b, a_t, a_h, a_c, b_b, b_t, b_h, b_c,
    REVERSE: tl.constexpr, BEFORE: tl.constexpr, BY_KEY: tl.constexpr, KEPT: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_T: tl.constexpr, N_LEVELS: tl.constexpr,
):  # fmt: skip
    """A block of value channels of one head, ``n_parts`` times ``KEPT`` tiles, the last one first.

    With the kept states the state before any tile is a product or two a tile away. With an ``a`` a
    part is first taken forwards: ``known``, memory of the program's own, takes what each token
    found. ``incoming`` and ``outgoing`` are gradients of the state, behind and before the tiles.
    Without ``dq`` only what the tiles do to that of zero is found, and to any (``decays``).

    By the recurrence the gradient of a decay's logarithm is the sum of ``q dq + a da - k dk - b
    db`` from its token to the end of the tile, less what its own token reads before it decays, and
    of ``S dS`` behind the tile.

    COST: reads ``q``, ``k``, ``v``, ``grad`` and what there is of ``g``, ``a``, ``b``, writes their
    gradients once: the least there is, and reads ``K / (KEPT BLOCK_T)`` numbers a token and value
    channel of ``kept``: 1.07 times the least with float32, no gate and as many keys as values in
    one block, 1.14 in 16 bits. A tile's neighbours in a part are read again from the first cache.
    ``known`` is ``KEPT BLOCK_T BLOCK_V`` numbers a program, written and read over and over: it
    stays in the second cache. Gradients that blocks of value channels share are written once a
    block, in float32, and added up: two blocks of 64 channels with 128 keys make it 2.2 times the
    least, for registers hold no more of two states. A split sequence is read three times, with an
    ``a`` four. Operations of a token and value channel: ``8 K + K (KEPT - 1)`` for products with
    the states, twice that with an ``a``; ``8 T`` between tokens; and ``6 T K / V`` a table for what
    all share.
    """
    program, chunk = tl.program_id(0), tl.program_id(1)
    n_chunks, n_sequences = tl.num_programs(1), tl.num_programs(0) // n_blocks // n_heads
    block, head = program % n_blocks, program // n_blocks % n_heads
    batch, far = (program // n_blocks // n_heads).to(tl.int64), head.to(tl.int64)
    t, key = tl.arange(0, BLOCK_T), tl.arange(0, BLOCK_K)
    lane = tl.arange(0, BLOCK_V)
    value = block * BLOCK_V + lane
    is_key, is_value = key < d_key, value < d_value
    grad += batch * grad_b + far * grad_h
    q += batch * q_b + far * q_h
    k += batch * k_b + far * k_h
    if g is not None:
        g += batch * g_b + far * g_h
    if a is not None:
        a += batch * a_b + far * a_h
        b += batch * b_b + far * b_h
    if segments is not None:
        segments += batch * n_places
    if dq is not None:
        v += batch * v_b + far * v_h
        known += (program.to(tl.int64) * n_chunks + chunk) * KEPT * BLOCK_T * BLOCK_V
    inside = is_key[:, None] & is_value[None, :]
    n_tiles, n_kept = n_parts * KEPT, tl.cdiv(length, KEPT * BLOCK_T)
    slope = tl.zeros([BLOCK_K, BLOCK_V], tl.float32)
    if incoming is not None:
        behind = ((batch * n_chunks + chunk) * n_heads + head) * d_key + key
        behind = behind[:, None] * d_value + value[None, :]
        slope = tl.load(incoming + behind, mask=inside, other=0)
    decay_all = tl.full([BLOCK_K if BY_KEY else 1, 1], 1, tl.float32)
    tile = (chunk + 1) * n_tiles - 1
    for _step in range(n_tiles):
        part, i = tile // KEPT, tile % KEPT
        if dq is not None:
            # Addresses that depend on the tile are made anew; others would be kept in registers.
            first = ((batch * n_kept + part) * n_heads + head) * d_key + key
            first = first[:, None] * d_value + value[None, :]
            is_kept = inside & (part < n_kept)
            # Whether there is an ``a`` is known to the compiler, the tile isn't.
            if a is not None:  # noqa: SIM102
                if i == KEPT - 1:
                    state = tl.load(kept + first, mask=is_kept, other=0)
                    # What other threads of the program read here may still be read.
                    tl.debug_barrier()
                    for j in range(KEPT):
                        place, _, real, segment, before, after, logs = tokens_of(
                            part * KEPT + j, t, g, segments, key, is_key, length, g_t, g_c,
                            REVERSE, BY_KEY, BLOCK_T,
                        )  # fmt: skip
                        keys = rows_at(k, place, k_t, k_c, real, key, is_key)
                        values = rows_at(v, place, v_t, v_c, real, value, is_value)
                        finds = rows_at(a, place, a_t, a_c, real, key, is_key)
                        moves = rows_at(b, place, b_t, b_c, real, key, is_key)
                        _, earlier, left, whole = ends_of(logs, segment, before, after, t, BY_KEY)
                        found = found_in(
                            dot(finds * earlier, state), finds, keys, moves, values, logs,
                            segment, t, n_steps,
                            BY_KEY, BLOCK_T, BLOCK_K, N_LEVELS,
                        )  # fmt: skip
                        to = known + (j * BLOCK_T + t)[:, None] * BLOCK_V + lane[None, :]
                        tl.store(to, found)
                        state = whole * state + dot(tl.trans(keys * left), values)
                        state += dot(tl.trans(moves * left), found)
                    # Other threads of the program read what these wrote.
                    tl.debug_barrier()
            state = tl.load(kept + first, mask=is_kept, other=0)
            for j in range(i):
                place, _, real, segment, before, after, logs = tokens_of(
                    part * KEPT + j, t, g, segments, key, is_key, length, g_t, g_c,
                    REVERSE, BY_KEY, BLOCK_T,
                )  # fmt: skip
                _, _, left, whole = ends_of(logs, segment, before, after, t, BY_KEY)
                keys = rows_at(k, place, k_t, k_c, real, key, is_key)
                values = rows_at(v, place, v_t, v_c, real, value, is_value)
                state = whole * state + dot(tl.trans(keys * left), values)
                if a is not None:
                    moves = rows_at(b, place, b_t, b_c, real, key, is_key)
                    was = known + (j * BLOCK_T + t)[:, None] * BLOCK_V + lane[None, :]
                    state += dot(tl.trans(moves * left), tl.load(was))
        place, there, real, segment, before, after, logs = tokens_of(
            tile, t, g, segments, key, is_key, length, g_t, g_c,
            REVERSE, BY_KEY, BLOCK_T,
        )  # fmt: skip
        upto, earlier, left, whole = ends_of(logs, segment, before, after, t, BY_KEY)
        seen = earlier if BEFORE else upto
        query = rows_at(q, place, q_t, q_c, real, key, is_key)
        dy = scale * rows_at(grad, place, grad_t, grad_c, real, value, is_value)
        if a is not None:
            finds = rows_at(a, place, a_t, a_c, real, key, is_key)
            moves = rows_at(b, place, b_t, b_c, real, key, is_key)
            shows = meetings(
                query, moves, logs, segment, t, n_steps, BEFORE, BY_KEY, BLOCK_T, BLOCK_K
            )
            d_found = dot(tl.trans(shows), dy) + dot(moves * left, slope)
            met = meetings(finds, moves, logs, segment, t, n_steps, True, BY_KEY, BLOCK_T, BLOCK_K)
            d_found = dot(tl.trans(unit_inverse(-met, t, BLOCK_T, N_LEVELS)), d_found)
        # First what the states are needed for: registers hold little beside two of them.
        if dq is not None:
            values = rows_at(v, place, v_t, v_c, real, value, is_value)
            d_query = seen * dot(dy, tl.trans(state))
            d_shows = dot(dy, tl.trans(values))
            if a is not None:
                was = known + (i * BLOCK_T + t)[:, None] * BLOCK_V + lane[None, :]
                found = tl.load(was)
                d_finds = earlier * dot(d_found, tl.trans(state))
                d_moved = dot(dy, tl.trans(found))
                d_written, d_inside = dot(d_found, tl.trans(values)), dot(d_found, tl.trans(found))
            if g is not None:
                at_end = tl.trans(whole * tl.sum(slope * state, 1)[:, None])
            keys = rows_at(k, place, k_t, k_c, real, key, is_key)
            d_keys = left * dot(values, tl.trans(slope))
            d_values = dot(keys * left, slope)
            if a is not None:
                d_moves = left * dot(found, tl.trans(slope))
        slope = whole * slope + dot(tl.trans(query * seen), dy)
        if a is not None:
            slope += dot(tl.trans(finds * earlier), d_found)
        if decays is not None:
            decay_all *= whole
        if dq is not None:
            if g is not None:
                brought = keys * d_keys
                if a is not None:
                    brought += moves * d_moves
                at_end += tl.sum(brought, 0)[None, :]
            shows = meetings(
                query, keys, logs, segment, t, n_steps, BEFORE, BY_KEY, BLOCK_T, BLOCK_K
            )
            d_values += dot(tl.trans(shows), dy)
            d_query, d_keys = meetings_back(
                d_shows, query, keys, d_query, d_keys, logs, segment, t, n_steps,
                BEFORE, BY_KEY, BLOCK_T, BLOCK_K,
            )  # fmt: skip
            if a is not None:
                met = meetings(
                    finds, keys, logs, segment, t, n_steps, True, BY_KEY, BLOCK_T, BLOCK_K
                )
                d_values += dot(tl.trans(met), d_found)
                d_query, d_moves = meetings_back(
                    d_moved, query, moves, d_query, d_moves, logs, segment, t, n_steps,
                    BEFORE, BY_KEY, BLOCK_T, BLOCK_K,
                )  # fmt: skip
                d_finds, d_keys = meetings_back(
                    d_written, finds, keys, d_finds, d_keys, logs,
                    segment, t, n_steps, True, BY_KEY, BLOCK_T, BLOCK_K,
                )  # fmt: skip
                d_finds, d_moves = meetings_back(
                    d_inside, finds, moves, d_finds, d_moves, logs,
                    segment, t, n_steps, True, BY_KEY, BLOCK_T, BLOCK_K,
                )  # fmt: skip
            row = (batch * length + place) * n_heads + head
            to, mask = row[:, None] * d_value + value[None, :], there[:, None] & is_value[None, :]
            tl.store(dv + to, d_values.to(dv.dtype.element_ty), mask=mask)
            row += block * n_sequences.to(tl.int64) * length * n_heads
            if g is not None:
                # What reads after its token decayed, and what before it did.
                flow, early = -keys * d_keys, tl.zeros_like(keys)
                if BEFORE:
                    early += query * d_query
                else:
                    flow += query * d_query
                if a is not None:
                    flow -= moves * d_moves
                    early += finds * d_finds
                if not BY_KEY:
                    flow, early = tl.sum(flow, 1)[:, None], tl.sum(early, 1)[:, None]
                    at_end = tl.sum(at_end, 1)[:, None]
                follows = tl.trans(reaches(segment, t))
                d_log = totals(follows, flow, BY_KEY)
                d_log += totals(follows & (t[:, None] < t[None, :]), early, BY_KEY)
                d_log += tl.where((segment == after)[:, None], at_end, 0)
                d_log = tl.where(real[:, None], d_log, 0).to(dg.dtype.element_ty)
                if BY_KEY:
                    mask = there[:, None] & is_key[None, :]
                    tl.store(dg + row[:, None] * d_key + key[None, :], d_log, mask=mask)
                else:
                    tl.store(dg + row[:, None], d_log, mask=there[:, None])
            to, mask = row[:, None] * d_key + key[None, :], there[:, None] & is_key[None, :]
            tl.store(dq + to, d_query.to(dq.dtype.element_ty), mask=mask)
            tl.store(dk + to, d_keys.to(dk.dtype.element_ty), mask=mask)
            if a is not None:
                tl.store(da + to, d_finds.to(da.dtype.element_ty), mask=mask)
                tl.store(db + to, d_moves.to(db.dtype.element_ty), mask=mask)
        tile -= 1
    # As it was before the tiles; its number was counted down, so that addresses aren't kept.
    here = (batch * n_chunks + (tile + 1) // n_tiles) * n_heads + head
    at = (here * d_key + key)[:, None] * d_value + value[None, :]
    tl.store(outgoing + at, slope, mask=inside)
    if decays is not None:
        if BY_KEY:
            tl.store(decays + here * d_key + key[:, None], decay_all, mask=is_key[:, None])
        else:
            tl.store(decays + here, tl.sum(tl.sum(decay_all, 1), 0))
