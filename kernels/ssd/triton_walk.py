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
    tile_at,
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
def state_behind(
    h, tile, x, x_t, x_p, B, B_t, B_n, p, is_channel, n, is_n, sizes, rate, segments, length,
    REVERSE: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """:func:`state_after`, where nothing else is wanted of the tile."""
    place, _, _, log_decay, _, before, after = tile_at(tile, sizes, rate, segments, length, BLOCK_T)
    return state_after(
        h, tile, x, x_t, x_p, B, B_t, B_n, p, is_channel, n, is_n,
        place, log_decay, before, after, sizes, segments, length, REVERSE, BLOCK_T,
    )  # fmt: skip


@triton.jit
def saved_at(saved, p, n, n_states, BLOCK_P: tl.constexpr):
    """Where the ``saved``-th of a block's states lies in the memory of the program's own."""
    return (saved * BLOCK_P + p % BLOCK_P)[:, None] * n_states + n[None, :]


@triton.jit
def save_states(
    kept, own, is_kept, last_tile, x, x_t, x_p, B, B_t, B_n, p, is_channel, n_states,
    sizes, rate, segments, length,
    REVERSE: tl.constexpr, KEPT: tl.constexpr, SAVED: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """To ``own``: the states before each ``SAVED`` of a part's tiles, from that before the part.

    Up to the last tile that there is.
    """
    first_tile, n_saved = last_tile // KEPT * KEPT, last_tile % KEPT // SAVED + 1
    for first in tl.range(0, n_states, BLOCK_N, disable_licm=True):
        n = first + tl.arange(0, BLOCK_N)
        is_n = n < n_states
        inside = is_channel[:, None] & is_n[None, :]
        at = p[:, None] * n_states + n[None, :]
        h = tl.load(kept + at, mask=inside & is_kept, other=0)
        for saved in tl.range(0, n_saved, disable_licm=True):
            tl.store(own + saved_at(saved, p, n, n_states, BLOCK_P), h, mask=inside)
            # None is wanted behind the last of them.
            end = tl.minimum((saved + 1) * SAVED, (n_saved - 1) * SAVED)
            for i in tl.range(saved * SAVED, end, disable_licm=True):
                h = state_behind(
                    h, first_tile + i, x, x_t, x_p, B, B_t, B_n, p, is_channel, n, is_n,
                    sizes, rate, segments, length, REVERSE, BLOCK_T,
                )  # fmt: skip
    # What other threads of the program have written is read next.
    tl.debug_barrier()


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
