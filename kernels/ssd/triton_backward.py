"""The gradients of Mamba-2's scan on a GPU, but for those of ``B`` and ``C``."""

# Triton compiles what is below: to a type checker its tiles are Python's values.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false
# pyright: reportOperatorIssue=false, reportPossiblyUnboundVariable=false

import triton
import triton.language as tl

from tristate.kernels.ssd.triton_tiles import rows_at, state_after, steps_at, store_rows
from tristate.kernels.triton.decays import (
    decay_after,
    decay_before,
    decay_between,
    reaches,
    segment_after,
    segment_before,
)
from tristate.kernels.triton.functions import sigmoid, softplus
from tristate.kernels.triton.products import dot, long_dot


@triton.jit
def backward(
    grad_out, x, dt, A, B, C, D, z, bias, segments, kept, incoming,
    dx, ddt, dz, dA, dD, dbias, slopes, outgoing, decays,
    length, n_places, n_heads, group_heads, width, n_states, n_blocks, n_parts, least, most,
    grad_b, grad_t, grad_h, grad_p, x_b, x_t, x_h, x_p, dt_b, dt_t, dt_h,
    B_b, B_t, B_g, B_n, C_b, C_t, C_g, C_n, z_b, z_t, z_h, z_p,
    dx_b, dx_t, dx_h, dx_p, dz_b, dz_t, dz_h, dz_p, D_h, D_p,
    SOFTPLUS: tl.constexpr, REVERSE: tl.constexpr, KEPT: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """A block of channels of one head, ``n_parts`` times ``KEPT`` tiles of time, the last first.

    The state before a tile is made again from the kept one. ``incoming`` and ``outgoing`` are
    gradients of the state, behind and before the tiles; ``slopes`` those behind each kept part.
    Without ``dx`` only what the tiles do to the gradient of a state is found, as forward.

    With ``g[t]`` and ``h[t]`` the state and its gradient, that of the logarithm of a decay is
    ``<g[t], h[t]> - dt[t] x[t] g[t] B[t]``, and by the recurrences that is the sum, over the
    positions from ``t`` to the end of the tile, of ``dy y - dt x g B``, and ``<g, h>`` behind it.

    COST: reads ``x``, ``dt``, ``grad_out``, ``z``, ``B``, ``C`` and writes ``dx``, ``ddt``, ``dz``
    once: the least there is; beyond it ``N / (KEPT BLOCK_T)`` numbers a channel and step each for
    ``kept`` and ``slopes``: 1.33 times the least with float32 and no gate. A split sequence has
    ``grad_out``, ``z``, ``dt`` and ``C`` read twice. Operations of a channel and step: ``10 N`` for
    the states, ``N (KEPT - 1)`` to make them again, and ``2 T (3 + N / P)``.
    """
    program, chunk = tl.program_id(0), tl.program_id(1)
    n_chunks, batch = tl.num_programs(1), tl.num_programs(0) // n_heads // n_blocks
    head = program % n_heads
    block = program // n_heads % n_blocks
    b = (program // n_heads // n_blocks).to(tl.int64)
    group = head // group_heads
    t, n = tl.arange(0, BLOCK_T), tl.arange(0, BLOCK_N)
    p = block * BLOCK_P + tl.arange(0, BLOCK_P)
    is_channel, is_n = p < width, n < n_states
    is_state = is_channel[:, None] & is_n[None, :]
    grad_out += b * grad_b + head.to(tl.int64) * grad_h
    dt += b * dt_b + head.to(tl.int64) * dt_h
    C += b * C_b + group.to(tl.int64) * C_g
    if z is not None:
        z += b * z_b + head.to(tl.int64) * z_h
    if dx is not None:
        x += b * x_b + head.to(tl.int64) * x_h
        B += b * B_b + group.to(tl.int64) * B_g
        dx += b * dx_b + head.to(tl.int64) * dx_h
        ddt += (block * batch + b) * length * n_heads + head
        dA_all = 0.0
        dbias_all = 0.0
        if z is not None:
            dz += b * dz_b + head.to(tl.int64) * dz_h
        if D is not None:
            direct = tl.load(D + head * D_h + p * D_p, mask=is_channel, other=0)[None, :]
            dD_all = tl.zeros([BLOCK_P], tl.float32)
    if segments is not None:
        segments += b * n_places
    rate = tl.load(A + head)
    shift = 0.0
    if bias is not None:
        shift = tl.load(bias + head)
    state = p[:, None] * n_states + n[None, :]
    n_all = width * n_states
    here = ((b * n_chunks + chunk) * n_heads + head) * n_all
    g = tl.zeros([BLOCK_P, BLOCK_N], tl.float32)
    if incoming is not None:
        g = tl.load(incoming + here + state, mask=is_state, other=0)
    decay_all = 1.0
    for i in range(n_parts * KEPT):
        tile = (chunk + 1) * n_parts * KEPT - 1 - i
        place = tile * BLOCK_T + t
        raw, size, real, segment = steps_at(
            dt, dt_t, shift, segments, place, length, least, most, SOFTPLUS, REVERSE
        )
        log_decay = size * rate
        before = 0
        if segments is not None:
            before = segment_before(segments, tile * BLOCK_T)
        after = segment_after(segment, t, BLOCK_T)
        left_before = decay_before(log_decay, segment, before)[:, None]
        left_all = tl.where(before == after, tl.exp(tl.sum(log_decay, 0)), 0)
        C_tile = rows_at(C, C_t, C_n, place, real, n, is_n, length, REVERSE)
        dy = rows_at(grad_out, grad_t, grad_p, place, real, p, is_channel, length, REVERSE)
        if z is not None:
            gate = rows_at(z, z_t, z_p, place, real, p, is_channel, length, REVERSE).to(tl.float32)
            open_ = sigmoid(gate)
            dgate = dy.to(tl.float32) * open_ * (1 + gate * (1 - open_))
            dy = dy.to(tl.float32) * gate * open_
        if dx is not None:
            part = tile // KEPT
            at = ((b * tl.cdiv(length, KEPT * BLOCK_T) + part) * n_heads + head) * n_all
            inside = is_state & (part * KEPT * BLOCK_T < length)
            if tile % KEPT == KEPT - 1:
                tl.store(slopes + at + state, g, mask=inside)
            h = tl.load(kept + at + state, mask=inside, other=0)
            if KEPT > 1:
                for earlier in range(part * KEPT, tile):
                    other = earlier * BLOCK_T + t
                    _, other_size, other_real, other_segment = steps_at(
                        dt, dt_t, shift, segments, other, length, least, most, SOFTPLUS, REVERSE
                    )
                    other_before = 0
                    if segments is not None:
                        other_before = segment_before(segments, earlier * BLOCK_T)
                    h = state_after(
                        h,
                        rows_at(x, x_t, x_p, other, other_real, p, is_channel, length, REVERSE),
                        rows_at(B, B_t, B_n, other, other_real, n, is_n, length, REVERSE),
                        other_size, other_size * rate, other_segment, other_before,
                        segment_after(other_segment, t, BLOCK_T), t,
                    )  # fmt: skip
            x_tile = rows_at(x, x_t, x_p, place, real, p, is_channel, length, REVERSE)
            B_tile = rows_at(B, B_t, B_n, place, real, n, is_n, length, REVERSE)
            # First the wide product: Triton lays the warps out for all by the first one's shape.
            y = left_before * long_dot(C_tile, tl.trans(h))
            scores = long_dot(C_tile, tl.trans(B_tile)) * decay_between(log_decay, segment, t)
            y += dot(scores * size[None, :], x_tile)
            x_wide, dy_wide = x_tile.to(tl.float32), dy.to(tl.float32)
            # Gradients of dt x, from behind the tile and from inside of it.
            left_after = decay_after(log_decay, segment, after, t)[:, None]
            d_entering = left_after * long_dot(B_tile, tl.trans(g))
            at_end = tl.sum(size * tl.sum(x_wide * d_entering, 1), 0)
            at_end += left_all * tl.sum(tl.sum(g * h, 1), 0)
            d_entering += dot(tl.trans(scores), dy)
            d_size = tl.sum(x_wide * d_entering, 1)
            d_x = size[:, None] * d_entering
            flow = tl.sum(dy_wide * y, 1) - size * d_size
            d_log = tl.sum(tl.where(reaches(segment, t), flow[:, None], 0), 0)
            d_log += tl.where(segment == after, at_end, 0)
            # A decay that leaves nothing has no slope: what the sums keep of their rounding would
            # be multiplied by a long step.
            d_log = tl.where(log_decay < -40, 0, d_log)
            dA_all += tl.sum(size * d_log, 0)
            d_size += rate * d_log
            if D is not None:
                y += direct * x_wide
                d_x += direct * dy_wide
                dD_all += tl.sum(dy_wide * x_wide, 0)
            store_rows(dx, dx_t, dx_p, place, p, is_channel, d_x, length, REVERSE)
            if z is not None:
                store_rows(dz, dz_t, dz_p, place, p, is_channel, dgate * y, length, REVERSE)
            limited = softplus(raw) if SOFTPLUS else raw
            d_size = tl.where(real & (limited >= least) & (limited <= most), d_size, 0)
            if SOFTPLUS:
                d_size *= sigmoid(raw)
            dbias_all += tl.sum(d_size, 0)
            to = (length - 1 - place if REVERSE else place).to(tl.int64)
            tl.store(ddt + to * n_heads, d_size, mask=place < length)
        g = left_all * g + dot(tl.trans(dy.to(tl.float32) * left_before), C_tile)
        decay_all *= left_all
    tl.store(outgoing + here + state, g, mask=is_state)
    one = (b * n_chunks + chunk) * n_heads + head
    if decays is not None:
        tl.store(decays + one, decay_all)
    if dx is not None:
        sums = one * n_blocks + block
        tl.store(dA + sums, dA_all)
        if bias is not None:
            tl.store(dbias + sums, dbias_all)
        if D is not None:
            tl.store(dD + one * width + p, dD_all, mask=is_channel)
