"""What the kernels of Mamba-2's scan read and write of a tile of time."""

# Triton compiles what is below: to a type checker its tiles are Python's values.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false

import triton
import triton.language as tl

from tristate.kernels.triton.decays import segment_after, segment_before, segments_at
from tristate.kernels.triton.functions import sigmoid

PIECE = tl.constexpr(16)
"""Positions or states that a product takes at once of a long axis: registers hold no more."""


@triton.jit
def steps_at(sizes, segments, place, length):
    """Of positions: the step size, which are real, and their segment.

    A step of no size leaves the state as it is: padding, and what lies beyond the end.
    """
    real = place < length
    size = tl.load(sizes + place, mask=real, other=0)
    segment = tl.zeros_like(place)
    if segments is not None:
        segment, is_real = segments_at(segments, place)
        real &= is_real
    return size, real, segment


@triton.jit
def tile_at(tile, sizes, rate, segments, length, BLOCK_T: tl.constexpr):
    """:func:`steps_at` of a tile after its positions, and its decays: ``(T,)`` each.

    And the segments of the states before and behind the tile.
    """
    t = tl.arange(0, BLOCK_T)
    place = tile * BLOCK_T + t
    size, real, segment = steps_at(sizes, segments, place, length)
    before = 0
    if segments is not None:
        before = segment_before(segments, tile * BLOCK_T)
    return place, size, real, size * rate, segment, before, segment_after(segment, t, BLOCK_T)


@triton.jit
def stop_of(tile, length, BLOCK_T: tl.constexpr):
    """Where a loop over a tile's positions ends.

    A count of pieces that the compiler knew would be unrolled, with all loads held in registers.
    """
    return tl.minimum((tile + 1) * BLOCK_T, length)


@triton.jit
def rows_at(x, x_t, x_c, place, real, lane, inside, length, REVERSE: tl.constexpr):
    """A tile ``(T, lanes)``, zeros where a position isn't real."""
    at = (length - 1 - place if REVERSE else place).to(tl.int64)
    mask = real[:, None] & inside[None, :]
    return tl.load(x + at[:, None] * x_t + lane[None, :] * x_c, mask=mask, other=0)


@triton.jit
def store_rows(x, x_t, x_c, place, lane, inside, values, length, REVERSE: tl.constexpr):
    """Write a tile ``(T, lanes)`` where there are positions."""
    at = (length - 1 - place if REVERSE else place).to(tl.int64)
    mask = (place < length)[:, None] & inside[None, :]
    values = values.to(x.dtype.element_ty)
    tl.store(x + at[:, None] * x_t + lane[None, :] * x_c, values, mask=mask)


@triton.jit
def gated_rows_at(
    x, x_t, x_p, z, z_at, z_t, z_p, place, real, p, is_channel, length, REVERSE: tl.constexpr
):
    """A tile of gradients of what came to the gate, ``z_at`` numbers on in ``z``, if any."""
    rows = rows_at(x, x_t, x_p, place, real, p, is_channel, length, REVERSE)
    if z is not None:
        gate = rows_at(z + z_at, z_t, z_p, place, real, p, is_channel, length, REVERSE)
        gate = gate.to(tl.float32)
        rows = rows.to(tl.float32) * gate * sigmoid(gate)
    return rows


@triton.jit
def left_of_state(log_decay, before, after):
    """What is left behind a tile of the state before it; ``segment``s of both."""
    return tl.where(before == after, tl.exp(tl.sum(log_decay, 0)), 0)
