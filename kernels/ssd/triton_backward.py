"""The gradients of Mamba-2's scan on a GPU, but for those of ``B`` and ``C``."""

# Triton compiles what is below: to a type checker its tiles are Python's values.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false
# pyright: reportOperatorIssue=false, reportPossiblyUnboundVariable=false, reportGeneralTypeIssues=false

import triton
import triton.language as tl

from tristate.kernels.ssd.triton_scores import add_earlier, add_later
from tristate.kernels.ssd.triton_tiles import (
    gated_rows_at,
    left_of_state,
    rows_at,
    store_rows,
    tile_at,
)
from tristate.kernels.ssd.triton_walk import save_states, saved_at, slope_before, state_behind
from tristate.kernels.triton.axes import lanes, tiles_from
from tristate.kernels.triton.decays import decay_after, decay_before, reaches
from tristate.kernels.triton.functions import sigmoid
from tristate.kernels.triton.products import dot


@triton.jit
def backward(
    grad_out, x, sizes, A, B, C, D, z, segments, kept, slope, own,
    dx, d_sizes, dz, dA, dD, slopes,
    length, n_places, n_heads, group_heads, width, n_states, n_blocks, n_parts,
    grad_b, grad_t, grad_h, grad_p, x_b, x_t, x_h, x_p,
    B_b, B_t, B_g, B_n, C_b, C_t, C_g, C_n, z_b, z_t, z_h, z_p, D_h, D_p,
    REVERSE: tl.constexpr, KEPT: tl.constexpr, SAVED: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """A block of channels of one head, ``n_parts`` times ``KEPT`` tiles of time, the last first.

    From the state before a part those before each ``SAVED`` tiles are made, in memory of the
    program's ``own``, and from these the one before a tile, ``BLOCK_N`` columns at a time.
    ``slope`` is the gradient of the state behind each chunk, and afterwards of that before it;
    ``slopes`` those behind each kept part.

    With ``g[t]`` and ``h[t]`` the state and its gradient, that of the logarithm of a decay is
    ``<g[t], h[t]> - dt[t] x[t] g[t] B[t]``, and by the recurrences that is the sum, over the
    positions from ``t`` to the end of the tile, of ``dy y - dt x g B``, and ``<g, h>`` behind it.

    COST: reads ``x``, ``sizes``, ``grad_out``, ``z``, ``B``, ``C`` and writes ``dx``, ``d_sizes``,
    ``dz`` once: the least there is; beyond it ``N / (KEPT BLOCK_T)`` numbers a channel and step
    each for ``kept`` and ``slopes``: 1.17 times the least with float32 and no gate. ``slope`` and
    ``own`` are written over and over in the second cache: ``4 N / T`` numbers a channel and step
    of it; with 32 channels and 128 states they are 80 KB a program. A split sequence has
    ``grad_out``, ``z``, ``sizes`` and ``C`` read twice. Operations of a channel and step: ``6 N``
    for the states, ``2 N (1 - SAVED / KEPT) + N (SAVED - 1)`` to make them again, and ``4 T (1 + N
    / BLOCK_P)``: the scores are made twice, since registers hold the outputs or the gradients of
    the inputs. With 128 states that is 1984. On an H100, 64 heads of 64 channels and 131,072 steps
    in bfloat16 take 1.3 ms at 3.35 TB/s, and 2.7 ms of matrix units at 989 TFLOP/s if they are
    full: all products but the scores' are three.
    """
    program, chunk = tl.program_id(0), tl.program_id(1)
    n_chunks, batch = tl.num_programs(1), tl.num_programs(0) // n_heads // n_blocks
    head = program % n_heads
    block = program // n_heads % n_blocks
    b = (program // n_heads // n_blocks).to(tl.int64)
    group = head // group_heads
    t, lane = tl.arange(0, BLOCK_T), tl.arange(0, BLOCK_N)
    grad_out += b * grad_b + head.to(tl.int64) * grad_h
    x += b * x_b + head.to(tl.int64) * x_h
    sizes += (b * n_heads + head) * length
    B += b * B_b + group.to(tl.int64) * B_g
    C += b * C_b + group.to(tl.int64) * C_g
    to_rows = (b * length * n_heads + head) * width
    dx += to_rows
    d_sizes += ((block * batch + b) * n_heads + head) * length
    if z is not None:
        z += b * z_b + head.to(tl.int64) * z_h
        dz += to_rows
    if segments is not None:
        segments += b * n_places
    rate = tl.load(A + head)
    n_all = width * n_states
    one = (b * n_chunks + chunk) * n_heads + head
    slope += one * n_all
    own += (one * n_blocks + block) * (KEPT // SAVED) * BLOCK_P * n_states
    first_tile = chunk * n_parts * KEPT
    # One at least: what is added up is written.
    n_tiles = tl.maximum(tiles_from(first_tile, n_parts * KEPT, length, BLOCK_T), 1)
    for i in tl.range(0, n_tiles, disable_licm=True):
        tile = first_tile + n_tiles - 1 - i
        part = tile // KEPT
        p = block * BLOCK_P + lanes(tile, BLOCK_P)
        is_channel = p < width
        place, size, real, log_decay, segment, before, after = tile_at(
            tile, sizes, rate, segments, length, BLOCK_T
        )
        left_all = left_of_state(log_decay, before, after)
        is_kept = part * KEPT * BLOCK_T < length
        to = ((b * tl.cdiv(length, KEPT * BLOCK_T) + part) * n_heads + head) * n_all
        is_last = (tile % KEPT == KEPT - 1) | (i == 0)
        if is_last:
            save_states(
                kept + to, own, is_kept, tile, x, x_t, x_p, B, B_t, B_n, p, is_channel,
                n_states, sizes, rate, segments, length,
                REVERSE, KEPT, SAVED, BLOCK_N, BLOCK_P, BLOCK_T,
            )  # fmt: skip
        saved = tile % KEPT // SAVED
        # The outputs, and how the state before the tile meets its gradient behind.
        y = tl.zeros([BLOCK_T, BLOCK_P], tl.float32)
        met = tl.zeros([BLOCK_P], tl.float32)
        for first in tl.range(0, n_states, BLOCK_N, disable_licm=True):
            n = first + lane
            is_n = n < n_states
            at = p[:, None] * n_states + n[None, :]
            inside = is_channel[:, None] & is_n[None, :]
            h = tl.load(own + saved_at(saved, p, n, n_states, BLOCK_P), mask=inside, other=0)
            for earlier in tl.range(tile // SAVED * SAVED, tile, disable_licm=True):
                h = state_behind(
                    h, earlier, x, x_t, x_p, B, B_t, B_n, p, is_channel, n, is_n,
                    sizes, rate, segments, length, REVERSE, BLOCK_T,
                )  # fmt: skip
            g = tl.load(slope + at, mask=inside, other=0)
            met += tl.sum(g * h, 1)
            C_tile = rows_at(C, C_t, C_n, place, real, n, is_n, length, REVERSE)
            y += dot(C_tile, tl.trans(h))
        left_before = decay_before(log_decay, segment, before)[:, None]
        y = add_earlier(
            left_before * y, tile, x, x_t, x_p, B, B_t, B_n, C, C_t, C_n, p, is_channel, n_states,
            log_decay, place, real, segment, sizes, segments, length,
            REVERSE, BLOCK_T,
        )  # fmt: skip
        dy = gated_rows_at(
            grad_out, grad_t, grad_p, z, 0, z_t, z_p, place, real, p, is_channel, length, REVERSE
        ).to(tl.float32)
        flow = tl.sum(dy * y, 1)
        if z is not None:
            if D is not None:
                direct = tl.load(D + head * D_h + p * D_p, mask=is_channel, other=0)[None, :]
                x_tile = rows_at(x, x_t, x_p, place, real, p, is_channel, length, REVERSE)
                y += direct * x_tile.to(tl.float32)
            gate = rows_at(z, z_t, z_p, place, real, p, is_channel, length, REVERSE).to(tl.float32)
            grad = rows_at(grad_out, grad_t, grad_p, place, real, p, is_channel, length, REVERSE)
            open_ = sigmoid(gate)
            d_gate = grad.to(tl.float32) * y * open_ * (1 + gate * (1 - open_))
            store_rows(dz, n_heads * width, 1, place, p, is_channel, d_gate, length, REVERSE)
        # Gradients of dt x, from behind the tile and from inside of it.
        d_entering = tl.zeros([BLOCK_T, BLOCK_P], tl.float32)
        for first in tl.range(0, n_states, BLOCK_N, disable_licm=True):
            n = first + lane
            is_n = n < n_states
            at = p[:, None] * n_states + n[None, :]
            inside = is_channel[:, None] & is_n[None, :]
            g = tl.load(slope + at, mask=inside, other=0)
            tl.store(slopes + to + at, g, mask=inside & is_kept & is_last)
            B_tile = rows_at(B, B_t, B_n, place, real, n, is_n, length, REVERSE)
            d_entering += dot(B_tile, tl.trans(g))
            g = slope_before(
                g, tile, grad_out, grad_t, grad_p, z, z_t, z_p, C, C_t, C_n, p, is_channel, n, is_n,
                place, log_decay, before, after, sizes, segments, length, REVERSE, BLOCK_T,
            )  # fmt: skip
            tl.store(slope + at, g, mask=inside)
        # What other threads of the program have written is read by the next tile.
        tl.debug_barrier()
        d_entering *= decay_after(log_decay, segment, after, t)[:, None]
        x_tile = rows_at(x, x_t, x_p, place, real, p, is_channel, length, REVERSE).to(tl.float32)
        at_end = tl.sum(size * tl.sum(x_tile * d_entering, 1), 0) + left_all * tl.sum(met, 0)
        d_entering = add_later(
            d_entering, tile, grad_out, grad_t, grad_p, z, z_t, z_p, B, B_t, B_n, C, C_t, C_n,
            p, is_channel, n_states, rate,
            place, real, segment, sizes, segments, length,
            REVERSE, BLOCK_T,
        )  # fmt: skip
        x_tile = rows_at(x, x_t, x_p, place, real, p, is_channel, length, REVERSE).to(tl.float32)
        d_size = tl.sum(x_tile * d_entering, 1)
        flow -= size * d_size
        d_log = tl.sum(tl.where(reaches(segment, t), flow[:, None], 0), 0)
        d_log += tl.where(segment == after, at_end, 0)
        # A decay that leaves nothing has no slope: what the sums keep of their rounding would
        # be multiplied by a long step.
        d_log = tl.where(log_decay < -40, 0, d_log)
        add_up(dA + one * n_blocks + block, tl.sum(size * d_log, 0), True, i > 0)
        d_size += rate * d_log
        d_x = size[:, None] * d_entering
        if D is not None:
            direct = tl.load(D + head * D_h + p * D_p, mask=is_channel, other=0)[None, :]
            dy = gated_rows_at(
                grad_out, grad_t, grad_p, z, 0, z_t, z_p,
                place, real, p, is_channel, length, REVERSE,
            ).to(tl.float32)  # fmt: skip
            d_x += direct * dy
            add_up(dD + one * width + p, tl.sum(dy * x_tile, 0), is_channel, i > 0)
        store_rows(dx, n_heads * width, 1, place, p, is_channel, d_x, length, REVERSE)
        tl.store(d_sizes + place, d_size, mask=place < length)


@triton.jit
def add_up(total, more, inside, is_there):
    """Add to sums in memory: between tiles there are no registers for them."""
    tl.store(total, tl.load(total, mask=inside & is_there, other=0) + more, mask=inside)
