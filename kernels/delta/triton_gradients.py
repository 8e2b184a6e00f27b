"""The gradients of queries, keys and decays of the gated delta rule on a GPU."""

# Triton compiles what is below: to a type checker its tiles are Python's values.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false
# pyright: reportOperatorIssue=false, reportPossiblyUnboundVariable=false, reportGeneralTypeIssues=false

import triton
import triton.language as tl

from tristate.kernels.delta.triton_tiles import (
    ends_of,
    logs_of,
    rates_of,
    rows_at,
    steps_of,
    strictly,
    take_state_on,
)
from tristate.kernels.triton.axes import lanes, once, piece_of
from tristate.kernels.triton.decays import decay_between, reaches
from tristate.kernels.triton.memory import own_at, state_at, table_at
from tristate.kernels.triton.products import dot


@triton.jit
def gradients(
    tile, i, grads, queries, keys, rate, gate, segments,
    own, at_errors, at_d_errors, at_d_writes, at_flows, tables, dq, dk, token_row, step_row,
    length, n, n_heads, d_key, d_value, scale,
    REVERSE: tl.constexpr, BY_KEY: tl.constexpr, BY_VALUE: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """Take the state over a part's ``i``-th tile again, with all of values known.

    What comes to its queries and keys is complete then, and what flows to decays.
    """
    # What comes to a step, by row, from what another wrote, by column.
    d_finds = tl.zeros([BLOCK_T, BLOCK_T], tl.float32)
    d_shows = tl.zeros([BLOCK_T, BLOCK_T], tl.float32)
    for j in tl.range(0, tl.cdiv(d_value, BLOCK_V), disable_licm=True):
        t, token, place, turn, _there, real, _segment, _before, _after = steps_of(
            tile, j, segments, length, n, REVERSE, BLOCK_T
        )
        value, is_value = piece_of(tile, j, d_value, BLOCK_V)
        is_own = is_value[None, :]
        rates = rates_of(rate, place, real, value, is_value, BY_VALUE)
        at = own_at(at_errors, i, t, value, d_value, BLOCK_T)
        written = tl.trans(rates * tl.load(own + at, mask=is_own, other=0))
        at = own_at(at_d_errors, i, t, value, d_value, BLOCK_T)
        d_finds -= dot(tl.load(own + at, mask=is_own, other=0), written)
        reads = real & (turn == n - 1)
        dy = scale * rows_at(grads, token, reads, value, is_value).to(tl.float32)
        d_shows += dot(dy, written)
    t, token, _place, turn, _there, real, segment, _before, _after = steps_of(
        tile, 0, segments, length, n, REVERSE, BLOCK_T
    )
    d_finds = strictly(d_finds, t)
    if BY_KEY:
        meets = reaches(segment, t)
        d_finds, d_shows = tl.where(meets, d_finds, 0), tl.where(meets, d_shows, 0)
    else:
        apart = decay_between(logs_of(gate, token, real & (turn == 0), t, real, False), segment, t)
        d_finds, d_shows = d_finds * apart, d_shows * apart
    tl.store(own + table_at(tables, 0, tile, BLOCK_T), d_finds)
    tl.store(own + table_at(tables, 1, tile, BLOCK_T), d_shows)
    # Other threads of the program read what these wrote.
    tl.debug_barrier()
    flow_all = tl.zeros([BLOCK_T], tl.float32)
    for m in tl.range(0, tl.cdiv(d_key, BLOCK_K), disable_licm=True):
        key, is_key = piece_of(tile, m, d_key, BLOCK_K)
        d_query = tl.zeros([BLOCK_T, BLOCK_K], tl.float32)
        d_read = tl.zeros([BLOCK_T, BLOCK_K], tl.float32)
        for j in tl.range(0, tl.cdiv(d_value, BLOCK_V), disable_licm=True):
            t, token, _place, turn, _there, real, _segment, _before, _after = steps_of(
                tile, m + j, segments, length, n, REVERSE, BLOCK_T
            )
            value, is_value = piece_of(tile, j, d_value, BLOCK_V)
            at, inside = state_at(tile, m, j, d_key, d_value, BLOCK_K, BLOCK_V)
            here_state = tl.load(own + at, mask=inside, other=0)
            reads = real & (turn == n - 1)
            dy = scale * rows_at(grads, token, reads, value, is_value).to(tl.float32)
            d_query += dot(dy, here_state)
            at = own_at(at_d_errors, i, t, value, d_value, BLOCK_T)
            d_read -= dot(tl.load(own + at, mask=is_value[None, :], other=0), here_state)
        t, token, place, turn, there, real, segment, before, after = steps_of(
            tile, m, segments, length, n, REVERSE, BLOCK_T
        )
        logs = logs_of(gate, token, real & (turn == 0), key, is_key, BY_KEY)
        here, _whole, _left = ends_of(logs, segment, before, after, t, BY_KEY)
        d_query, d_read = here * d_query, here * d_read
        at = own_at(at_d_writes, i, t, key, d_key, BLOCK_T)
        d_write = tl.load(own + at, mask=is_key[None, :], other=0)
        if BY_KEY:
            d_query, d_read, d_write = add_pairs_by_key(
                own, tables, tile, m, queries, keys, gate, d_query, d_read, d_write, segments,
                length, n, d_key, REVERSE, BLOCK_T, BLOCK_K,
            )  # fmt: skip
        else:
            d_read, d_write = add_pairs(
                own, tables, 0, tile, m, keys, keys, d_read, d_write, segments,
                length, n, d_key, False, REVERSE, BLOCK_T, BLOCK_K,
            )  # fmt: skip
            d_query, d_write = add_pairs(
                own, tables, 1, tile, m, queries, keys, d_query, d_write, segments,
                length, n, d_key, True, REVERSE, BLOCK_T, BLOCK_K,
            )  # fmt: skip
        t, token, place, turn, there, real, _segment, _before, _after = steps_of(
            tile, m + 1, segments, length, n, REVERSE, BLOCK_T
        )
        key, is_key = piece_of(tile + 1, m, d_key, BLOCK_K)
        key_rows = rows_at(keys, place, real, key, is_key)
        query = rows_at(queries, token, real & (turn == n - 1), key, is_key)
        flow = query.to(tl.float32) * d_query + key_rows.to(tl.float32) * (d_read - d_write)
        if BY_KEY:
            to = own + own_at(at_flows, i, t, key, d_key, BLOCK_T)
            tl.store(to, flow, mask=is_key[None, :])
        flow_all += tl.sum(flow, 1)
        to = dq + (token_row + token * n_heads)[:, None] * d_key + key[None, :]
        mask = (there & (turn == n - 1))[:, None] & is_key[None, :]
        tl.store(to, d_query.to(dq.dtype.element_ty), mask=mask)
        to = dk + (step_row + place * n_heads)[:, None] * d_key + key[None, :]
        d_key_rows = (d_read + d_write).to(dk.dtype.element_ty)
        tl.store(to, d_key_rows, mask=there[:, None] & is_key[None, :])
    if not BY_KEY:
        tl.store(own + (at_flows + i * BLOCK_T + lanes(tile, BLOCK_T)), flow_all)
    for j in tl.range(0, tl.cdiv(d_value, BLOCK_V), disable_licm=True):
        t, _token, place, _turn, _there, real, _segment, _before, _after = steps_of(
            tile, j, segments, length, n, REVERSE, BLOCK_T
        )
        value, is_value = piece_of(tile, j, d_value, BLOCK_V)
        rates = rates_of(rate, place, real, value, is_value, BY_VALUE)
        at = own_at(at_errors, i, t, value, d_value, BLOCK_T)
        written = rates * tl.load(own + at, mask=is_value[None, :], other=0)
        take_state_on(
            tile, j, j, written, keys, gate, own, segments, length, n, d_key, d_value,
            REVERSE, BY_KEY, BLOCK_K, BLOCK_V, BLOCK_T,
        )  # fmt: skip


@triton.jit
def add_pairs(
    own, tables, which, tile, m, rows, keys, d_rows, d_write, segments, length, n, d_key,
    READS: tl.constexpr, REVERSE: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """What pairs of steps add to the gradients of rows and of the keys as they wrote.

    Of the ``m``-th piece of the keys. Rows are queries if they are ``READS``, else keys.
    """
    for turn in tl.range(0, once(tile), disable_licm=True):
        _t, token, place, in_token, _there, real, _segment, _before, _after = steps_of(
            tile, which + turn, segments, length, n, REVERSE, BLOCK_T
        )
        back = tl.load(own + table_at(tables, which, tile + turn, BLOCK_T))
        key, is_key = piece_of(tile + turn, m, d_key, BLOCK_K)
        if READS:
            x = rows_at(rows, token, real & (in_token == n - 1), key, is_key)
        else:
            x = rows_at(rows, place, real, key, is_key)
        d_rows += dot(back, rows_at(keys, place, real, key, is_key))
        d_write += dot(tl.trans(back), x)
    return d_rows, d_write


@triton.jit
def add_pairs_by_key(
    own, tables, tile, m, queries, keys, gate, d_query, d_read, d_write, segments,
    length, n, d_key, REVERSE: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """What pairs of steps add to the gradients of queries and of keys, as read and as written."""
    for turn in tl.range(0, once(tile), disable_licm=True):
        t, token, place, in_token, _there, real, _segment, _before, _after = steps_of(
            tile, turn, segments, length, n, REVERSE, BLOCK_T
        )
        d_finds = tl.load(own + table_at(tables, 0, tile + turn, BLOCK_T))
        d_shows = tl.load(own + table_at(tables, 1, tile + turn, BLOCK_T))
        key, is_key = piece_of(tile + turn, m, d_key, BLOCK_K)
        k = rows_at(keys, place, real, key, is_key).to(tl.float32)
        q = rows_at(queries, token, real & (in_token == n - 1), key, is_key).to(tl.float32)
        logs = logs_of(gate, token, real & (in_token == 0), key, is_key, True)
        sums = tl.zeros([BLOCK_T, BLOCK_K], tl.float32)
        for i in tl.range(0, BLOCK_T, disable_licm=True):
            j = BLOCK_T - 1 - i
            is_j = (t == j)[:, None]
            is_column = (t == j)[None, :]
            decay = tl.where((t >= j)[:, None], tl.exp(sums), 0)
            found = decay * tl.sum(tl.where(is_column, d_finds, 0), 1)[:, None]
            shown = decay * tl.sum(tl.where(is_column, d_shows, 0), 1)[:, None]
            key_row = tl.sum(tl.where(is_j, k, 0), 0)[None, :]
            d_query += shown * key_row
            d_read += found * key_row
            d_write += tl.where(is_j, tl.sum(found * k + shown * q, 0)[None, :], 0)
            step = tl.sum(tl.where(is_j, logs, 0), 0)[None, :]
            sums += tl.where((t >= j)[:, None], step, 0)
    return d_query, d_read, d_write


@triton.jit
def add_up_decays(
    first, n_tiles, segments, own, at_flows, at_ends, dg, token_row, length, n, n_heads, d_key,
    REVERSE: tl.constexpr, BY_KEY: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """The gradients of decays of a part, from its end: what flows to them from there on."""
    n_pieces = tl.cdiv(d_key, BLOCK_K) if BY_KEY else 1
    for m in tl.range(0, n_pieces, disable_licm=True):
        if BY_KEY:
            key, is_key = piece_of(first, m, d_key, BLOCK_K)
            behind = tl.load(own + (at_ends + key), mask=is_key, other=0)[None, :]
        else:
            behind = tl.load(own + (at_ends + tl.arange(0, 1)))[None, :]
        for p in tl.range(0, n_tiles, disable_licm=True):
            i = n_tiles - 1 - p
            tile = first + i
            t, token, _place, turn, there, real, segment, before, after = steps_of(
                tile, m, segments, length, n, REVERSE, BLOCK_T
            )
            if BY_KEY:
                at = own_at(at_flows, i, t, key, d_key, BLOCK_T)
                flow = tl.load(own + at, mask=is_key[None, :], other=0)
            else:
                flow = tl.load(own + (at_flows + i * BLOCK_T + t))[:, None]
            follows = (t[:, None] <= t[None, :]) & (segment[:, None] == segment[None, :])
            if BY_KEY:
                d_log = dot(tl.where(follows, 1.0, 0.0), flow)
            else:
                d_log = tl.sum(tl.where(follows, tl.trans(flow), 0), 1)[:, None]
            d_log += tl.where((segment == after)[:, None], behind, 0)
            d_log = tl.where(real[:, None], d_log, 0).to(dg.dtype.element_ty)
            is_decay = (there & (turn == 0))[:, None]
            row = (token_row + token * n_heads)[:, None]
            if BY_KEY:
                tl.store(dg + row * d_key + key[None, :], d_log, mask=is_decay & is_key[None, :])
            else:
                tl.store(dg + row, d_log, mask=is_decay)
            in_first = tl.where((segment == before)[:, None], flow, 0)
            behind = tl.where(before == after, behind, 0) + tl.sum(in_first, 0)[None, :]
    # What other threads of the program read here is written over.
    tl.debug_barrier()
