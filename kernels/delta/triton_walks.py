"""What is found of the gated delta rule's gradients on the way through a part of a sequence."""

# Triton compiles what is below: to a type checker its tiles are Python's values.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false
# pyright: reportOperatorIssue=false, reportPossiblyUnboundVariable=false, reportGeneralTypeIssues=false

import triton
import triton.language as tl

from tristate.kernels.delta.triton_tiles import (
    ends_of,
    held,
    inverse_of,
    logs_of,
    meetings,
    rates_of,
    rows_at,
    steps_of,
    take_state_on,
    written_by,
)
from tristate.kernels.triton.axes import piece_of
from tristate.kernels.triton.memory import own_at, state_at, table_at
from tristate.kernels.triton.products import dot
from tristate.kernels.triton.triangular import substitute_transposed


@triton.jit
def find_errors(
    tile, i, keys, values, rate, gate, segments, own, at_errors, tables, length, n, d_key, d_value,
    REVERSE: tl.constexpr, BY_KEY: tl.constexpr, BY_VALUE: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_T: tl.constexpr, N_LEVELS: tl.constexpr,
):  # fmt: skip
    """Take the state over a part's ``i``-th tile, and write down what its steps correct."""
    finds = meetings(
        tile, 0, keys, keys, gate, segments, length, n, d_key,
        False, REVERSE, BY_KEY, BLOCK_K, BLOCK_T,
    )  # fmt: skip
    t, _token, place, _turn, _there, real, _segment, _before, _after = steps_of(
        tile, 1, segments, length, n, REVERSE, BLOCK_T
    )
    by_head = rates_of(rate, place, real, t, real, False)
    inverse = inverse_of(finds, by_head, t, BY_VALUE, BLOCK_T, N_LEVELS)
    tl.store(own + table_at(tables, 0, tile, BLOCK_T), finds)
    tl.store(own + table_at(tables, 1, tile, BLOCK_T), inverse)
    # Other threads of the program read what these wrote.
    tl.debug_barrier()
    for j in tl.range(0, tl.cdiv(d_value, BLOCK_V), disable_licm=True):
        seen = held(
            tile, j, j, keys, keys, gate, own, segments, length, n, d_key, d_value,
            False, False, REVERSE, BY_KEY, BLOCK_K, BLOCK_V, BLOCK_T,
        )  # fmt: skip
        t, _token, place, _turn, _there, real, _segment, _before, _after = steps_of(
            tile, j, segments, length, n, REVERSE, BLOCK_T
        )
        value, is_value = piece_of(tile, j, d_value, BLOCK_V)
        wanted = rows_at(values, place, real, value, is_value).to(tl.float32) - seen
        rates = rates_of(rate, place, real, value, is_value, BY_VALUE)
        finds = tl.load(own + table_at(tables, 0, tile + j, BLOCK_T))
        inverse = tl.load(own + table_at(tables, 1, tile + j, BLOCK_T))
        written = written_by(wanted, rates, finds, inverse, t, BY_VALUE, BLOCK_T)
        to = own + own_at(at_errors, i, t, value, d_value, BLOCK_T)
        tl.store(to, wanted - dot(finds, written), mask=is_value[None, :])
        take_state_on(
            tile, j, j, written, keys, gate, own, segments, length, n, d_key, d_value,
            REVERSE, BY_KEY, BLOCK_K, BLOCK_V, BLOCK_T,
        )  # fmt: skip


