"""What is found of linear attention's gradients on the way through a part of a sequence."""

# Triton compiles what is below: to a type checker its tiles are Python's values.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false
# pyright: reportOperatorIssue=false, reportPossiblyUnboundVariable=false, reportGeneralTypeIssues=false

import triton
import triton.language as tl

from tristate.kernels.attention.triton_forward import solved
from tristate.kernels.attention.triton_tiles import (
    EARLIER,
    LEFT,
    UPTO,
    add_brought,
    ends_of,
    held,
    left_whole,
    logs_of,
    meetings,
    rows_at,
    take_state_on,
    tokens_of,
)
from tristate.kernels.triton.axes import lanes, piece_of
from tristate.kernels.triton.memory import own_at, state_at, table_at
from tristate.kernels.triton.products import dot


@triton.jit
def walk(
    tile, i, keys, values, finds, moves, gate, segments, own, at_found, tables,
    length, d_key, d_value,
    RANK_ONE: tl.constexpr, REVERSE: tl.constexpr, BY_KEY: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_T: tl.constexpr, N_LEVELS: tl.constexpr,
):  # fmt: skip
    """Take the state over a part's ``i``-th tile, and write down what its tokens found in it."""
    if RANK_ONE:
        wrote = meetings(
            tile, 0, finds, keys, gate, segments, length, d_key,
            True, REVERSE, BY_KEY, BLOCK_K, BLOCK_T,
        )  # fmt: skip
        inverse = solved(
            tile, 1, finds, moves, gate, segments, length, d_key,
            REVERSE, BY_KEY, BLOCK_K, BLOCK_T, N_LEVELS,
        )  # fmt: skip
        tl.store(own + table_at(tables, 0, tile, BLOCK_T), wrote)
        tl.store(own + table_at(tables, 1, tile, BLOCK_T), inverse)
        # Other threads of the program read what these wrote.
        tl.debug_barrier()
    for j in tl.range(0, tl.cdiv(d_value, BLOCK_V), disable_licm=True):
        found = None
        value, is_value = piece_of(tile, j, d_value, BLOCK_V)
        if RANK_ONE:
            found = held(
                tile, j, j, finds, gate, own, segments, length, d_key, d_value,
                EARLIER, REVERSE, BY_KEY, BLOCK_K, BLOCK_V, BLOCK_T,
            )  # fmt: skip
        t, place, _there, real, _segment, _before, _after = tokens_of(
            tile, j, segments, length, REVERSE, BLOCK_T
        )
        brings = rows_at(values, place, real, value, is_value)
        if RANK_ONE:
            found += dot(tl.load(own + table_at(tables, 0, tile + j, BLOCK_T)), brings)
            found = dot(tl.load(own + table_at(tables, 1, tile + j, BLOCK_T)), found)
            to = own + own_at(at_found, i, t, value, d_value, BLOCK_T)
            tl.store(to, found, mask=is_value[None, :])
        take_state_on(
            tile, j, brings, found, keys, moves, gate, own, segments,
            length, d_key, d_value, REVERSE, BY_KEY, BLOCK_K, BLOCK_V, BLOCK_T,
        )  # fmt: skip


