"""The gradients of the gated delta rule on a GPU."""

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
from tristate.kernels.triton.axes import lanes, state_at
from tristate.kernels.triton.decays import decay_between, reaches
from tristate.kernels.triton.products import dot
from tristate.kernels.triton.triangular import substitute_transposed, unit_inverse


@triton.jit
def backward(
    grad_out, q, k, v, beta, g, segments, kept, errors, incoming,
    dq, dk, dv, dbeta, dg, outgoing,
    length, n, n_places, n_heads, d_key, d_value, n_blocks, n_parts, scale,
    grad_b, grad_t, grad_h, grad_c, q_b, q_t, q_h, q_c, k_b, k_t, k_h, k_c, v_b, v_t, v_h, v_c,
    beta_b, beta_t, beta_h, beta_c, g_b, g_t, g_h, g_c,
    REVERSE: tl.constexpr, BY_KEY: tl.constexpr, BY_VALUE: tl.constexpr, KEPT: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_T: tl.constexpr, N_LEVELS: tl.constexpr,
):  # fmt: skip
    """A block of value channels of one head, ``n_parts`` times ``KEPT`` tiles, the last one first.

    Of a part the tiles are first taken forwards from the kept state: ``errors``, memory of the
    program's own, takes what each step corrects, ``v - k^T S``. With them the state before any tile
    is one product a tile away. ``incoming`` and ``outgoing`` are gradients of the state, behind and
    before the tiles. Without ``dq`` only what the tiles do to that of zero is found.

    Where an error has the gradient ``e`` and a step writes ``x``, the gradient of a key is that of
    writing, ``w = x (dS)^T``, and of reading, ``r = -e S^T``. By the recurrence that of the
    logarithm of a decay is the sum of ``q dq + k r - k w`` from its step to the end of the tile,
    and of ``S dS`` behind it.

    COST: reads ``q``, ``k``, ``v``, ``grad_out``, ``beta``, ``g`` and writes their gradients once,
    the least there is, and reads ``K / (KEPT BLOCK_T)`` numbers a step and value channel of
    ``kept``: 1.07 times the least with float32 and as many keys as values in one block. A tile's
    rows are read three times, and its neighbours in a part again, from the first cache. ``errors``
    are ``KEPT BLOCK_T BLOCK_V`` numbers a program, written and read over and over: they stay in the
    second cache. Gradients that blocks of value channels share are written once a block, in
    float32, and added up: four blocks of 32 channels with 128 keys make it 3.4 times the least, for
    registers hold no more of two states. A split sequence is read four times. Operations of a step
    and value channel: ``6 K`` once more than forward for the errors, ``16 K + K (KEPT - 1)`` for
    products with the states, ``T (8 + 12 K / V)`` for those between steps.
    """
    program, chunk = tl.program_id(0), tl.program_id(1)
    n_chunks, batch = tl.num_programs(1), tl.num_programs(0) // n_blocks // n_heads
    block = program % n_blocks
    head = program // n_blocks % n_heads
    b = (program // n_blocks // n_heads).to(tl.int64)
    far = head.to(tl.int64)
    grad_out += b * grad_b + far * grad_h
    q += b * q_b + far * q_h
    k += b * k_b + far * k_h
    beta += b * beta_b + far * beta_h
    if g is not None:
        g += b * g_b + far * g_h
    if dq is not None:
        v += b * v_b + far * v_h
        errors += (program.to(tl.int64) * n_chunks + chunk) * KEPT * BLOCK_T * BLOCK_V
        # Rows of (blocks, B, L, H), of tokens and of steps.
        token_row = (block * batch + b) * length * n_heads + head
        step_row = (block * batch + b) * length * n * n_heads + head
        value_row = b * length * n * n_heads + head
    if segments is not None:
        segments += b * n_places
    here = ((b * n_chunks + chunk) * n_heads + head) * d_key * d_value
    slope = tl.zeros([BLOCK_V, BLOCK_K], tl.float32)
    if incoming is not None:
        at, inside = state_at(chunk, block, d_key, d_value, BLOCK_K, BLOCK_V)
        slope = tl.load(incoming + here + at, mask=inside, other=0)
    for p in tl.range(0, n_parts, disable_licm=True):
        part = (chunk + 1) * n_parts - 1 - p
        n_kept = tl.cdiv(length * n, KEPT * BLOCK_T)
        from_kept = ((b * n_kept + part) * n_heads + head) * d_key * d_value
        if dq is not None:
            at, inside = state_at(part, block, d_key, d_value, BLOCK_K, BLOCK_V)
            state = tl.load(kept + from_kept + at, mask=inside & (part < n_kept), other=0)
            for i in tl.range(0, KEPT, disable_licm=True):
                tile = part * KEPT + i
                (
                    t, key, is_key, value, is_value,
                    token, place, turn, there, real, segment, before, after, keys, log_decay, rates,
                ) = steps_of(
                    tile, 0, block, k, beta, g, segments, length, n, d_key, d_value,
                    k_t, k_c, beta_t, beta_c, g_t, g_c,
                    REVERSE, BY_KEY, BY_VALUE, BLOCK_K, BLOCK_V, BLOCK_T,
                )  # fmt: skip
                values = rows_at(v, place, v_t, v_c, real, value, is_value).to(tl.float32)
                left_here, whole, left = ends_of(log_decay, segment, before, after, t, BY_KEY)
                wanted = values - held(keys, left_here, state, BY_KEY)
                finds = meetings(keys, keys, log_decay, segment, t, BY_KEY, BLOCK_T, BLOCK_K)
                finds = strictly(finds, t)
                written = written_by(wanted, rates, finds, t, BY_VALUE, BLOCK_T, N_LEVELS)
                to = errors + errors_at(tile, i, BLOCK_T, BLOCK_V)
                tl.store(to, wanted - dot(finds, written))
                state = state_after(state, keys, written, whole, left, BY_KEY)
            # Other threads of the program read what these wrote.
            tl.debug_barrier()
        for m in tl.range(0, KEPT, disable_licm=True):
            i = KEPT - 1 - m
            tile = part * KEPT + i
            # A tile's rows are read anew for each of its products with a state: beside two states
            # registers have no room for all of them.
            (
                t, key, is_key, value, is_value,
                token, place, turn, there, real, segment, before, after, keys, log_decay, rates,
            ) = steps_of(
                tile, 0, block, k, beta, g, segments, length, n, d_key, d_value,
                k_t, k_c, beta_t, beta_c, g_t, g_c,
                REVERSE, BY_KEY, BY_VALUE, BLOCK_K, BLOCK_V, BLOCK_T,
            )  # fmt: skip
            reads = real & (turn == n - 1)
            query = rows_at(q, token, q_t, q_c, reads, key, is_key)
            dy = rows_at(grad_out, token, grad_t, grad_c, reads, value, is_value)
            dy = scale * dy.to(tl.float32)
            left_here, whole, left = ends_of(log_decay, segment, before, after, t, BY_KEY)
            d_written = held(keys, left, slope, BY_KEY)
            finds = meetings(keys, keys, log_decay, segment, t, BY_KEY, BLOCK_T, BLOCK_K)
            finds = strictly(finds, t)
            shows = meetings(query, keys, log_decay, segment, t, BY_KEY, BLOCK_T, BLOCK_K)
            d_written += dot(tl.trans(shows), dy)
            if BY_VALUE:
                d_written = substitute_transposed(finds, rates, d_written, t, BLOCK_T)
            else:
                inverse = unit_inverse(rates * finds, t, BLOCK_T, N_LEVELS)
                d_written = dot(tl.trans(inverse), d_written)
            d_error = rates * d_written
            if dq is not None:
                of_value = (value_row + place * n_heads)[:, None] * d_value + value[None, :]
                is_step = there[:, None] & is_value[None, :]
                tl.store(dv + of_value, d_error.to(dv.dtype.element_ty), mask=is_step)
                error = tl.load(errors + errors_at(tile, i, BLOCK_T, BLOCK_V))
                d_rate = tl.where(real[:, None], d_written * error, 0)
                if BY_VALUE:
                    tl.store(dbeta + of_value, d_rate.to(dbeta.dtype.element_ty), mask=is_step)
                else:
                    tl.store(dbeta + step_row + place * n_heads, tl.sum(d_rate, 1), mask=there)
                at, inside = state_at(tile, block, d_key, d_value, BLOCK_K, BLOCK_V)
                state = tl.load(kept + from_kept + at, mask=inside & (part < n_kept), other=0)
                for j in tl.range(0, i, disable_licm=True):
                    state = state_after_known(
                        state, part * KEPT + j, j, block, k, beta, g, segments, errors,
                        length, n, d_key, d_value, k_t, k_c, beta_t, beta_c, g_t, g_c,
                        REVERSE, BY_KEY, BY_VALUE, BLOCK_K, BLOCK_V, BLOCK_T,
                    )  # fmt: skip
            (
                t, key, is_key, value, is_value,
                token, place, turn, there, real, segment, before, after, keys, log_decay, rates,
            ) = steps_of(
                tile, 1, block, k, beta, g, segments, length, n, d_key, d_value,
                k_t, k_c, beta_t, beta_c, g_t, g_c,
                REVERSE, BY_KEY, BY_VALUE, BLOCK_K, BLOCK_V, BLOCK_T,
            )  # fmt: skip
            reads = real & (turn == n - 1)
            dy = rows_at(grad_out, token, grad_t, grad_c, reads, value, is_value)
            dy = scale * dy.to(tl.float32)
            left_here, whole, left = ends_of(log_decay, segment, before, after, t, BY_KEY)
            if dq is not None:
                d_query = left_here * dot(dy, state)
                d_read = -left_here * dot(d_error, state)
                at_end = whole * tl.sum(slope * state, 0)[None, :]
                written = rates * tl.load(errors + errors_at(tile + 1, i, BLOCK_T, BLOCK_V))
                d_write = left * dot(written, slope)
                at_end += tl.sum(keys.to(tl.float32) * d_write, 0)[None, :]
            query = rows_at(q, token, q_t, q_c, reads, key, is_key)
            if BY_KEY:
                slope = whole * slope + dot(tl.trans(dy), query.to(tl.float32) * left_here)
                slope -= dot(tl.trans(d_error), keys.to(tl.float32) * left_here)
            else:
                slope = whole * slope + dot(tl.trans(left_here * dy), query)
                slope -= dot(tl.trans(left_here * d_error), keys)
            if dq is not None:
                (
                    t, key, is_key, value, is_value,
                    token, place, turn, there, real, segment, before, after, keys, log_decay, rates,
                ) = steps_of(
                    tile, 2, block, k, beta, g, segments, length, n, d_key, d_value,
                    k_t, k_c, beta_t, beta_c, g_t, g_c,
                    REVERSE, BY_KEY, BY_VALUE, BLOCK_K, BLOCK_V, BLOCK_T,
                )  # fmt: skip
                reads = real & (turn == n - 1)
                query = rows_at(q, token, q_t, q_c, reads, key, is_key)
                dy = rows_at(grad_out, token, grad_t, grad_c, reads, value, is_value)
                dy = scale * dy.to(tl.float32)
                written = rates * tl.load(errors + errors_at(tile + 2, i, BLOCK_T, BLOCK_V))
                d_finds = -strictly(dot(d_error, tl.trans(written)), t)
                d_shows = dot(dy, tl.trans(written))
                keys_wide, query_wide = keys.to(tl.float32), query.to(tl.float32)
                if BY_KEY:
                    d_query, d_read, d_write = add_pairs_by_key(
                        d_finds, d_shows, query_wide, keys_wide, log_decay, segment, t,
                        d_query, d_read, d_write, BLOCK_T, BLOCK_K,
                    )  # fmt: skip
                else:
                    between = decay_between(log_decay, segment, t)
                    d_finds, d_shows = d_finds * between, d_shows * between
                    d_query += dot(d_shows, keys)
                    d_read += dot(d_finds, keys)
                    d_write += dot(tl.trans(d_finds), keys) + dot(tl.trans(d_shows), query)
                if g is not None:
                    flow = query_wide * d_query + keys_wide * (d_read - d_write)
                    follows = tl.trans(reaches(segment, t))
                    is_decay = there & (turn == 0)
                    if BY_KEY:
                        d_log = dot(tl.where(follows, 1.0, 0.0), flow)
                        d_log += tl.where((segment == after)[:, None], at_end, 0)
                        d_log = tl.where(real[:, None], d_log, 0)
                        to = dg + (token_row + token * n_heads)[:, None] * d_key + key[None, :]
                        tl.store(to, d_log, mask=is_decay[:, None] & is_key[None, :])
                    else:
                        flow = tl.sum(flow, 1)
                        d_log = tl.sum(tl.where(follows, flow[None, :], 0), 1)
                        d_log += tl.where(segment == after, tl.sum(tl.sum(at_end, 1), 0), 0)
                        d_log = tl.where(real, d_log, 0)
                        tl.store(dg + token_row + token * n_heads, d_log, mask=is_decay)
                to = dq + (token_row + token * n_heads)[:, None] * d_key + key[None, :]
                mask = (there & (turn == n - 1))[:, None] & is_key[None, :]
                tl.store(to, d_query.to(dq.dtype.element_ty), mask=mask)
                to = dk + (step_row + place * n_heads)[:, None] * d_key + key[None, :]
                d_key_tile = (d_read + d_write).to(dk.dtype.element_ty)
                tl.store(to, d_key_tile, mask=there[:, None] & is_key[None, :])
        if dq is not None:
            tl.debug_barrier()
    at, inside = state_at(chunk + 1, block, d_key, d_value, BLOCK_K, BLOCK_V)
    tl.store(outgoing + here + at, slope, mask=inside)


@triton.jit
def errors_at(tile, i, BLOCK_T: tl.constexpr, BLOCK_V: tl.constexpr):
    """Where the errors ``(T, V)`` of a part's ``i``-th tile lie."""
    return (i * BLOCK_T + lanes(tile, BLOCK_T))[:, None] * BLOCK_V + lanes(tile, BLOCK_V)[None, :]


@triton.jit
def state_after_known(
    state, tile, i, block, k, beta, g, segments, errors,
    length, n, d_key, d_value, k_t, k_c, beta_t, beta_c, g_t, g_c,
    REVERSE: tl.constexpr, BY_KEY: tl.constexpr, BY_VALUE: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """The state behind a tile of a part, the ``i``-th, whose errors are known."""
    (
        t, key, is_key, value, is_value,
        token, place, turn, there, real, segment, before, after, keys, log_decay, rates,
    ) = steps_of(
        tile, 0, block, k, beta, g, segments, length, n, d_key, d_value,
        k_t, k_c, beta_t, beta_c, g_t, g_c,
        REVERSE, BY_KEY, BY_VALUE, BLOCK_K, BLOCK_V, BLOCK_T,
    )  # fmt: skip
    _, whole, left = ends_of(log_decay, segment, before, after, t, BY_KEY)
    written = rates * tl.load(errors + errors_at(tile, i, BLOCK_T, BLOCK_V))
    return state_after(state, keys, written, whole, left, BY_KEY)


@triton.jit
def add_pairs_by_key(
    d_finds, d_shows, q, k, log_decay, segment, t, d_query, d_read, d_write,
    BLOCK_T: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """What pairs of steps add to the gradients of queries and of keys, as read and as written."""
    meets = reaches(segment, t)
    d_finds, d_shows = tl.where(meets, d_finds, 0), tl.where(meets, d_shows, 0)
    sums = tl.zeros([BLOCK_T, BLOCK_K], tl.float32)
    for i in tl.range(0, BLOCK_T, disable_licm=True):
        j = BLOCK_T - 1 - i
        is_j = (t == j)[:, None]
        is_column = (t == j)[None, :]
        decay = tl.where((t >= j)[:, None], tl.exp(sums), 0)
        found = decay * tl.sum(tl.where(is_column, d_finds, 0), 1)[:, None]
        shown = decay * tl.sum(tl.where(is_column, d_shows, 0), 1)[:, None]
        key = tl.sum(tl.where(is_j, k, 0), 0)[None, :]
        d_query += shown * key
        d_read += found * key
        d_write += tl.where(is_j, tl.sum(found * k + shown * q, 0)[None, :], 0)
        own = tl.sum(tl.where(is_j, log_decay, 0), 0)[None, :]
        sums += tl.where((t >= j)[:, None], own, 0)
    return d_query, d_read, d_write
