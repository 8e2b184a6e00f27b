"""The gradients of linear attention on a GPU."""

# Triton compiles what is below: to a type checker its tiles are Python's values.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false
# pyright: reportOperatorIssue=false, reportPossiblyUnboundVariable=false, reportGeneralTypeIssues=false

import triton
import triton.language as tl

from tristate.kernels.attention.triton_forward import found_in
from tristate.kernels.attention.triton_tiles import (
    ends_of,
    meetings,
    meetings_back,
    rows_at,
    tokens_of,
    totals,
    under,
)
from tristate.kernels.triton.axes import lanes, state_at
from tristate.kernels.triton.decays import reaches
from tristate.kernels.triton.products import dot
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
    one block, 1.14 in 16 bits. A tile's rows are read up to three times, and its neighbours in a
    part once more, from the first cache. ``known`` is ``KEPT BLOCK_T BLOCK_V`` numbers a program,
    written and read over and over: it stays in the second cache. Gradients that blocks of value
    channels share are written once a block, in float32, and added up, for registers hold no more of
    two states: 128 channels, in blocks of 32, make it 3.4 times the least, with decays by key 3.7;
    64 of these 2.4. A split sequence is read three times, with an ``a`` four. Operations of a token
    and value channel: ``8 K + K (KEPT - 1)`` for products with the states, twice that with an
    ``a``; ``8 T`` between tokens; and ``6 T K / V`` a table for what all share.
    """
    program, chunk = tl.program_id(0), tl.program_id(1)
    n_chunks, n_sequences = tl.num_programs(1), tl.num_programs(0) // n_blocks // n_heads
    block, head = program % n_blocks, program // n_blocks % n_heads
    batch, far = (program // n_blocks // n_heads).to(tl.int64), head.to(tl.int64)
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
    n_tiles, n_kept = n_parts * KEPT, tl.cdiv(length, KEPT * BLOCK_T)
    here = ((batch * n_chunks + chunk) * n_heads + head) * d_key
    slope = tl.zeros([BLOCK_V, BLOCK_K], tl.float32)
    if incoming is not None:
        at, inside = state_at(chunk, block, d_key, d_value, BLOCK_K, BLOCK_V)
        slope = tl.load(incoming + here * d_value + at, mask=inside, other=0)
    decay_all = tl.full([1, BLOCK_K if BY_KEY else 1], 1, tl.float32)
    for step in tl.range(0, n_tiles, disable_licm=True):
        tile = (chunk + 1) * n_tiles - 1 - step
        part, i = tile // KEPT, tile % KEPT
        from_kept = ((batch * n_kept + part) * n_heads + head) * d_key * d_value
        # Whether there are an ``a`` and a ``dq`` is known to the compiler, the tile isn't.
        if dq is not None and a is not None:  # noqa: SIM102
            if i == KEPT - 1:
                at, inside = state_at(part, block, d_key, d_value, BLOCK_K, BLOCK_V)
                state = tl.load(kept + from_kept + at, mask=inside & (part < n_kept), other=0)
                # What other threads of the program read here may still be read.
                tl.debug_barrier()
                for j in tl.range(0, KEPT, disable_licm=True):
                    state, found = walked(
                        state, part * KEPT + j, block, k, v, g, a, b, segments,
                        length, d_key, d_value, n_steps, k_t, k_c, v_t, v_c, g_t, g_c,
                        a_t, a_c, b_t, b_c,
                        REVERSE, BY_KEY, BLOCK_K, BLOCK_V, BLOCK_T, N_LEVELS,
                    )  # fmt: skip
                    tl.store(known + known_at(part * KEPT + j, j, BLOCK_T, BLOCK_V), found)
                # Other threads of the program read what these wrote.
                tl.debug_barrier()
        # A tile's rows are read anew for each of its products with a state: beside two states
        # registers have no room for all of them.
        if a is not None:
            (
                t, key, is_key, value, is_value, place, there, real, segment, before, after, logs,
            ) = tokens_of(
                tile, 0, block, g, segments, length, d_key, d_value, g_t, g_c,
                REVERSE, BY_KEY, BLOCK_K, BLOCK_V, BLOCK_T,
            )  # fmt: skip
            _upto, _earlier, left, _whole = ends_of(logs, segment, before, after, t, BY_KEY)
            query = rows_at(q, place, q_t, q_c, real, key, is_key)
            dy = scale * rows_at(grad, place, grad_t, grad_c, real, value, is_value)
            finds = rows_at(a, place, a_t, a_c, real, key, is_key)
            moves = rows_at(b, place, b_t, b_c, real, key, is_key)
            d_found = under(moves * left, slope)
            shows = meetings(
                query, moves, logs, segment, t, n_steps, BEFORE, BY_KEY, BLOCK_T, BLOCK_K
            )
            d_found += dot(tl.trans(shows), dy)
            met = meetings(finds, moves, logs, segment, t, n_steps, True, BY_KEY, BLOCK_T, BLOCK_K)
            d_found = dot(tl.trans(unit_inverse(-met, t, BLOCK_T, N_LEVELS)), d_found)
        if dq is not None:
            at, inside = state_at(tile, block, d_key, d_value, BLOCK_K, BLOCK_V)
            state = tl.load(kept + from_kept + at, mask=inside & (part < n_kept), other=0)
            for j in tl.range(0, i, disable_licm=True):
                state = behind_known(
                    state, part * KEPT + j, j, block, k, v, g, b, segments, known,
                    length, d_key, d_value, k_t, k_c, v_t, v_c, g_t, g_c, b_t, b_c,
                    REVERSE, BY_KEY, BLOCK_K, BLOCK_V, BLOCK_T,
                )  # fmt: skip
        (
            t, key, is_key, value, is_value, place, there, real, segment, before, after, logs,
        ) = tokens_of(
            tile, 1, block, g, segments, length, d_key, d_value, g_t, g_c,
            REVERSE, BY_KEY, BLOCK_K, BLOCK_V, BLOCK_T,
        )  # fmt: skip
        upto, earlier, left, whole = ends_of(logs, segment, before, after, t, BY_KEY)
        seen = earlier if BEFORE else upto
        dy = scale * rows_at(grad, place, grad_t, grad_c, real, value, is_value)
        if dq is not None:
            d_query = seen * dot(dy, state)
            if a is not None:
                d_finds = earlier * dot(d_found, state)
            if g is not None:
                at_end = whole * tl.sum(slope * state, 0)[None, :]
            values = rows_at(v, place, v_t, v_c, real, value, is_value)
            keys = rows_at(k, place, k_t, k_c, real, key, is_key)
            d_values = under(keys * left, slope)
            d_keys = left * dot(values, slope)
            if g is not None:
                at_end += tl.sum(keys * d_keys, 0)[None, :]
            if a is not None:
                found = tl.load(known + known_at(tile, i, BLOCK_T, BLOCK_V))
                moves = rows_at(b, place, b_t, b_c, real, key, is_key)
                d_moves = left * dot(found, slope)
                if g is not None:
                    at_end += tl.sum(moves * d_moves, 0)[None, :]
        query = rows_at(q, place, q_t, q_c, real, key, is_key)
        slope = whole * slope + dot(tl.trans(dy), query * seen)
        if a is not None:
            finds = rows_at(a, place, a_t, a_c, real, key, is_key)
            slope += dot(tl.trans(d_found), finds * earlier)
        if decays is not None:
            decay_all *= whole
        if dq is not None:
            (
                t, key, is_key, value, is_value, place, there, real, segment, before, after, logs,
            ) = tokens_of(
                tile, 2, block, g, segments, length, d_key, d_value, g_t, g_c,
                REVERSE, BY_KEY, BLOCK_K, BLOCK_V, BLOCK_T,
            )  # fmt: skip
            query = rows_at(q, place, q_t, q_c, real, key, is_key)
            keys = rows_at(k, place, k_t, k_c, real, key, is_key)
            values = rows_at(v, place, v_t, v_c, real, value, is_value)
            dy = scale * rows_at(grad, place, grad_t, grad_c, real, value, is_value)
            shows = meetings(
                query, keys, logs, segment, t, n_steps, BEFORE, BY_KEY, BLOCK_T, BLOCK_K
            )
            d_values += dot(tl.trans(shows), dy)
            d_query, d_keys = meetings_back(
                dot(dy, tl.trans(values)), query, keys, d_query, d_keys, logs, segment, t, n_steps,
                BEFORE, BY_KEY, BLOCK_T, BLOCK_K,
            )  # fmt: skip
            if a is not None:
                finds = rows_at(a, place, a_t, a_c, real, key, is_key)
                moves = rows_at(b, place, b_t, b_c, real, key, is_key)
                found = tl.load(known + known_at(tile + 2, i, BLOCK_T, BLOCK_V))
                met = meetings(
                    finds, keys, logs, segment, t, n_steps, True, BY_KEY, BLOCK_T, BLOCK_K
                )
                d_values += dot(tl.trans(met), d_found)
                d_query, d_moves = meetings_back(
                    dot(dy, tl.trans(found)), query, moves, d_query, d_moves, logs,
                    segment, t, n_steps, BEFORE, BY_KEY, BLOCK_T, BLOCK_K,
                )  # fmt: skip
                d_finds, d_keys = meetings_back(
                    dot(d_found, tl.trans(values)), finds, keys, d_finds, d_keys, logs,
                    segment, t, n_steps, True, BY_KEY, BLOCK_T, BLOCK_K,
                )  # fmt: skip
                d_finds, d_moves = meetings_back(
                    dot(d_found, tl.trans(found)), finds, moves, d_finds, d_moves, logs,
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
    at, inside = state_at(chunk + 1, block, d_key, d_value, BLOCK_K, BLOCK_V)
    tl.store(outgoing + here * d_value + at, slope, mask=inside)
    if decays is not None:
        if BY_KEY:
            key = lanes(chunk + 1, BLOCK_K)[None, :]
            tl.store(decays + here + key, decay_all, mask=key < d_key)
        else:
            tl.store(decays + here // d_key, tl.sum(tl.sum(decay_all, 1), 0))


@triton.jit
def known_at(tile, i, BLOCK_T: tl.constexpr, BLOCK_V: tl.constexpr):
    """Where what the tokens of a part's ``i``-th tile found ``(T, V)`` lies."""
    return (i * BLOCK_T + lanes(tile, BLOCK_T))[:, None] * BLOCK_V + lanes(tile, BLOCK_V)[None, :]