@triton.jit
def find_slopes(
    tile, i, grads, queries, keys, values, finds, moves, gate, segments, slope,
    own, at_found, at_d_found, at_d_keys, at_d_moves, tables, dv, row, length, n_heads,
    d_key, d_value, scale,
    RANK_ONE: tl.constexpr, BEFORE: tl.constexpr, REVERSE: tl.constexpr, BY_KEY: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_T: tl.constexpr, N_LEVELS: tl.constexpr,
):  # fmt: skip
    """Take the gradient of the state back over a part's ``i``-th tile.

    And write down that of what its tokens found, and with a ``dv`` that of values, and what comes
    to keys and moves from the state behind.
    """
    if dv is not None:
        shows = meetings(
            tile, 0, queries, keys, gate, segments, length, d_key,
            BEFORE, REVERSE, BY_KEY, BLOCK_K, BLOCK_T,
        )  # fmt: skip
        tl.store(own + table_at(tables, 0, tile, BLOCK_T), shows)
    if RANK_ONE:
        inverse = solved(
            tile, 1, finds, moves, gate, segments, length, d_key,
            REVERSE, BY_KEY, BLOCK_K, BLOCK_T, N_LEVELS,
        )  # fmt: skip
        tl.store(own + table_at(tables, 1, tile, BLOCK_T), inverse)
        moved = meetings(
            tile, 2, queries, moves, gate, segments, length, d_key,
            BEFORE, REVERSE, BY_KEY, BLOCK_K, BLOCK_T,
        )  # fmt: skip
        tl.store(own + table_at(tables, 2, tile, BLOCK_T), moved)
        if dv is not None:
            wrote = meetings(
                tile, 3, finds, keys, gate, segments, length, d_key,
                True, REVERSE, BY_KEY, BLOCK_K, BLOCK_T,
            )  # fmt: skip
            tl.store(own + table_at(tables, 3, tile, BLOCK_T), wrote)
    # Other threads of the program read what these wrote.
    tl.debug_barrier()
    if RANK_ONE:
        for j in tl.range(0, tl.cdiv(d_value, BLOCK_V), disable_licm=True):
            d_found = held(
                tile, j, j, moves, gate, slope, segments, length, d_key, d_value,
                LEFT, REVERSE, BY_KEY, BLOCK_K, BLOCK_V, BLOCK_T,
            )  # fmt: skip
            t, place, _there, real, _segment, _before, _after = tokens_of(
                tile, j, segments, length, REVERSE, BLOCK_T
            )
            value, is_value = piece_of(tile, j, d_value, BLOCK_V)
            dy = scale * rows_at(grads, place, real, value, is_value).to(tl.float32)
            moved = tl.load(own + table_at(tables, 2, tile + j, BLOCK_T))
            d_found += dot(tl.trans(moved), dy)
            inverse = tl.load(own + table_at(tables, 1, tile + j, BLOCK_T))
            d_found = dot(tl.trans(inverse), d_found)
            to = own + own_at(at_d_found, i, t, value, d_value, BLOCK_T)
            tl.store(to, d_found, mask=is_value[None, :])
        tl.debug_barrier()
    if dv is not None:
        for j in tl.range(0, tl.cdiv(d_value, BLOCK_V), disable_licm=True):
            d_values = held(
                tile, j, j, keys, gate, slope, segments, length, d_key, d_value,
                LEFT, REVERSE, BY_KEY, BLOCK_K, BLOCK_V, BLOCK_T,
            )  # fmt: skip
            t, place, there, real, _segment, _before, _after = tokens_of(
                tile, j, segments, length, REVERSE, BLOCK_T
            )
            value, is_value = piece_of(tile, j, d_value, BLOCK_V)
            dy = scale * rows_at(grads, place, real, value, is_value).to(tl.float32)
            shows = tl.load(own + table_at(tables, 0, tile + j, BLOCK_T))
            d_values += dot(tl.trans(shows), dy)
            if RANK_ONE:
                at = own_at(at_d_found, i, t, value, d_value, BLOCK_T)
                d_found = tl.load(own + at, mask=is_value[None, :], other=0)
                wrote = tl.load(own + table_at(tables, 3, tile + j, BLOCK_T))
                d_values += dot(tl.trans(wrote), d_found)
            to = dv + (row + place * n_heads)[:, None] * d_value + value[None, :]
            mask = there[:, None] & is_value[None, :]
            tl.store(to, d_values.to(dv.dtype.element_ty), mask=mask)
    if dv is not None:
        for m in tl.range(0, tl.cdiv(d_key, BLOCK_K), disable_licm=True):
            d_keys = tl.zeros([BLOCK_T, BLOCK_K], tl.float32)
            for j in tl.range(0, tl.cdiv(d_value, BLOCK_V), disable_licm=True):
                _t, place, _there, real, _segment, _before, _after = tokens_of(
                    tile, j, segments, length, REVERSE, BLOCK_T
                )
                value, is_value = piece_of(tile, j, d_value, BLOCK_V)
                at, inside = state_at(tile, m, j, d_key, d_value, BLOCK_K, BLOCK_V)
                d_state = tl.load(slope + at, mask=inside, other=0)
                d_keys += dot(rows_at(values, place, real, value, is_value), d_state)
            write_down(
                d_keys, tile, i, m, gate, segments, own, at_d_keys, length, d_key,
                REVERSE, BY_KEY, BLOCK_K, BLOCK_T,
            )  # fmt: skip
            if RANK_ONE:
                d_moves = tl.zeros([BLOCK_T, BLOCK_K], tl.float32)
                for j in tl.range(0, tl.cdiv(d_value, BLOCK_V), disable_licm=True):
                    value, is_value = piece_of(tile + 1, j, d_value, BLOCK_V)
                    t = lanes(tile + j, BLOCK_T)
                    at, inside = state_at(tile + 1, m, j, d_key, d_value, BLOCK_K, BLOCK_V)
                    d_state = tl.load(slope + at, mask=inside, other=0)
                    at = own_at(at_found, i, t, value, d_value, BLOCK_T)
                    d_moves += dot(tl.load(own + at, mask=is_value[None, :], other=0), d_state)
                write_down(
                    d_moves, tile, i, m, gate, segments, own, at_d_moves, length, d_key,
                    REVERSE, BY_KEY, BLOCK_K, BLOCK_T,
                )  # fmt: skip
    take_slope_back(
        tile, i, grads, queries, finds, gate, segments, slope, own, at_d_found,
        length, d_key, d_value, scale,
        RANK_ONE, BEFORE, REVERSE, BY_KEY, BLOCK_K, BLOCK_V, BLOCK_T,
    )  # fmt: skip


