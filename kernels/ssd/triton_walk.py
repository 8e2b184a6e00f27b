"""One tile's step of the state of Mamba-2's scan on a GPU, and of its gradient."""

# Triton compiles what is below: to a type checker its tiles are Python's values.
# pyright: reportArgumentType=false, reportOperatorIssue=false, reportGeneralTypeIssues=false

import triton
import triton.language as tl

from tristate.kernels.ssd.triton_tiles import (
    PIECE,
    gated_rows_at,
    left_of_state,
    rows_at,
    steps_at,
    stop_of,
)
from tristate.kernels.triton.products import dot


@triton.jit
def state_after(
    h, tile, x, x_t, x_p, B, B_t, B_n, p, is_channel, n, is_n,
    place, log_decay, before, after, sizes, segments, length,
    REVERSE: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """Columns ``n`` of the state ``(P, N)`` behind a tile, from those before it."""
    h *= left_of_state(log_decay, before, after)
    stop = stop_of(tile, length, BLOCK_T)
    for start in tl.range(tile * BLOCK_T, stop, PIECE, disable_licm=True):
        here = start + tl.arange(0, PIECE)
        size, there, segment = steps_at(sizes, segments, here, length)
        later = tl.where(place[:, None] > here[None, :], log_decay[:, None], 0)
        weight = tl.where(segment == after, size * tl.exp(tl.sum(later, 0)), 0)[:, None]
        rows = rows_at(x, x_t, x_p, here, there, p, is_channel, length, REVERSE).to(tl.float32)
        columns = rows_at(B, B_t, B_n, here, there, n, is_n, length, REVERSE)
        h += dot(tl.trans(weight * rows), columns)
    return h


@triton.jit
def slope_before(
    g, tile, grad_out, grad_t, grad_p, z, z_t, z_p, C, C_t, C_n, p, is_channel, n, is_n,
    place, log_decay, before, after, sizes, segments, length,
    REVERSE: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """Columns ``n`` of the gradient of the state before a tile, from those behind it."""
    g *= left_of_state(log_decay, before, after)
    stop = stop_of(tile, length, BLOCK_T)
    for start in tl.range(tile * BLOCK_T, stop, PIECE, disable_licm=True):
        here = start + tl.arange(0, PIECE)
        _, there, segment = steps_at(sizes, segments, here, length)
        upto = tl.where(place[:, None] <= here[None, :], log_decay[:, None], 0)
        weight = tl.where(segment == before, tl.exp(tl.sum(upto, 0)), 0)[:, None]
        rows = gated_rows_at(
            grad_out, grad_t, grad_p, z, 0, z_t, z_p, here, there, p, is_channel, length, REVERSE
        ).to(tl.float32)
        columns = rows_at(C, C_t, C_n, here, there, n, is_n, length, REVERSE)
        g += dot(tl.trans(weight * rows), columns)
    return g
