"""The gradients of ``B`` and ``C`` of Mamba-2's scan on a GPU: sums over the heads of a group."""

# Triton compiles what is below: to a type checker its tiles are Python's values.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false
# pyright: reportOperatorIssue=false, reportPossiblyUnboundVariable=false, reportGeneralTypeIssues=false

import triton
import triton.language as tl

from tristate.kernels.ssd.triton_tiles import (
    PIECE,
    gated_rows_at,
    rows_at,
    steps_at,
    store_rows,
    tile_at,
)
from tristate.kernels.triton.decays import decay_before, segment_before
from tristate.kernels.triton.products import dot


@triton.jit
def weights(
    grad_out, x, sizes, A, B, C, z, segments, kept, slopes, dB, dC,
    length, n_places, n_heads, n_groups, group_heads, split_heads, width, n_states,
    grad_b, grad_t, grad_h, grad_p, x_b, x_t, x_h, x_p,
    B_b, B_t, B_g, B_n, C_b, C_t, C_g, C_n, z_b, z_t, z_h, z_p,
    REVERSE: tl.constexpr, KEPT: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """One tile of time and a block of states, ``split_heads`` heads of a group in turn.

    Of each head it needs the state before the tile's kept part, its gradient behind that part, and
    the other tiles of the part: with those the sums of scores over all heads meet ``B`` and ``C``
    once. ``dB`` and ``dC`` are ``(B, G, splits, L, N)``, added up afterwards.

    COST: reads ``x``, ``grad_out``, ``z``, ``sizes`` once more, since numbers of a head's own that
    are to be added up would be ``4 N`` a step to write and read, and ``kept`` and ``slopes``. With
    that the gradients of a scan without a gate move 2.0 times the least in float32 (6 numbers a
    channel and step against 3), 2.33 in bfloat16; partial sums by head would be 5 times for 64
    channels and 128 states. The ``KEPT`` programs of a part read the same at about the same time:
    all but the first find it in the second cache, ``2 N / T + 2 KEPT`` numbers a channel and step
    of it for each block of states. Operations of a channel and step: ``4 N``, and ``2 T (KEPT +
    1)`` a block of states; ``2 T N (KEPT + 1)`` a step and group. With 128 states, one block, and
    64 heads of 64 channels in a group that is 1700. On an H100 their 131,072 steps in bfloat16 take
    1.0 ms at 3.35 TB/s, and 1.5 ms of matrix units at 989 TFLOP/s if they are full: products with
    states are three, those of ``x`` with ``grad_out`` one.
    """
    program, tile = tl.program_id(0), tl.program_id(1)
    n = tl.program_id(2) * BLOCK_N + tl.arange(0, BLOCK_N)
    n_splits = tl.cdiv(group_heads, split_heads)
    split = program % n_splits
    group = program // n_splits % n_groups
    b = (program // n_splits // n_groups).to(tl.int64)
    t = tl.arange(0, BLOCK_T)
    is_n = n < n_states
    x += b * x_b
    grad_out += b * grad_b
    sizes += b * n_heads * length
    B += b * B_b + group.to(tl.int64) * B_g
    C += b * C_b + group.to(tl.int64) * C_g
    if z is not None:
        z += b * z_b
    if segments is not None:
        segments += b * n_places
    part = tile // KEPT
    n_parts = tl.cdiv(length, KEPT * BLOCK_T)
    n_p = tl.cdiv(width, BLOCK_P)
    first_head = group * group_heads + split * split_heads
    n_items = n_p * tl.minimum(split_heads, (group + 1) * group_heads - first_head)
    # Positions of the part, for what decays before and behind the tile.
    whole = part * KEPT * BLOCK_T + tl.arange(0, KEPT * BLOCK_T)
    before, after = 0, 0
    if segments is not None:
        before = segment_before(segments, part * KEPT * BLOCK_T)
        after = segment_before(segments, (part + 1) * KEPT * BLOCK_T)
    to = ((b * n_groups + group) * n_splits + split) * length * n_states
    # One sum after the other: registers hold one of a whole tile.
    sums = tl.zeros([BLOCK_T, BLOCK_N], tl.float32)
    for item in tl.range(0, n_items, disable_licm=True):
        far, p, is_channel, steps, rate = channels_of(
            item, first_head, n_p, sizes, A, width, length, BLOCK_P
        )
        place, _, real, logs, segment, _, _ = tile_at(tile, steps, rate, segments, length, BLOCK_T)
        outside = summed(whole, whole < tile * BLOCK_T, steps, rate, length)
        left = decay_before(logs, segment, before) * tl.exp(outside)
        dy = gated_rows_at(
            grad_out + far * grad_h, grad_t, grad_p, z, far * z_h, z_t, z_p,
            place, real, p, is_channel, length, REVERSE,
        )  # fmt: skip
        at = ((b * n_parts + part) * n_heads + far) * width * n_states
        at += p[:, None] * n_states + n[None, :]
        h = tl.load(kept + at, mask=is_channel[:, None] & is_n[None, :], other=0)
        sums += left[:, None] * dot(dy, h)
    for start in tl.range(part * KEPT * BLOCK_T, (tile + 1) * BLOCK_T, PIECE, disable_licm=True):
        there = start + tl.arange(0, PIECE)
        met, is_there = read(
            tile, there, whole, grad_out, x, sizes, A, z, segments,
            first_head, n_items, n_p, width, length,
            grad_t, grad_h, grad_p, x_t, x_h, x_p, z_t, z_h, z_p, REVERSE, BLOCK_P, BLOCK_T,
        )  # fmt: skip
        sums += dot(met, rows_at(B, B_t, B_n, there, is_there, n, is_n, length, REVERSE))
    store_rows(dC + to, n_states, 1, tile * BLOCK_T + t, n, is_n, sums, length, REVERSE)
    sums = tl.zeros([BLOCK_T, BLOCK_N], tl.float32)
    for item in tl.range(0, n_items, disable_licm=True):
        far, p, is_channel, steps, rate = channels_of(
            item, first_head, n_p, sizes, A, width, length, BLOCK_P
        )
        place, size, real, _, segment, _, _ = tile_at(tile, steps, rate, segments, length, BLOCK_T)
        behind = summed(whole, whole >= (tile + 1) * BLOCK_T, steps, rate, length)
        left = tl.exp(behind + later_in_tile(tile, length, steps, rate, length, BLOCK_T))
        left = tl.where(segment == after, size * left, 0)
        x_tile = rows_at(x + far * x_h, x_t, x_p, place, real, p, is_channel, length, REVERSE)
        at = ((b * n_parts + part) * n_heads + far) * width * n_states
        at += p[:, None] * n_states + n[None, :]
        g = tl.load(slopes + at, mask=is_channel[:, None] & is_n[None, :], other=0)
        sums += left[:, None] * dot(x_tile, g)
    end = tl.minimum((part + 1) * KEPT * BLOCK_T, length)
    for start in tl.range(tile * BLOCK_T, end, PIECE, disable_licm=True):
        there = start + tl.arange(0, PIECE)
        met, is_there = written(
            tile, there, whole, grad_out, x, sizes, A, z, segments,
            first_head, n_items, n_p, width, length,
            grad_t, grad_h, grad_p, x_t, x_h, x_p, z_t, z_h, z_p, REVERSE, BLOCK_P, BLOCK_T,
        )  # fmt: skip
        sums += dot(met, rows_at(C, C_t, C_n, there, is_there, n, is_n, length, REVERSE))
    store_rows(dB + to, n_states, 1, tile * BLOCK_T + t, n, is_n, sums, length, REVERSE)


@triton.jit
def read(
    tile, column, whole, grad_out, x, sizes, A, z, segments,
    first_head, n_items, n_p, width, length,
    grad_t, grad_h, grad_p, x_t, x_h, x_p, z_t, z_h, z_p,
    REVERSE: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """What a tile's outputs take of inputs in it or earlier, by all heads; which of those are real.

    The sum of ``dy[t] x[j]^T exp(sum of dt A between) dt[j]``, ``t`` by row and ``j`` by column.
    """
    met = tl.zeros([BLOCK_T, PIECE], tl.float32)
    first = sizes + first_head.to(tl.int64) * length
    _sizes, is_column, other = steps_at(first, segments, column, length)
    end = tl.max(column, 0)
    for item in tl.range(0, n_items, disable_licm=True):
        far, p, is_channel, steps, rate = channels_of(
            item, first_head, n_p, sizes, A, width, length, BLOCK_P
        )
        place, _, real, logs, segment, _, _ = tile_at(tile, steps, rate, segments, length, BLOCK_T)
        size = tl.load(steps + column, mask=column < length, other=0)
        dy = gated_rows_at(
            grad_out + far * grad_h, grad_t, grad_p, z, far * z_h, z_t, z_p,
            place, real, p, is_channel, length, REVERSE,
        )  # fmt: skip
        x_tile = rows_at(x + far * x_h, x_t, x_p, column, is_column, p, is_channel, length, REVERSE)
        # What lies between: in the columns, behind them, and in the tile.
        is_outside = column[:, None] < tile * BLOCK_T
        inside = is_outside & (column[:, None] > column[None, :])
        apart = tl.sum(tl.where(inside, size[:, None] * rate, 0), 0)
        is_between = (whole > end) & (whole < tile * BLOCK_T)
        apart += summed(whole, is_between, steps, rate, length)
        later = tl.where(place[:, None] > column[None, :], logs[:, None], 0)
        left = tl.exp(apart[None, :] + tl.cumsum(later, 0)) * size[None, :]
        reached = (place[:, None] >= column[None, :]) & (segment[:, None] == other[None, :])
        met += dot(dy, tl.trans(x_tile)) * tl.where(reached, left, 0)
    return met, is_column


@triton.jit
def written(
    tile, column, whole, grad_out, x, sizes, A, z, segments,
    first_head, n_items, n_p, width, length,
    grad_t, grad_h, grad_p, x_t, x_h, x_p, z_t, z_h, z_p,
    REVERSE: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """:func:`read` of outputs in the tile or later, by column, and the tile's inputs, by row."""
    met = tl.zeros([BLOCK_T, PIECE], tl.float32)
    first = sizes + first_head.to(tl.int64) * length
    _sizes, is_column, other = steps_at(first, segments, column, length)
    start = tl.min(column, 0)
    for item in tl.range(0, n_items, disable_licm=True):
        far, p, is_channel, steps, rate = channels_of(
            item, first_head, n_p, sizes, A, width, length, BLOCK_P
        )
        place, size, real, _, segment, _, _ = tile_at(tile, steps, rate, segments, length, BLOCK_T)
        column_size = tl.load(steps + column, mask=column < length, other=0)
        x_tile = rows_at(x + far * x_h, x_t, x_p, place, real, p, is_channel, length, REVERSE)
        dy = gated_rows_at(
            grad_out + far * grad_h, grad_t, grad_p, z, far * z_h, z_t, z_p,
            column, is_column, p, is_channel, length, REVERSE,
        )  # fmt: skip
        # What lies between: in the tile, behind it, and in the columns.
        apart = later_in_tile(tile, start, steps, rate, length, BLOCK_T)
        is_between = (whole >= (tile + 1) * BLOCK_T) & (whole < start)
        apart += summed(whole, is_between, steps, rate, length)
        later = tl.where(column[None, :] > place[:, None], (column_size * rate)[None, :], 0)
        left = tl.exp(apart[:, None] + tl.cumsum(later, 1)) * size[:, None]
        reached = (column[None, :] >= place[:, None]) & (segment[:, None] == other[None, :])
        met += dot(x_tile, tl.trans(dy)) * tl.where(reached, left, 0)
    return met, is_column


@triton.jit
def channels_of(item, first_head, n_p, sizes, A, width, length, BLOCK_P: tl.constexpr):
    """Of an item, ``n_p`` of them a head: head, channels, those that are, step sizes, rate."""
    head, p = first_head + item // n_p, item % n_p * BLOCK_P + tl.arange(0, BLOCK_P)
    far = head.to(tl.int64)
    return far, p, p < width, sizes + far * length, tl.load(A + head)


@triton.jit
def summed(whole, wanted, steps, rate, length):
    """Of a part's positions the logarithms of decays at those that are ``wanted``, summed."""
    return tl.sum(rate * tl.load(steps + whole, mask=wanted & (whole < length), other=0), 0)


@triton.jit
def later_in_tile(tile, end, steps, rate, length, BLOCK_T: tl.constexpr):
    """Of each position of a tile the logarithms of decays behind it and before ``end``, summed."""
    after = tile * BLOCK_T + 1 + tl.arange(0, BLOCK_T)
    end = tl.minimum(tl.minimum(end, (tile + 1) * BLOCK_T), length)
    size = tl.load(steps + after, mask=after < end, other=0)
    return tl.cumsum(size * rate, 0, reverse=True)