@triton.jit
def find_slopes(
    tile, i, grads, queries, keys, rate, gate, segments, slope,
    own, at_errors, at_d_errors, at_d_writes, tables, dv, dbeta, step_row,
    length, n, n_heads, d_key, d_value, scale,
    REVERSE: tl.constexpr, BY_KEY: tl.constexpr, BY_VALUE: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_T: tl.constexpr, N_LEVELS: tl.constexpr,
):  # fmt: skip
    """Take the gradient of the state back over a part's ``i``-th tile.

    And write down those of errors, and with a ``dv`` those of values and rates, and what comes to
    the keys from what they wrote.
    """
    finds = meetings(
        tile, 0, keys, keys, gate, segments, length, n, d_key,
        False, REVERSE, BY_KEY, BLOCK_K, BLOCK_T,
    )  # fmt: skip
    shows = meetings(
        tile, 1, queries, keys, gate, segments, length, n, d_key,
        True, REVERSE, BY_KEY, BLOCK_K, BLOCK_T,
    )  # fmt: skip
    t, _token, place, _turn, _there, real, _segment, _before, _after = steps_of(
        tile, 2, segments, length, n, REVERSE, BLOCK_T
    )
    by_head = rates_of(rate, place, real, t, real, False)
    # With rates by value each has a system of its own, and what it finds takes the inverse's place.
    inverse = inverse_of(finds, by_head, t, BY_VALUE, BLOCK_T, N_LEVELS)
    tl.store(own + table_at(tables, 0, tile, BLOCK_T), inverse)
    tl.store(own + table_at(tables, 1, tile, BLOCK_T), shows)
    # Other threads of the program read what these wrote.
    tl.debug_barrier()
    d_rate_sum = tl.zeros([BLOCK_T], tl.float32)
    for j in tl.range(0, tl.cdiv(d_value, BLOCK_V), disable_licm=True):
        d_written = held(
            tile, j, j, keys, keys, gate, slope, segments, length, n, d_key, d_value,
            False, True, REVERSE, BY_KEY, BLOCK_K, BLOCK_V, BLOCK_T,
        )  # fmt: skip
        t, token, place, turn, there, real, _segment, _before, _after = steps_of(
            tile, j, segments, length, n, REVERSE, BLOCK_T
        )
        value, is_value = piece_of(tile, j, d_value, BLOCK_V)
        rates = rates_of(rate, place, real, value, is_value, BY_VALUE)
        dy = rows_at(grads, token, real & (turn == n - 1), value, is_value).to(tl.float32)
        shows = tl.load(own + table_at(tables, 1, tile + j, BLOCK_T))
        d_written += dot(tl.trans(shows), scale * dy)
        inverse = tl.load(own + table_at(tables, 0, tile + j, BLOCK_T))
        if BY_VALUE:
            d_written = substitute_transposed(inverse, rates, d_written, t, BLOCK_T)
        else:
            d_written = dot(tl.trans(inverse), d_written)
        d_error = rates * d_written
        to, is_own = own + own_at(at_d_errors, i, t, value, d_value, BLOCK_T), is_value[None, :]
        tl.store(to, d_error, mask=is_own)
        if dv is not None:
            of_value = (step_row + place * n_heads)[:, None] * d_value + value[None, :]
            is_step = there[:, None] & is_value[None, :]
            tl.store(dv + of_value, d_error.to(dv.dtype.element_ty), mask=is_step)
            at = own_at(at_errors, i, t, value, d_value, BLOCK_T)
            d_rate = d_written * tl.load(own + at, mask=is_own, other=0)
            d_rate = tl.where(real[:, None], d_rate, 0)
            if BY_VALUE:
                tl.store(dbeta + of_value, d_rate.to(dbeta.dtype.element_ty), mask=is_step)
            else:
                d_rate_sum += tl.sum(d_rate, 1)
    if dv is not None and not BY_VALUE:
        t, _token, place, _turn, there, _real, _segment, _before, _after = steps_of(
            tile, 3, segments, length, n, REVERSE, BLOCK_T
        )
        of_step = dbeta + step_row + place * n_heads
        tl.store(of_step, d_rate_sum.to(dbeta.dtype.element_ty), mask=there)
    # Other threads of the program read what these wrote.
    tl.debug_barrier()
    if dv is not None:
        for m in tl.range(0, tl.cdiv(d_key, BLOCK_K), disable_licm=True):
            key, is_key = piece_of(tile, m, d_key, BLOCK_K)
            d_write = tl.zeros([BLOCK_T, BLOCK_K], tl.float32)
            for j in tl.range(0, tl.cdiv(d_value, BLOCK_V), disable_licm=True):
                t, _token, place, _turn, _there, real, _segment, _before, _after = steps_of(
                    tile, j, segments, length, n, REVERSE, BLOCK_T
                )
                value, is_value = piece_of(tile, j, d_value, BLOCK_V)
                rates = rates_of(rate, place, real, value, is_value, BY_VALUE)
                at = own_at(at_errors, i, t, value, d_value, BLOCK_T)
                written = rates * tl.load(own + at, mask=is_value[None, :], other=0)
                at, inside = state_at(tile, m, j, d_key, d_value, BLOCK_K, BLOCK_V)
                d_write += dot(written, tl.load(slope + at, mask=inside, other=0))
            t, token, _place, turn, _there, real, segment, before, after = steps_of(
                tile, m, segments, length, n, REVERSE, BLOCK_T
            )
            logs = logs_of(gate, token, real & (turn == 0), key, is_key, BY_KEY)
            _here, _whole, left = ends_of(logs, segment, before, after, t, BY_KEY)
            to = own + own_at(at_d_writes, i, t, key, d_key, BLOCK_T)
            tl.store(to, left * d_write, mask=is_key[None, :])
    take_slope_back(
        tile, i, grads, queries, keys, gate, segments, slope, own, at_d_errors,
        length, n, d_key, d_value, scale, REVERSE, BY_KEY, BLOCK_K, BLOCK_V, BLOCK_T,
    )  # fmt: skip


@triton.jit
def take_slope_back(
    tile, i, grads, queries, keys, gate, segments, slope, own, at_d_errors,
    length, n, d_key, d_value, scale,
    REVERSE: tl.constexpr, BY_KEY: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """Take the gradient of the state back over a tile, of whose errors those are known."""
    # What other threads of the program read here they may still read, and will read what is new.
    tl.debug_barrier()
    for m in tl.range(0, tl.cdiv(d_key, BLOCK_K), disable_licm=True):
        for j in tl.range(0, tl.cdiv(d_value, BLOCK_V), disable_licm=True):
            t, token, place, turn, _there, real, segment, before, after = steps_of(
                tile, j, segments, length, n, REVERSE, BLOCK_T
            )
            reads = real & (turn == n - 1)
            key, is_key = piece_of(tile + j, m, d_key, BLOCK_K)
            value, is_value = piece_of(tile, j, d_value, BLOCK_V)
            logs = logs_of(gate, token, real & (turn == 0), key, is_key, BY_KEY)
            here, whole, _left = ends_of(logs, segment, before, after, t, BY_KEY)
            dy = scale * rows_at(grads, token, reads, value, is_value).to(tl.float32)
            query = rows_at(queries, token, reads, key, is_key)
            at = own_at(at_d_errors, i, t, value, d_value, BLOCK_T)
            d_error = tl.load(own + at, mask=is_value[None, :], other=0)
            key_rows = rows_at(keys, place, real, key, is_key)
            if BY_KEY:
                change = dot(tl.trans(dy), query.to(tl.float32) * here)
                change -= dot(tl.trans(d_error), key_rows.to(tl.float32) * here)
            else:
                change = dot(tl.trans(here * dy), query)
                change -= dot(tl.trans(here * d_error), key_rows)
            at, inside = state_at(tile, m, j, d_key, d_value, BLOCK_K, BLOCK_V)
            d_state = tl.load(slope + at, mask=inside, other=0)
            tl.store(slope + at, whole * d_state + change, mask=inside)
    tl.debug_barrier()
