"""How the positions of a tile meet in Mamba-2's scan on a GPU: a few of them at a time.

Registers hold a tile's outputs beside a few columns of its scores, not all. A score is
``C[t] B[j]^T exp(sum of dt A between)``.
"""

# Triton compiles what is below: to a type checker its tiles are Python's values.
# pyright: reportArgumentType=false, reportOperatorIssue=false, reportGeneralTypeIssues=false

import triton
import triton.language as tl

from tristate.kernels.ssd.triton_tiles import PIECE, gated_rows_at, rows_at, steps_at, stop_of
from tristate.kernels.triton.products import dot


@triton.jit
def add_earlier(
    y, tile, x, x_t, x_p, B, B_t, B_n, C, C_t, C_n, p, is_channel, n_states, log_decay,
    place, real, segment, sizes, segments, length,
    REVERSE: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """``y``, and to each row what it takes of the tile's own inputs: ``scores dt x``."""
    stop = stop_of(tile, length, BLOCK_T)
    for start in tl.range(tile * BLOCK_T, stop, PIECE, disable_licm=True):
        column = start + tl.arange(0, PIECE)
        size, there, other = steps_at(sizes, segments, column, length)
        scores = products_of(
            C, C_t, C_n, place, real, B, B_t, B_n, column, there, n_states, length,
            REVERSE,
        )  # fmt: skip
        steps = tl.where(place[:, None] > column[None, :], log_decay[:, None], 0)
        reached = (place[:, None] >= column[None, :]) & (segment[:, None] == other[None, :])
        scores *= tl.where(reached, tl.exp(tl.cumsum(steps, 0)), 0) * size[None, :]
        y += dot(scores, rows_at(x, x_t, x_p, column, there, p, is_channel, length, REVERSE))
    return y


@triton.jit
def add_later(
    d_entering, tile, grad_out, grad_t, grad_p, z, z_t, z_p, B, B_t, B_n, C, C_t, C_n,
    p, is_channel, n_states, rate,
    place, real, segment, sizes, segments, length,
    REVERSE: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """``d_entering``, and to each row what the tile's own outputs bring: ``scores^T dy``."""
    passed = tl.zeros([BLOCK_T], tl.float32)
    stop = stop_of(tile, length, BLOCK_T)
    for start in tl.range(tile * BLOCK_T, stop, PIECE, disable_licm=True):
        column = start + tl.arange(0, PIECE)
        size, there, other = steps_at(sizes, segments, column, length)
        scores = products_of(
            B, B_t, B_n, place, real, C, C_t, C_n, column, there, n_states, length,
            REVERSE,
        )  # fmt: skip
        steps = tl.where(column[None, :] > place[:, None], (size * rate)[None, :], 0)
        reached = (column[None, :] >= place[:, None]) & (segment[:, None] == other[None, :])
        scores *= tl.where(reached, tl.exp(passed[:, None] + tl.cumsum(steps, 1)), 0)
        passed += tl.sum(steps, 1)
        dy = gated_rows_at(
            grad_out, grad_t, grad_p, z, 0, z_t, z_p, column, there, p, is_channel, length, REVERSE
        )
        d_entering += dot(scores, dy)
    return d_entering


@triton.jit
def products_of(
    left, left_t, left_n, row, is_row, right, right_t, right_n, column, is_column,
    n_states, length, REVERSE: tl.constexpr,
):  # fmt: skip
    """Of positions by row and by column, the products of ``left`` with ``right``."""
    found = tl.zeros([row.shape[0], column.shape[0]], tl.float32)
    for first in tl.range(0, n_states, PIECE, disable_licm=True):
        n = first + tl.arange(0, PIECE)
        rows = rows_at(left, left_t, left_n, row, is_row, n, n < n_states, length, REVERSE)
        columns = rows_at(
            right, right_t, right_n, column, is_column, n, n < n_states, length, REVERSE
        )
        found += dot(rows, tl.trans(columns))
    return found
