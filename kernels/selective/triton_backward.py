"""The selective scan's gradients on a GPU, for real ``A``."""

# Triton compiles what is below: to a type checker its tiles are Python's values.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false
# pyright: reportOperatorIssue=false, reportPossiblyUnboundVariable=false, reportGeneralTypeIssues=false

import triton
import triton.language as tl

from tristate.kernels.selective.triton_tiles import step_sizes
from tristate.kernels.triton.axes import lanes
from tristate.kernels.triton.functions import (
    affine,
    column_at,
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
    """A block of channels of one sequence, ``n_tiles`` tiles of time, the last one first.

    The states inside a tile are made again from the one before it. ``incoming`` and ``outgoing``
    are gradients of the state, behind and before the tiles. Without ``du`` only what the tiles do
    to it is found, as forward. Sums over time are one a sequence and chunk, those over channels
    (``dB``, ``dC``) one a block of channels: they are added up afterwards, in a fixed order.

    COST: reads ``u``, ``delta``, ``z``, ``grad_out``, writes ``du``, ``ddelta``, ``dz`` once: the
    least (what is read twice comes from the first cache then). Beyond it, of ``N`` numbers a
    channel, ``1 / BLOCK_T`` a step for ``kept`` and ``2 / BLOCK_D`` each for ``B`` and ``C``, for
    the sums of ``dB`` and ``dC``, and for adding those up. All but the weights are float32: with 16
    states and a gate that is 1.5 times the least in float32 by tiles of 32 by 32, and in bfloat16
    by those of 32 by 64; with one state 1.03. A split sequence has three of its inputs read twice.
    A state and step take two exponentials: 0.6 ms on an H100 for 512 channels of 131,072 steps and
    16 states, as long as memory takes for the least in float32, and twice as long in bfloat16.
    """
    program, chunk = tl.program_id(0), tl.program_id(1)
    n_chunks = tl.num_programs(1)
    b = (program // n_blocks).to(tl.int64)
    block = program % n_blocks
    group = block // group_blocks
    first_d = group * group_channels + block % group_blocks * BLOCK_D
    t, n = tl.arange(0, BLOCK_T), tl.arange(0, BLOCK_N)
    stop, d = (group + 1) * group_channels, first_d + tl.arange(0, BLOCK_D)
    is_d = d < stop
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
        B_row = B + b * B_b + first_d // B_channels * B_g + step * B_t
        if du is not None:
            dB_row = dB + b * dB_b + block * dB_g + step * dB_t
    if C_VARIES:
        C_row = C + b * C_b + first_d // C_channels * C_g + step * C_t
        if du is not None:
            dC_row = dC + b * dC_b + block * dC_g + step * dC_t

    state = n[:, None] * n_channels + d[None, :]
    is_state = (n < n_states)[:, None] & is_d[None, :]
    here = (b * n_chunks + chunk) * n_channels * n_states
    g_all = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    if incoming is not None:
        g_all = tl.load(incoming + here + state, mask=is_state, other=0)
    if decays is not None:
        steps_all = tl.zeros([BLOCK_D], tl.float32)
        alive = tl.full([BLOCK_D], 1, tl.float32)
    shift = None
    if bias is not None:
        shift = tl.load(bias + d, mask=is_d, other=0)[None, :]
        dbias_all = tl.zeros([BLOCK_D], tl.float32)
    if D is not None:
        direct = tl.load(D + d, mask=is_d, other=0)[None, :]
        dD_all = tl.zeros([BLOCK_D], tl.float32)
    if du is not None:
        dA_all = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
        if not B_VARIES:
            dB_all = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
        if not C_VARIES:
            dC_all = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)

    # Masks and addresses found once, before the loop, would fill registers all through it.
    for i in tl.range(0, n_tiles, disable_licm=True):
        tile = (chunk + 1) * n_tiles - 1 - i
        first = tile * BLOCK_T
        lane = lanes(tile, BLOCK_D)
        is_channel = first_d + lane < stop
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
            before = (b * tl.cdiv(length, BLOCK_T) + tile) * n_channels * n_states
            is_kept = is_channel & (first < length)
        for k in range(n_states):
            is_k, of_k = (n == k)[:, None], k * n_channels + first_d + lane
            rate = row_at(A + of_k, is_channel)
            if C_VARIES:
                C_k = column_at(C_row + place * C_t + k * C_n, is_step)
            else:
                C_k = row_at(C + of_k, is_channel)
            # What is behind the tile comes in with its last step.
            behind = row_of(g_all, is_k)
            dh = C_k * dy + tl.where(is_last, behind, 0)
            next_decay = tl.exp(next_dt * rate)
            if marks is not None:
                next_decay = tl.where(next_fresh, 0, next_decay)
            _, dh = tl.associative_scan((next_decay, dh), 0, affine, reverse=True)
            decay = tl.exp(dt * rate)
            if marks is not None:
                decay = tl.where(fresh, 0, decay)
            g_all = tl.where(is_k, row_of(decay * dh, is_first), g_all)
            if du is not None:
                if B_VARIES:
                    B_k = column_at(B_row + place * B_t + k * B_n, is_step)
                else:
                    B_k = row_at(B + of_k, is_channel)
                before_tile = row_at(kept + before + of_k, is_kept)
                h = entering_u * B_k + tl.where(is_first, decay * before_tile, 0)
                _, h = tl.associative_scan((decay, h), 0, affine)
                y += C_k * h
                dentering += dh * B_k
                # What the decay left of the state before.
                past = dh * (h - entering_u * B_k)
                dstep += past * rate
                dA_k = tl.sum(past * dt, 0)[None, :]
                dA_all += tl.where(is_k, dA_k, 0)
                if B_VARIES:
                    dB_k = tl.sum(dh * entering_u, 1)
                    tl.store(dB_row + place * dB_t + k * dB_n, dB_k, mask=is_step)
                else:
                    dB_all += tl.where(is_k, tl.sum(dh * entering_u, 0)[None, :], 0)
                if C_VARIES:
                    dC_k = tl.sum(dy * h, 1)
                    tl.store(dC_row + place * dC_t + k * dC_n, dC_k, mask=is_step)
                else:
                    dC_all += tl.where(is_k, tl.sum(dy * h, 0)[None, :], 0)
        if du is not None:
            # Inputs are read again, from the first cache: kept, they take registers from the loop.
            x = load_tile(u_row, place, u_t, u_d, step, lane, inside)
            x = tl.where(real[:, None], x, 0)
            dx = dt * dentering
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

    tl.store(outgoing + here + state, g_all, mask=is_state)
    if decays is not None:
        rates = tl.load(A + state, mask=is_state, other=0)
        decay_all = alive[None, :] * tl.exp(rates * steps_all[None, :])
        tl.store(decays + here + state, decay_all, mask=is_state)
    if du is not None:
        tl.store(dA + here + state, dA_all, mask=is_state)
        if not B_VARIES:
            tl.store(dB + here + state, dB_all, mask=is_state)
        if not C_VARIES:
            tl.store(dC + here + state, dC_all, mask=is_state)
        channel = (b * n_chunks + chunk) * n_channels + d
        if bias is not None:
            tl.store(dbias + channel, dbias_all, mask=is_d)
        if D is not None:
            tl.store(dD + channel, dD_all, mask=is_d)
