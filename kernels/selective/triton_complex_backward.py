"""The selective scan's gradients on a GPU, for complex ``A``."""

# Triton compiles what is below: to a type checker its tiles are Python's values.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false
# pyright: reportOperatorIssue=false, reportPossiblyUnboundVariable=false

import triton
import triton.language as tl

from tristate.kernels.selective.triton_tiles import step_sizes
from tristate.kernels.triton.functions import (
    column_at,
    complex_affine,
    load_tile,
    row_at,
    row_of,
    sigmoid,
    softplus_slope,
    store_tile,
    tile_at,
)


@triton.jit
def backward(
    grad_out, u, delta, A, B, C, D, z, bias, marks, kept, incoming,
    du, ddelta, dA, dB, dC, dD, dz, dbias, outgoing, decays,
    length, n_channels, n_states, n_blocks, group_channels, group_blocks, n_tiles,
    grad_b, grad_d, grad_t, u_b, u_d, u_t, delta_b, delta_d, delta_t, z_b, z_d, z_t,
    B_channels, B_b, B_g, B_n, B_t, C_channels, C_b, C_g, C_n, C_t,
    du_b, du_d, du_t, ddelta_b, ddelta_d, ddelta_t, dz_b, dz_d, dz_t,
    dB_b, dB_g, dB_n, dB_t, dC_b, dC_g, dC_n, dC_t,
    SOFTPLUS: tl.constexpr, REVERSE: tl.constexpr, B_VARIES: tl.constexpr, C_VARIES: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """As :func:`tristate.kernels.selective.triton_backward.backward`, for complex ``A``.

    All complex numbers are pairs of real ones, those of ``B`` and ``C`` side by side in time.

    COST: as there, but that what has states takes twice the room, and the tiles are half as wide. A
    state and step take two exponentials, sines and cosines.
    """
    program, chunk = tl.program_id(0), tl.program_id(1)
    n_chunks = tl.num_programs(1)
    b = (program // n_blocks).to(tl.int64)
    block = program % n_blocks
    group = block // group_blocks
    first_d = group * group_channels + block % group_blocks * BLOCK_D
    lane, t, n = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_T), tl.arange(0, BLOCK_N)
    is_channel = first_d + lane < (group + 1) * group_channels
    step = -t if REVERSE else t
    is_first, is_last = (t == 0)[:, None], (t == BLOCK_T - 1)[:, None]

    at_d = first_d.to(tl.int64)
    grad_row = grad_out + b * grad_b + at_d * grad_d
    delta_row = delta + b * delta_b + at_d * delta_d
    if z is not None:
        z_row = z + b * z_b + at_d * z_d
    if du is not None:
        u_row = u + b * u_b + at_d * u_d
        du_row = du + b * du_b + at_d * du_d
        ddelta_row = ddelta + b * ddelta_b + at_d * ddelta_d
        if z is not None:
            dz_row = dz + b * dz_b + at_d * dz_d
    if B_VARIES:
        B_row = B + b * B_b + first_d // B_channels * B_g + 2 * step * B_t
        if du is not None:
            dB_row = dB + b * dB_b + block * dB_g + 2 * step * dB_t
    if C_VARIES:
        C_row = C + b * C_b + first_d // C_channels * C_g + 2 * step * C_t
        if du is not None:
            dC_row = dC + b * dC_b + block * dC_g + 2 * step * dC_t

    state = 2 * (n[:, None] * n_channels + (first_d + lane)[None, :])
    is_state = (n < n_states)[:, None] & is_channel[None, :]
    here = 2 * (b * n_chunks + chunk) * n_channels * n_states
    g_re = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    g_im = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    if incoming is not None:
        g_re = tl.load(incoming + here + state, mask=is_state, other=0)
        g_im = tl.load(incoming + here + state + 1, mask=is_state, other=0)
    if decays is not None:
        steps_all = tl.zeros([BLOCK_D], tl.float32)
        alive = tl.full([BLOCK_D], 1, tl.float32)
    shift = None
    if bias is not None:
        shift = tl.load(bias + first_d + lane, mask=is_channel, other=0)[None, :]
        dbias_all = tl.zeros([BLOCK_D], tl.float32)
    if D is not None:
        direct = tl.load(D + first_d + lane, mask=is_channel, other=0)[None, :]
        dD_all = tl.zeros([BLOCK_D], tl.float32)
    if du is not None:
        dA_re = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
        dA_im = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
        if not B_VARIES:
            dB_re = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
            dB_im = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
        if not C_VARIES:
            dC_re = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
            dC_im = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)

    for i in range(n_tiles):
        tile = (chunk + 1) * n_tiles - 1 - i
        first = tile * BLOCK_T
        is_step = first + t < length
        inside = is_step[:, None] & is_channel[None, :]
        place = (length - 1 - first if REVERSE else first).to(tl.int64)
        real, is_next = is_step, first + t + 1 < length
        beside = is_next[:, None] & is_channel[None, :]
        if marks is not None:
            row = marks + b * length + first + t
            mark = tl.load(row, mask=is_step, other=2)
            real, fresh = mark < 2, (mark == 1)[:, None]
            next_mark = tl.load(row + 1, mask=is_next, other=2)
            is_next, next_fresh = next_mark < 2, (next_mark == 1)[:, None]
        dt = step_sizes(
            tile_at(delta_row, place, delta_t, delta_d, step, lane), inside, real, shift, SOFTPLUS
        )
        # Once more, a step later, for what follows a step in its tile.
        next_place = place - 1 if REVERSE else place + 1
        next_tile = tile_at(delta_row, next_place, delta_t, delta_d, step, lane)
        next_dt = step_sizes(next_tile, beside, is_next, shift, SOFTPLUS)
        if decays is not None:
            steps_all += tl.sum(dt, 0)
            if marks is not None:
                alive = tl.where(tl.max((mark == 1).to(tl.int32), 0) > 0, 0, alive)
        dy = load_tile(grad_row, place, grad_t, grad_d, step, lane, inside)
        dy = tl.where(real[:, None], dy, 0)
        if z is not None:
            gate = load_tile(z_row, place, z_t, z_d, step, lane, inside)
            dy *= gate * sigmoid(gate)
        if du is not None:
            x = load_tile(u_row, place, u_t, u_d, step, lane, inside)
            entering_u = tl.where(real[:, None], dt * x, 0)
            y = tl.zeros([BLOCK_T, BLOCK_D], tl.float32)
            dentering = tl.zeros([BLOCK_T, BLOCK_D], tl.float32)
            dstep = tl.zeros([BLOCK_T, BLOCK_D], tl.float32)
            before = 2 * (b * tl.cdiv(length, BLOCK_T) + tile) * n_channels * n_states
            is_kept = is_channel & (first < length)
        dy *= 2  # twice the real part counts
        for k in range(n_states):
            is_k, of_k = (n == k)[:, None], 2 * (k * n_channels + first_d + lane)
            rate_re = row_at(A + of_k, is_channel)
            rate_im = row_at(A + of_k + 1, is_channel)
            if C_VARIES:
                pair = C_row + 2 * place * C_t + k * C_n
                Ck_re = column_at(pair, is_step)
                pair += C_t
                Ck_im = column_at(pair, is_step)
            else:
                Ck_re = row_at(C + of_k, is_channel)
                Ck_im = row_at(C + of_k + 1, is_channel)
            # What is behind the tile comes in with its last step.
            behind_re = row_of(g_re, is_k)
            behind_im = row_of(g_im, is_k)
            dh_re = Ck_re * dy + tl.where(is_last, behind_re, 0)
            dh_im = -Ck_im * dy + tl.where(is_last, behind_im, 0)
            size = tl.exp(next_dt * rate_re)
            if marks is not None:
                size = tl.where(next_fresh, 0, size)
            # Gradients go back by the conjugate decay.
            next_re, next_im = size * tl.cos(next_dt * rate_im), -size * tl.sin(next_dt * rate_im)
            _, _, dh_re, dh_im = tl.associative_scan(
                (next_re, next_im, dh_re, dh_im), 0, complex_affine, reverse=True
            )
            size = tl.exp(dt * rate_re)
            if marks is not None:
                size = tl.where(fresh, 0, size)
            decay_re, decay_im = size * tl.cos(dt * rate_im), size * tl.sin(dt * rate_im)
            back_re = decay_re * dh_re + decay_im * dh_im
            back_im = decay_re * dh_im - decay_im * dh_re
            g_re = tl.where(is_k, row_of(back_re, is_first), g_re)
            g_im = tl.where(is_k, row_of(back_im, is_first), g_im)
            if du is not None:
                if B_VARIES:
                    pair = B_row + 2 * place * B_t + k * B_n
                    Bk_re = column_at(pair, is_step)
                    pair += B_t
                    Bk_im = column_at(pair, is_step)
                else:
                    Bk_re = row_at(B + of_k, is_channel)
                    Bk_im = row_at(B + of_k + 1, is_channel)
                x_re = row_at(kept + before + of_k, is_kept)
                x_im = row_at(kept + before + of_k + 1, is_kept)
                h_re = entering_u * Bk_re
                h_im = entering_u * Bk_im
                h_re += tl.where(is_first, decay_re * x_re - decay_im * x_im, 0)
                h_im += tl.where(is_first, decay_re * x_im + decay_im * x_re, 0)
                _, _, h_re, h_im = tl.associative_scan(
                    (decay_re, decay_im, h_re, h_im), 0, complex_affine
                )
                y += Ck_re * h_re - Ck_im * h_im
                dentering += dh_re * Bk_re + dh_im * Bk_im
                # What the decay left of the state before.
                left_re, left_im = h_re - entering_u * Bk_re, h_im - entering_u * Bk_im
                past_re = dh_re * left_re + dh_im * left_im
                past_im = dh_im * left_re - dh_re * left_im
                dstep += past_re * rate_re + past_im * rate_im
                dA_re += tl.where(is_k, tl.sum(past_re * dt, 0)[None, :], 0)
                dA_im += tl.where(is_k, tl.sum(past_im * dt, 0)[None, :], 0)
                if B_VARIES:
                    pair = dB_row + 2 * place * dB_t + k * dB_n
                    tl.store(pair, tl.sum(dh_re * entering_u, 1), mask=is_step)
                    tl.store(pair + dB_t, tl.sum(dh_im * entering_u, 1), mask=is_step)
                else:
                    dB_re += tl.where(is_k, tl.sum(dh_re * entering_u, 0)[None, :], 0)
                    dB_im += tl.where(is_k, tl.sum(dh_im * entering_u, 0)[None, :], 0)
                if C_VARIES:
                    pair = dC_row + 2 * place * dC_t + k * dC_n
                    tl.store(pair, tl.sum(dy * h_re, 1), mask=is_step)
                    tl.store(pair + dC_t, -tl.sum(dy * h_im, 1), mask=is_step)
                else:
                    dC_re += tl.where(is_k, tl.sum(dy * h_re, 0)[None, :], 0)
                    dC_im -= tl.where(is_k, tl.sum(dy * h_im, 0)[None, :], 0)
        if du is not None:
            # Inputs are read again, from the first cache: kept, they take registers from the loop.
            x = load_tile(u_row, place, u_t, u_d, step, lane, inside)
            x = tl.where(real[:, None], x, 0)
            dx = dt * dentering
            y *= 2
            dy *= 0.5
            if D is not None:
                y += x * direct
                dx += dy * direct
                dD_all += tl.sum(dy * x, 0)
            store_tile(dx, du_row, place, du_t, du_d, step, lane, inside)
            dstep += x * dentering
            if SOFTPLUS:
                dstep *= softplus_slope(dt)
            dstep = tl.where(real[:, None], dstep, 0)
            if bias is not None:
                dbias_all += tl.sum(dstep, 0)
            store_tile(dstep, ddelta_row, place, ddelta_t, ddelta_d, step, lane, inside)
            if z is not None:
                gate = load_tile(z_row, place, z_t, z_d, step, lane, inside)
                dgate = y * load_tile(grad_row, place, grad_t, grad_d, step, lane, inside)
                open_ = sigmoid(gate)
                dgate *= open_ * (1 + gate * (1 - open_))
                dgate = tl.where(real[:, None], dgate, 0)
                store_tile(dgate, dz_row, place, dz_t, dz_d, step, lane, inside)

    tl.store(outgoing + here + state, g_re, mask=is_state)
    tl.store(outgoing + here + state + 1, g_im, mask=is_state)
    if decays is not None:
        rates_re = tl.load(A + state, mask=is_state, other=0)
        rates_im = tl.load(A + state + 1, mask=is_state, other=0)
        size_all = alive[None, :] * tl.exp(rates_re * steps_all[None, :])
        angle_all = rates_im * steps_all[None, :]
        tl.store(decays + here + state, size_all * tl.cos(angle_all), mask=is_state)
        tl.store(decays + here + state + 1, size_all * tl.sin(angle_all), mask=is_state)
    if du is not None:
        tl.store(dA + here + state, dA_re, mask=is_state)
        tl.store(dA + here + state + 1, dA_im, mask=is_state)
        if not B_VARIES:
            tl.store(dB + here + state, dB_re, mask=is_state)
            tl.store(dB + here + state + 1, dB_im, mask=is_state)
        if not C_VARIES:
            tl.store(dC + here + state, dC_re, mask=is_state)
            tl.store(dC + here + state + 1, dC_im, mask=is_state)
        channel = (b * n_chunks + chunk) * n_channels + first_d + lane
        if bias is not None:
            tl.store(dbias + channel, dbias_all, mask=is_channel)
        if D is not None:
            tl.store(dD + channel, dD_all, mask=is_channel)
