"""The gradients of ``B`` and ``C`` of Mamba-2's scan on a GPU: sums over the heads of a group."""

# Triton compiles what is below: to a type checker its tiles are Python's values.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false
# pyright: reportOperatorIssue=false, reportPossiblyUnboundVariable=false

import triton
import triton.language as tl

from tristate.kernels.ssd.triton_tiles import rows_at, steps_at, store_rows
from tristate.kernels.triton.decays import (
    decay_after,
    decay_before,
    decay_between,
    segment_after,
    segment_before,
)
from tristate.kernels.triton.functions import sigmoid
from tristate.kernels.triton.products import dot


@triton.jit
def weights(
    grad_out, x, dt, A, B, C, z, bias, segments, kept, slopes, dB, dC,
    length, n_places, n_heads, n_groups, group_heads, split_heads, width, n_states, least, most,
    grad_b, grad_t, grad_h, grad_p, x_b, x_t, x_h, x_p, dt_b, dt_t, dt_h,
    B_b, B_t, B_g, B_n, C_b, C_t, C_g, C_n, z_b, z_t, z_h, z_p,
    SOFTPLUS: tl.constexpr, REVERSE: tl.constexpr, KEPT: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """One tile of time and a block of states, ``split_heads`` heads of a group in turn.

    Of each head it needs the state before the tile's kept part, its gradient behind that part, and
    the other tiles of the part: with those the sums of scores over all heads meet ``B`` and ``C``
    once. ``dB`` and ``dC`` are ``(B, G, splits, L, N)``, added up afterwards.

    COST: reads ``x``, ``grad_out``, ``z``, ``dt`` once more, since numbers of a head's own that are
    to be added up would be ``4 N`` a step to write and read, and ``kept`` and ``slopes``. With that
    the gradients of a scan without a gate move 2.33 times the least in float32 (7 numbers a channel
    and step against 3); partial sums by head would be 5 times for 64 channels and 128 states. The
    ``KEPT`` programs of a part, and those of its blocks of states, read the same at about the same
    time: all but the first find it in the second cache, ``2 N / T + KEPT`` numbers a channel and
    step of it. Operations of a channel and step: ``4 N``, and ``2 T (KEPT + 1)`` a block of states;
    ``4 T N (KEPT + 1)`` a step and group.
    """
    program, tile = tl.program_id(0), tl.program_id(1)
    n = tl.program_id(2) * BLOCK_N + tl.arange(0, BLOCK_N)
    n_splits = tl.cdiv(group_heads, split_heads)
    split = program % n_splits
    group = program // n_splits % n_groups
    b = (program // n_splits // n_groups).to(tl.int64)
    t, lane = tl.arange(0, BLOCK_T), tl.arange(0, BLOCK_P)
    is_n = n < n_states
    B += b * B_b + group.to(tl.int64) * B_g
    C += b * C_b + group.to(tl.int64) * C_g
    if segments is not None:
        segments += b * n_places
    place = tile * BLOCK_T + t
    part = tile // KEPT
    n_parts = tl.cdiv(length, KEPT * BLOCK_T)
    n_p = tl.cdiv(width, BLOCK_P)
    first_head = group * group_heads + split * split_heads
    n_items = n_p * tl.minimum(split_heads, (group + 1) * group_heads - first_head)
    # Positions of the part, for what decays before and behind the tile.
    whole = part * KEPT * BLOCK_T + tl.arange(0, KEPT * BLOCK_T)
    start, end = 0, 0
    if segments is not None:
        start = segment_before(segments, part * KEPT * BLOCK_T)
        last = tl.load(segments + (part + 1) * KEPT * BLOCK_T - 1)
        end = tl.maximum(last, ~last)

    dB_tile = tl.zeros([BLOCK_T, BLOCK_N], tl.float32)
    dC_tile = tl.zeros([BLOCK_T, BLOCK_N], tl.float32)
    near = tl.zeros([BLOCK_T, BLOCK_T], tl.float32)
    for item in range(n_items):
        head = first_head + item // n_p
        p = item % n_p * BLOCK_P + lane
        is_channel = p < width
        shift = 0.0
        if bias is not None:
            shift = tl.load(bias + head)
        rate = tl.load(A + head)
        times = dt + b * dt_b + head.to(tl.int64) * dt_h
        _, size, real, segment = steps_at(
            times, dt_t, shift, segments, place, length, least, most, SOFTPLUS, REVERSE
        )
        x_tile = rows_at(
            x + b * x_b + head.to(tl.int64) * x_h, x_t, x_p,
            place, real, p, is_channel, length, REVERSE,
        )  # fmt: skip
        dy = gradient_at(
            grad_out + b * grad_b + head.to(tl.int64) * grad_h, grad_t, grad_p,
            z, b * z_b + head.to(tl.int64) * z_h, z_t, z_p,
            place, real, p, is_channel, length, REVERSE,
        )  # fmt: skip
        log_decay = size * rate
        outside = tl.zeros([], tl.float32)
        behind = tl.zeros([], tl.float32)
        if KEPT > 1:
            _, sizes, _, _ = steps_at(
                times, dt_t, shift, segments, whole, length, least, most, SOFTPLUS, REVERSE
            )
            outside = tl.sum(tl.where(whole < tile * BLOCK_T, sizes * rate, 0), 0)
            behind = tl.sum(tl.where(whole >= (tile + 1) * BLOCK_T, sizes * rate, 0), 0)
        at = ((b * n_parts + part) * n_heads + head) * width * n_states
        at += p[:, None] * n_states + n[None, :]
        is_state = is_channel[:, None] & is_n[None, :]
        h = tl.load(kept + at, mask=is_state, other=0)
        g = tl.load(slopes + at, mask=is_state, other=0)
        left = decay_before(log_decay, segment, start) * tl.exp(outside)
        dC_tile += left[:, None] * dot(dy, h)
        left = size * decay_after(log_decay, segment, end, t) * tl.exp(behind)
        dB_tile += left[:, None] * dot(x_tile, g)
        scores = dot(dy, tl.trans(x_tile)) * decay_between(log_decay, segment, t)
        near += scores * size[None, :]
    B_tile = rows_at(
        B, B_t, B_n, place, are_real(segments, place, length), n, is_n, length, REVERSE
    )
    C_tile = rows_at(
        C, C_t, C_n, place, are_real(segments, place, length), n, is_n, length, REVERSE
    )
    dC_tile += dot(near, B_tile)
    dB_tile += dot(tl.trans(near), C_tile)
    if KEPT > 1:
        for other in range(part * KEPT, tile):
            met = scores_between(
                grad_out, x, dt, A, z, bias, segments, tile, other,
                b, first_head, n_items, n_p, width, length, least, most,
                grad_b, grad_t, grad_h, grad_p, x_b, x_t, x_h, x_p, dt_b, dt_t, dt_h,
                z_b, z_t, z_h, z_p, SOFTPLUS, REVERSE, BLOCK_P, BLOCK_T, KEPT,
            )  # fmt: skip
            there = other * BLOCK_T + t
            B_tile = rows_at(
                B, B_t, B_n, there, are_real(segments, there, length), n, is_n, length, REVERSE
            )
            dC_tile += dot(met, B_tile)
        for other in range(tile + 1, (part + 1) * KEPT):
            met = scores_between(
                grad_out, x, dt, A, z, bias, segments, other, tile,
                b, first_head, n_items, n_p, width, length, least, most,
                grad_b, grad_t, grad_h, grad_p, x_b, x_t, x_h, x_p, dt_b, dt_t, dt_h,
                z_b, z_t, z_h, z_p, SOFTPLUS, REVERSE, BLOCK_P, BLOCK_T, KEPT,
            )  # fmt: skip
            there = other * BLOCK_T + t
            C_tile = rows_at(
                C, C_t, C_n, there, are_real(segments, there, length), n, is_n, length, REVERSE
            )
            dB_tile += dot(tl.trans(met), C_tile)
    to = ((b * n_groups + group) * n_splits + split) * length * n_states
    store_rows(dB + to, n_states, 1, place, n, is_n, dB_tile, length, REVERSE)
    store_rows(dC + to, n_states, 1, place, n, is_n, dC_tile, length, REVERSE)


@triton.jit
def gradient_at(
    grad_out, grad_t, grad_p, z, z_at, z_t, z_p, place, real, p, is_channel, length,
    REVERSE: tl.constexpr,
):  # fmt: skip
    """The gradient of a tile's outputs before the gate."""
    dy = rows_at(grad_out, grad_t, grad_p, place, real, p, is_channel, length, REVERSE)
    if z is not None:
        gate = rows_at(z + z_at, z_t, z_p, place, real, p, is_channel, length, REVERSE)
        gate = gate.to(tl.float32)
        dy = dy.to(tl.float32) * gate * sigmoid(gate)
    return dy


@triton.jit
def are_real(segments, place, length):
    """Which positions are there and no padding."""
    real = place < length
    if segments is not None:
        real &= tl.load(segments + place) >= 0
    return real


@triton.jit
def scores_between(
    grad_out, x, dt, A, z, bias, segments, tile, earlier,
    b, first_head, n_items, n_p, width, length, least, most,
    grad_b, grad_t, grad_h, grad_p, x_b, x_t, x_h, x_p, dt_b, dt_t, dt_h, z_b, z_t, z_h, z_p,
    SOFTPLUS: tl.constexpr, REVERSE: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_T: tl.constexpr, KEPT: tl.constexpr,
):  # fmt: skip
    """What the outputs of a tile take of an earlier tile's inputs, summed over heads."""
    t, lane = tl.arange(0, BLOCK_T), tl.arange(0, BLOCK_P)
    reads, writes = tile * BLOCK_T + t, earlier * BLOCK_T + t
    between = (earlier + 1) * BLOCK_T + tl.arange(0, KEPT * BLOCK_T)
    is_between = between < tile * BLOCK_T
    met = tl.zeros([BLOCK_T, BLOCK_T], tl.float32)
    for item in range(n_items):
        head = first_head + item // n_p
        p = item % n_p * BLOCK_P + lane
        is_channel = p < width
        shift = 0.0
        if bias is not None:
            shift = tl.load(bias + head)
        rate = tl.load(A + head)
        times = dt + b * dt_b + head.to(tl.int64) * dt_h
        _, read_size, is_read, read_segment = steps_at(
            times, dt_t, shift, segments, reads, length, least, most, SOFTPLUS, REVERSE
        )
        _, size, is_written, segment = steps_at(
            times, dt_t, shift, segments, writes, length, least, most, SOFTPLUS, REVERSE
        )
        _, sizes, _, _ = steps_at(
            times, dt_t, shift, segments, tl.where(is_between, between, earlier * BLOCK_T),
            length, least, most, SOFTPLUS, REVERSE,
        )  # fmt: skip
        x_tile = rows_at(
            x + b * x_b + head.to(tl.int64) * x_h, x_t, x_p,
            writes, is_written, p, is_channel, length, REVERSE,
        )  # fmt: skip
        dy = gradient_at(
            grad_out + b * grad_b + head.to(tl.int64) * grad_h, grad_t, grad_p,
            z, b * z_b + head.to(tl.int64) * z_h, z_t, z_p,
            reads, is_read, p, is_channel, length, REVERSE,
        )  # fmt: skip
        last = segment_after(segment, t, BLOCK_T)
        left = decay_before(read_size * rate, read_segment, last)
        left *= tl.exp(tl.sum(tl.where(is_between, sizes * rate, 0), 0))
        weight = size * decay_after(size * rate, segment, last, t)
        met += left[:, None] * dot(dy, tl.trans(x_tile)) * weight[None, :]
    return met