@triton.jit
def walked(
    state, tile, block, k, v, g, a, b, segments,
    length, d_key, d_value, n_steps, k_t, k_c, v_t, v_c, g_t, g_c, a_t, a_c, b_t, b_c,
    REVERSE: tl.constexpr, BY_KEY: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_T: tl.constexpr, N_LEVELS: tl.constexpr,
):  # fmt: skip
    """The state behind a tile, and what its tokens found in those before them."""
    (
        t, key, is_key, value, is_value, place, _there, real, segment, before, after, logs,
    ) = tokens_of(
        tile, 0, block, g, segments, length, d_key, d_value, g_t, g_c,
        REVERSE, BY_KEY, BLOCK_K, BLOCK_V, BLOCK_T,
    )  # fmt: skip
    keys = rows_at(k, place, k_t, k_c, real, key, is_key)
    values = rows_at(v, place, v_t, v_c, real, value, is_value)
    finds = rows_at(a, place, a_t, a_c, real, key, is_key)
    moves = rows_at(b, place, b_t, b_c, real, key, is_key)
    _upto, earlier, left, whole = ends_of(logs, segment, before, after, t, BY_KEY)
    found = found_in(
        under(finds * earlier, state), finds, keys, moves, values, logs, segment, t, n_steps,
        BY_KEY, BLOCK_T, BLOCK_K, N_LEVELS,
    )  # fmt: skip
    state = whole * state + dot(tl.trans(values), keys * left)
    return state + dot(tl.trans(found), moves * left), found


@triton.jit
def behind_known(
    state, tile, i, block, k, v, g, b, segments, known,
    length, d_key, d_value, k_t, k_c, v_t, v_c, g_t, g_c, b_t, b_c,
    REVERSE: tl.constexpr, BY_KEY: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """The state behind a part's ``i``-th tile; with a ``b``, what its tokens found is ``known``."""
    (
        t, key, is_key, value, is_value, place, _there, real, segment, before, after, logs,
    ) = tokens_of(
        tile, 0, block, g, segments, length, d_key, d_value, g_t, g_c,
        REVERSE, BY_KEY, BLOCK_K, BLOCK_V, BLOCK_T,
    )  # fmt: skip
    _upto, _earlier, left, whole = ends_of(logs, segment, before, after, t, BY_KEY)
    keys = rows_at(k, place, k_t, k_c, real, key, is_key)
    values = rows_at(v, place, v_t, v_c, real, value, is_value)
    state = whole * state + dot(tl.trans(values), keys * left)
    if b is not None:
        moves = rows_at(b, place, b_t, b_c, real, key, is_key)
        found = tl.load(known + known_at(tile, i, BLOCK_T, BLOCK_V))
        state += dot(tl.trans(found), moves * left)
    return state
