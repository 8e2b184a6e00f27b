"""The gradients of queries, keys, finds, moves and decays of linear attention on a GPU."""

# Triton compiles what is below: to a type checker its tiles are Python's values.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false
# pyright: reportOperatorIssue=false, reportPossiblyUnboundVariable=false, reportGeneralTypeIssues=false

import triton
import triton.language as tl

from tristate.kernels.attention.triton_tiles import (
    EARLIER,
    UPTO,
    between,
    ends_of,
    logs_of,
    rows_at,
    sees,
    take_state_on,
    tokens_of,
    totals,
)
from tristate.kernels.triton.axes import lanes, once, piece_of
from tristate.kernels.triton.memory import own_at, state_at, table_at
from tristate.kernels.triton.products import dot


@triton.jit
def gradients(
    tile, i, grads, queries, keys, values, finds, moves, gate, segments,
    own, at_found, at_d_found, at_d_keys, at_d_moves, at_flows, at_late, tables,
    dq, dk, da, db, row, length, n_heads, d_key, d_value, scale,
    RANK_ONE: tl.constexpr, BEFORE: tl.constexpr, REVERSE: tl.constexpr, BY_KEY: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """Take the state over a part's ``i``-th tile again, with all of values known.

    What comes to its rows of keys is complete then, and what flows to decays.
    """
    for finds_rows in tl.static_range(2 if RANK_ONE else 1):
        for found_columns in tl.static_range(2 if RANK_ONE else 1):
            keep_met_back(
                tile, i, grads, values, finds_rows == 1, found_columns == 1,
                own, at_found, at_d_found, tables, gate, segments, length, d_value, scale,
                BEFORE, REVERSE, BY_KEY, BLOCK_V, BLOCK_T,
            )  # fmt: skip
    # Other threads of the program read what these wrote.
    tl.debug_barrier()
    # What reads after its token decayed, and what before it did.
    late_all = tl.zeros([BLOCK_T], tl.float32)
    early_all = tl.zeros([BLOCK_T], tl.float32)
    for m in tl.range(0, tl.cdiv(d_key, BLOCK_K), disable_licm=True):
        d_query = tl.zeros([BLOCK_T, BLOCK_K], tl.float32)
        for j in tl.range(0, tl.cdiv(d_value, BLOCK_V), disable_licm=True):
            _t, place, _there, real, _segment, _before, _after = tokens_of(
                tile, m + j, segments, length, REVERSE, BLOCK_T
            )
            value, is_value = piece_of(tile, j, d_value, BLOCK_V)
            at, inside = state_at(tile, m, j, d_key, d_value, BLOCK_K, BLOCK_V)
            state = tl.load(own + at, mask=inside, other=0)
            dy = scale * rows_at(grads, place, real, value, is_value).to(tl.float32)
            d_query += dot(dy, state)
        t, place, there, real, segment, before, after = tokens_of(
            tile, m, segments, length, REVERSE, BLOCK_T
        )
        key, is_key = piece_of(tile, m, d_key, BLOCK_K)
        logs = logs_of(gate, place, real, key, is_key, BY_KEY)
        seen, _whole = ends_of(logs, segment, before, after, t, EARLIER if BEFORE else UPTO, BY_KEY)
        d_query *= seen
        of_keys = own_at(at_d_keys, i, t, key, d_key, BLOCK_T)
        d_keys = tl.load(own + of_keys, mask=is_key[None, :], other=0)
        d_query, d_keys = add_pairs(
            own, tables, tile, 0, m, queries, keys, d_query, d_keys, gate, segments, length, d_key,
            BEFORE, REVERSE, BY_KEY, BLOCK_K, BLOCK_T,
        )  # fmt: skip
        if RANK_ONE:
            d_finds = tl.zeros([BLOCK_T, BLOCK_K], tl.float32)
            for j in tl.range(0, tl.cdiv(d_value, BLOCK_V), disable_licm=True):
                value, is_value = piece_of(tile + 1, j, d_value, BLOCK_V)
                at, inside = state_at(tile + 1, m, j, d_key, d_value, BLOCK_K, BLOCK_V)
                state = tl.load(own + at, mask=inside, other=0)
                at = own_at(at_d_found, i, lanes(tile + j, BLOCK_T), value, d_value, BLOCK_T)
                d_finds += dot(tl.load(own + at, mask=is_value[None, :], other=0), state)
            t, place, there, real, segment, before, after = tokens_of(
                tile, m + 1, segments, length, REVERSE, BLOCK_T
            )
            key, is_key = piece_of(tile + 1, m, d_key, BLOCK_K)
            logs = logs_of(gate, place, real, key, is_key, BY_KEY)
            earlier, _whole = ends_of(logs, segment, before, after, t, EARLIER, BY_KEY)
            d_finds *= earlier
            at = own_at(at_d_moves, i, t, key, d_key, BLOCK_T)
            d_moves = tl.load(own + at, mask=is_key[None, :], other=0)
            d_query, d_moves = add_pairs(
                own, tables, tile, 1, m, queries, moves, d_query, d_moves, gate, segments,
                length, d_key, BEFORE, REVERSE, BY_KEY, BLOCK_K, BLOCK_T,
            )  # fmt: skip
            d_finds, d_keys = add_pairs(
                own, tables, tile, 2, m, finds, keys, d_finds, d_keys, gate, segments,
                length, d_key, True, REVERSE, BY_KEY, BLOCK_K, BLOCK_T,
            )  # fmt: skip
            d_finds, d_moves = add_pairs(
                own, tables, tile, 3, m, finds, moves, d_finds, d_moves, gate, segments,
                length, d_key, True, REVERSE, BY_KEY, BLOCK_K, BLOCK_T,
            )  # fmt: skip
        t, place, there, real, _segment, _before, _after = tokens_of(
            tile, m + 2, segments, length, REVERSE, BLOCK_T
        )
        key, is_key = piece_of(tile + 2, m, d_key, BLOCK_K)
        query = rows_at(queries, place, real, key, is_key)
        k = rows_at(keys, place, real, key, is_key)
        late, early = -k.to(tl.float32) * d_keys, tl.zeros_like(d_keys)
        if BEFORE:
            early += query.to(tl.float32) * d_query
        else:
            late += query.to(tl.float32) * d_query
        to = (row + place * n_heads)[:, None] * d_key + key[None, :]
        mask = there[:, None] & is_key[None, :]
        tl.store(dq + to, d_query.to(dq.dtype.element_ty), mask=mask)
        tl.store(dk + to, d_keys.to(dk.dtype.element_ty), mask=mask)
        if RANK_ONE:
            late -= rows_at(moves, place, real, key, is_key).to(tl.float32) * d_moves
            early += rows_at(finds, place, real, key, is_key).to(tl.float32) * d_finds
            tl.store(da + to, d_finds.to(da.dtype.element_ty), mask=mask)
            tl.store(db + to, d_moves.to(db.dtype.element_ty), mask=mask)
        if BY_KEY:
            at = own_at(at_flows, i, t, key, d_key, BLOCK_T)
            tl.store(own + at, late + early, mask=is_key[None, :])
            at = own_at(at_late, i, t, key, d_key, BLOCK_T)
            tl.store(own + at, late, mask=is_key[None, :])
        late_all += tl.sum(late, 1)
        early_all += tl.sum(early, 1)
    if not BY_KEY:
        t = lanes(tile, BLOCK_T)
        tl.store(own + (at_flows + i * BLOCK_T + t), late_all + early_all)
        tl.store(own + (at_late + i * BLOCK_T + t), late_all)
    for j in tl.range(0, tl.cdiv(d_value, BLOCK_V), disable_licm=True):
        t, place, _there, real, _segment, _before, _after = tokens_of(
            tile, j, segments, length, REVERSE, BLOCK_T
        )
        value, is_value = piece_of(tile, j, d_value, BLOCK_V)
        found = None
        if RANK_ONE:
            at = own_at(at_found, i, t, value, d_value, BLOCK_T)
            found = tl.load(own + at, mask=is_value[None, :], other=0)
        take_state_on(
            tile, j, rows_at(values, place, real, value, is_value), found, keys, moves, gate,
            own, segments, length, d_key, d_value, REVERSE, BY_KEY, BLOCK_K, BLOCK_V, BLOCK_T,
        )  # fmt: skip


@triton.jit
def keep_met_back(
    tile, i, grads, values, FINDS: tl.constexpr, FOUND: tl.constexpr,
    own, at_found, at_d_found, tables, gate, segments, length, d_value, scale,
    BEFORE: tl.constexpr, REVERSE: tl.constexpr, BY_KEY: tl.constexpr,
    BLOCK_V: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """Write down what comes to the meetings of tokens with what others wrote, ``(T, T)``.

    By row the tokens read, or what they found of others (``FINDS``); by column the others' values,
    or what these had ``FOUND``. Decayed, if that is by head.
    """
    which = (2 if FINDS else 0) + (1 if FOUND else 0)
    back = tl.zeros([BLOCK_T, BLOCK_T], tl.float32)
    for j in tl.range(0, tl.cdiv(d_value, BLOCK_V), disable_licm=True):
        t, place, _there, real, _segment, _before, _after = tokens_of(
            tile, which + j, segments, length, REVERSE, BLOCK_T
        )
        value, is_value = piece_of(tile, j, d_value, BLOCK_V)
        if FINDS:
            at = own_at(at_d_found, i, t, value, d_value, BLOCK_T)
            rows = tl.load(own + at, mask=is_value[None, :], other=0)
        else:
            rows = scale * rows_at(grads, place, real, value, is_value).to(tl.float32)
        if FOUND:
            at = own_at(at_found, i, t, value, d_value, BLOCK_T)
            columns = tl.load(own + at, mask=is_value[None, :], other=0)
        else:
            columns = rows_at(values, place, real, value, is_value)
        back += dot(rows, tl.trans(columns))
    t, place, _there, real, segment, _before, _after = tokens_of(
        tile, which, segments, length, REVERSE, BLOCK_T
    )
    if BY_KEY:
        back = tl.where(sees(segment, t, FINDS or BEFORE), back, 0)
    else:
        logs = logs_of(gate, place, real, t, real, False)
        back *= between(logs, segment, t, FINDS or BEFORE)
    tl.store(own + table_at(tables, which, tile, BLOCK_T), back)


@triton.jit
def add_pairs(
    own, tables, tile, which, m, lefts, rights, d_left, d_right, gate, segments, length, d_key,
    BEFORE: tl.constexpr, REVERSE: tl.constexpr, BY_KEY: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """Adds to the gradients of both sides what that of their meetings, the ``which``-th, brings.

    Of the ``m``-th piece of the keys.
    """
    for turn in tl.range(0, once(tile), disable_licm=True):
        t, place, _there, real, _segment, _before, _after = tokens_of(
            tile, which + turn, segments, length, REVERSE, BLOCK_T
        )
        back = tl.load(own + table_at(tables, which, tile + turn, BLOCK_T))
        key, is_key = piece_of(tile + turn, m, d_key, BLOCK_K)
        left = rows_at(lefts, place, real, key, is_key)
        right = rows_at(rights, place, real, key, is_key)
        if BY_KEY:
            logs = logs_of(gate, place, real, key, is_key, True)
            left, right = left.to(tl.float32), right.to(tl.float32)
            sums = tl.zeros([BLOCK_T, BLOCK_K], tl.float32)
            for i in tl.range(0, BLOCK_T, disable_licm=True):
                j = BLOCK_T - 1 - i
                is_j = (t == j)[:, None]
                weight = tl.sum(tl.where((t == j)[None, :], back, 0), 1)[:, None] * tl.exp(sums)
                d_left += weight * tl.sum(tl.where(is_j, right, 0), 0)[None, :]
                d_right += tl.where(is_j, tl.sum(weight * left, 0)[None, :], 0)
                step = tl.sum(tl.where(is_j, logs, 0), 0)[None, :]
                sums += tl.where((t > j if BEFORE else t >= j)[:, None], step, 0)
        else:
            d_left += dot(back, right)
            d_right += dot(tl.trans(back), left)
    return d_left, d_right


@triton.jit
def add_up_decays(
    first, n_tiles, segments, own, at_flows, at_late, at_ends, dg, row, length, n_heads, d_key,
    REVERSE: tl.constexpr, BY_KEY: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """The gradients of decays of a part, from its end: what flows to them from there on."""
    n_pieces = tl.cdiv(d_key, BLOCK_K) if BY_KEY else 1
    # Other threads of the program have written what is read here.
    tl.debug_barrier()
    for m in tl.range(0, n_pieces, disable_licm=True):
        if BY_KEY:
            key, is_key = piece_of(first, m, d_key, BLOCK_K)
            behind = tl.load(own + (at_ends + key), mask=is_key, other=0)[None, :]
        else:
            behind = tl.load(own + (at_ends + tl.arange(0, 1)))[None, :]
        for p in tl.range(0, n_tiles, disable_licm=True):
            i = n_tiles - 1 - p
            t, place, there, real, segment, before, after = tokens_of(
                first + i, m, segments, length, REVERSE, BLOCK_T
            )
            if BY_KEY:
                at = own_at(at_flows, i, t, key, d_key, BLOCK_T)
                flow = tl.load(own + at, mask=is_key[None, :], other=0)
                at = own_at(at_late, i, t, key, d_key, BLOCK_T)
                d_log = tl.load(own + at, mask=is_key[None, :], other=0)
            else:
                flow = tl.load(own + (at_flows + i * BLOCK_T + t))[:, None]
                d_log = tl.load(own + (at_late + i * BLOCK_T + t))[:, None]
            follows = (t[:, None] < t[None, :]) & (segment[:, None] == segment[None, :])
            d_log += totals(follows, flow, BY_KEY)
            d_log += tl.where((segment == after)[:, None], behind, 0)
            d_log = tl.where(real[:, None], d_log, 0).to(dg.dtype.element_ty)
            to = (row + place * n_heads)[:, None]
            if BY_KEY:
                mask = there[:, None] & is_key[None, :]
                tl.store(dg + to * d_key + key[None, :], d_log, mask=mask)
            else:
                tl.store(dg + to, d_log, mask=there[:, None])
            in_first = tl.where((segment == before)[:, None], flow, 0)
            behind = tl.where(before == after, behind, 0) + tl.sum(in_first, 0)[None, :]
    # What other threads of the program read here is written over.
    tl.debug_barrier()
