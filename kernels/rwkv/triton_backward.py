"""RWKV-4's attention on a GPU: gradients.

The gradients ``G`` of the two sums run back through time in units of their own, ``exp(s)``; with a
step's denominator ``z`` and its own share of the mean, ``p = exp(u + k) / z``::

    du = p (v - o) do              dv = p do + exp(k) G_num
    dk = du + exp(k) (v G_num + G_den)                  dw = exp(w) (num G_num + den G_den)
    G_num = exp(w) G_num + do / z         G_den = exp(w) G_den - o do / z        (before it)

Sums are those before the step, ``G`` is what comes from behind it. A tile's sums are made again
from the ones before it; they take a scan forwards, and ``G`` takes one backwards.
"""

# Triton compiles what is below: to a type checker its tiles are Python's values.
# pyright: reportArgumentType=false, reportIndexIssue=false, reportOperatorIssue=false
# pyright: reportPossiblyUnboundVariable=false

import triton
import triton.language as tl

from tristate.kernels.rwkv.triton_kernels import (
    NOTHING,
    compose,
    load_step,
    mean_of,
    row_of,
    sums_before,
)


@triton.jit
def backward(
    grad, k, v, w, u, marks, kept, incoming, dk, dv, dw, du, outgoing, decays,
    length, n_channels, n_blocks, n_tiles,
    grad_b, grad_t, grad_d, k_b, k_t, k_d, v_b, v_t, v_d, dk_b, dk_t, dk_d, dv_b, dv_t, dv_d,
    REVERSE: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """A block of channels of one sequence, ``n_tiles`` tiles of time, the last one first.

    ``kept`` are the sums before each tile; ``incoming`` and ``outgoing`` are gradients of the sums
    behind and before the tiles. Without ``dk`` only what the tiles do to these is found, as
    forward. ``dw`` and ``du`` are one a sequence and chunk.

    COST: reads ``k``, ``v``, ``grad`` and writes ``dk``, ``dv`` once: the least; neighbours come
    from the first cache. ``kept`` is ``3 / BLOCK_T`` numbers of float32 more: 1.01 times the least,
    in 16 bits 1.02. A split sequence has its inputs read twice. Some 40 exponentials a number: 1.1
    ms on an H100 for 768 channels of 131,072 steps in float32, where memory takes 0.6 ms.
    """
    sequence = (tl.program_id(0) // n_blocks).to(tl.int64)
    chunk, n_chunks = tl.program_id(1), tl.num_programs(1)
    first_d = tl.program_id(0) % n_blocks * BLOCK_D
    lane, t = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_T)
    is_channel = first_d + lane < n_channels
    is_first, is_last = (t == 0)[:, None], (t == BLOCK_T - 1)[:, None]
    step, at_d = -t if REVERSE else t, first_d.to(tl.int64)
    k_tile = k + sequence * k_b + at_d * k_d + (step[:, None] * k_t + lane[None, :] * k_d)
    v_tile = v + sequence * v_b + at_d * v_d + (step[:, None] * v_t + lane[None, :] * v_d)
    grad_tile = grad + sequence * grad_b + at_d * grad_d
    grad_tile += step[:, None] * grad_t + lane[None, :] * grad_d
    if dk is not None:
        dk_tile = dk + sequence * dk_b + at_d * dk_d
        dk_tile += step[:, None] * dk_t + lane[None, :] * dk_d
        dv_tile = dv + sequence * dv_b + at_d * dv_d
        dv_tile += step[:, None] * dv_t + lane[None, :] * dv_d
    if marks is not None:
        marks += sequence * length
    rate = tl.load(w + first_d + lane, mask=is_channel, other=0)[None, :]
    bonus = tl.load(u + first_d + lane, mask=is_channel, other=0)[None, :]
    here = (sequence * n_chunks + chunk) * 3 * n_channels + first_d + lane
    g_num, g_den = tl.zeros([BLOCK_D], tl.float32), tl.zeros([BLOCK_D], tl.float32)
    g_unit = tl.full([BLOCK_D], NOTHING, tl.float32)
    if incoming is not None:
        g_num = tl.load(incoming + here, mask=is_channel, other=0)
        g_den = tl.load(incoming + here + n_channels, mask=is_channel, other=0)
        g_unit = tl.load(incoming + here + 2 * n_channels, mask=is_channel, other=0)
    decay_all = tl.zeros([BLOCK_D], tl.float32)
    dw_all, du_all = tl.zeros([BLOCK_D], tl.float32), tl.zeros([BLOCK_D], tl.float32)
    for i in range(n_tiles):
        tile = (chunk + 1) * n_tiles - 1 - i
        first = tile * BLOCK_T
        place = (length - 1 - first if REVERSE else first).to(tl.int64)
        at = (sequence * tl.cdiv(length, BLOCK_T) + tile) * 3 * n_channels + first_d + lane
        exists = is_channel & (first < length)
        _, num, den, unit = sums_before(
            k_tile, v_tile, marks, place, k_t, v_t, first, length, is_channel, rate,
            tl.load(kept + at, mask=exists, other=0),
            tl.load(kept + at + n_channels, mask=exists, other=0),
            tl.load(kept + at + 2 * n_channels, mask=exists, other=0), REVERSE, BLOCK_T,
        )  # fmt: skip
        decay, key, value, real, fresh = load_step(
            k_tile, v_tile, marks, place, k_t, v_t, first + t, length, is_channel, rate
        )
        _, after_num, after_den, after_unit = compose(
            0.0, num, den, unit, decay, value, tl.where(real, 1.0, 0.0),
            tl.where(real, key, NOTHING),
        )  # fmt: skip
        num, den = tl.where(fresh, 0, num), tl.where(fresh, 0, den)
        unit = tl.where(fresh, NOTHING, unit)
        mean, own, inverse, top = mean_of(key, value, bonus, num, den, unit)
        dout = tl.load(grad_tile + place * grad_t, mask=real, other=0).to(tl.float32)

        # What each next step sends back; behind the tile's last step that is what came in.
        ahead = place - 1 if REVERSE else place + 1
        next_decay, next_key, next_value, follows, next_fresh = load_step(
            k_tile, v_tile, marks, ahead, k_t, v_t, first + t + 1, length, is_channel, rate
        )
        next_mean, _, next_inverse, next_top = mean_of(
            next_key, next_value, bonus, after_num, after_den, after_unit
        )
        follows = follows & (next_fresh == 0)
        next_dout = tl.load(grad_tile + ahead * grad_t, mask=follows, other=0).to(tl.float32)
        sent = next_dout * next_inverse
        behind = (
            tl.where(is_last, 0, next_decay),
            tl.where(is_last, g_num[None, :], sent),
            tl.where(is_last, g_den[None, :], -sent * next_mean),
            tl.where(is_last, g_unit[None, :], tl.where(follows, -next_top, NOTHING)),
        )
        behind_w, h_num, h_den, h_unit = tl.associative_scan(behind, 0, compose, reverse=True)

        reads = real & (fresh == 0)
        sent = tl.where(reads, dout * inverse, 0)
        step_w, g_num, g_den, g_unit = compose(
            row_of(behind_w, is_first), row_of(h_num, is_first), row_of(h_den, is_first),
            row_of(h_unit, is_first), row_of(decay, is_first), row_of(sent, is_first),
            row_of(-sent * mean, is_first), row_of(tl.where(reads, -top, NOTHING), is_first),
        )  # fmt: skip
        decay_all = tl.maximum(decay_all + step_w, NOTHING)
        if dk is not None:
            own *= dout
            direct = own * (value - mean)
            du_all += tl.sum(direct, 0)
            weight = tl.where(real, tl.exp(key + h_unit), 0)
            dkey = direct + weight * (value * h_num + h_den)
            dvalue = own + weight * h_num
            past = tl.exp(rate + unit + h_unit) * (num * h_num + den * h_den)
            dw_all += tl.sum(tl.where(reads, past, 0), 0)
            inside = (first + t < length)[:, None] & is_channel[None, :]
            dkey, dvalue = tl.where(real, dkey, 0), tl.where(real, dvalue, 0)
            tl.store(dk_tile + place * dk_t, dkey.to(dk.dtype.element_ty), mask=inside)
            tl.store(dv_tile + place * dv_t, dvalue.to(dv.dtype.element_ty), mask=inside)
    tl.store(outgoing + here, g_num, mask=is_channel)
    tl.store(outgoing + here + n_channels, g_den, mask=is_channel)
    tl.store(outgoing + here + 2 * n_channels, g_unit, mask=is_channel)
    here = (sequence * n_chunks + chunk) * n_channels + first_d + lane
    if decays is not None:
        tl.store(decays + here, decay_all, mask=is_channel)
    if dk is not None:
        tl.store(dw + here, dw_all, mask=is_channel)
        tl.store(du + here, du_all, mask=is_channel)