@triton.jit
def write_down(
    found, tile, i, m, gate, segments, own, first, length, d_key,
    REVERSE: tl.constexpr, BY_KEY: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """Keep what comes to the ``m``-th piece of a tile's rows, decayed from the state behind."""
    t, place, _there, real, segment, before, after = tokens_of(
        tile, m, segments, length, REVERSE, BLOCK_T
    )
    key, is_key = piece_of(tile, m, d_key, BLOCK_K)
    logs = logs_of(gate, place, real, key, is_key, BY_KEY)
    left, _whole = ends_of(logs, segment, before, after, t, LEFT, BY_KEY)
    to = own + own_at(first, i, t, key, d_key, BLOCK_T)
    tl.store(to, left * found, mask=is_key[None, :])


@triton.jit
def take_slope_back(
    tile, i, grads, queries, finds, gate, segments, slope, own, at_d_found,
    length, d_key, d_value, scale,
    RANK_ONE: tl.constexpr, BEFORE: tl.constexpr, REVERSE: tl.constexpr, BY_KEY: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """Take the gradient of the state back over a tile, where that of what it found is known."""
    # What other threads of the program read here they may still read, and will read what is new.
    tl.debug_barrier()
    for m in tl.range(0, tl.cdiv(d_key, BLOCK_K), disable_licm=True):
        for j in tl.range(0, tl.cdiv(d_value, BLOCK_V), disable_licm=True):
            at, inside = state_at(tile, m, j, d_key, d_value, BLOCK_K, BLOCK_V)
            new = left_whole(
                tile, j, m, gate, segments, length, d_key, REVERSE, BY_KEY, BLOCK_K, BLOCK_T
            )
            new *= tl.load(slope + at, mask=inside, other=0)
            t, place, _there, real, _segment, _before, _after = tokens_of(
                tile, j, segments, length, REVERSE, BLOCK_T
            )
            value, is_value = piece_of(tile, j, d_value, BLOCK_V)
            dy = scale * rows_at(grads, place, real, value, is_value).to(tl.float32)
            new = add_brought(
                new, tile, j, m, queries, dy, gate, segments, length, d_key,
                EARLIER if BEFORE else UPTO, REVERSE, BY_KEY, BLOCK_K, BLOCK_T,
            )  # fmt: skip
            if RANK_ONE:
                own_here = own + own_at(at_d_found, i, t, value, d_value, BLOCK_T)
                d_found = tl.load(own_here, mask=is_value[None, :], other=0)
                new = add_brought(
                    new, tile, j + 1, m, finds, d_found, gate, segments, length, d_key,
                    EARLIER, REVERSE, BY_KEY, BLOCK_K, BLOCK_T,
                )  # fmt: skip
            tl.store(slope + at, new, mask=inside)
    tl.debug_barrier()
