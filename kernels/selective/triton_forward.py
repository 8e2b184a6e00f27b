"""The selective scan on a GPU, forward, for real ``A``."""

# Triton compiles what is below: to a type checker its tiles are Python's values.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false
# pyright: reportOperatorIssue=false, reportPossiblyUnboundVariable=false

import triton
import triton.language as tl

from tristate.kernels.selective.triton_tiles import step_sizes
from tristate.kernels.triton.functions import (
    affine,
    column_at,
    load_tile,
    row_at,
    row_of,
    sigmoid,
    store_tile,
    tile_at,
)


@triton.jit
def forward(
    u, delta, A, B, C, D, z, bias, marks, entering,
    out, leaving, decays, kept,
    length, n_channels, n_states, n_blocks, group_channels, group_blocks, n_tiles,
    u_b, u_d, u_t, delta_b, delta_d, delta_t, z_b, z_d, z_t, out_b, out_d, out_t,
    B_channels, B_b, B_g, B_n, B_t, C_channels, C_b, C_g, C_n, C_t,
    SOFTPLUS: tl.constexpr, REVERSE: tl.constexpr, B_VARIES: tl.constexpr, C_VARIES: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """A block of channels of one sequence, ``n_tiles`` tiles of time one after the other.

    Without ``out`` only what the tiles do to a state is found: where they leave one that starts
    from zero, and by which number they multiply it (``decays``).

    All that has states is ``(..., N, D)``, dense, float32. ``kept``: the states before each tile.

    COST: reads ``u``, ``delta``, ``z`` and writes ``out`` once: the least there is. Beyond it, of
    ``N`` numbers a channel, ``2 / BLOCK_D`` a step for ``B`` and ``C``, which every block of
    channels reads, and ``1 / BLOCK_T`` a step for ``kept``: with float32, 16 states, a gate and
    tiles of 32 by 64 that is 1.25 times the least, 1.13 where no gradient is wanted. A split
    sequence is read twice. A state and step take an exponential: for 512 channels of 131,072 steps
    and 16 states 0.3 ms on an H100 (16 a processor and cycle), as long as memory at 3.35 TB/s.
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
    u_row = u + b * u_b + at_d * u_d
    delta_row = delta + b * delta_b + at_d * delta_d
    if z is not None:
        z_row = z + b * z_b + at_d * z_d
    if out is not None:
        out_row = out + b * out_b + at_d * out_d
    if B_VARIES:
        B_row = B + b * B_b + first_d // B_channels * B_g + step * B_t
    if C_VARIES:
        C_row = C + b * C_b + first_d // C_channels * C_g + step * C_t

    state = n[:, None] * n_channels + (first_d + lane)[None, :]
    is_state = (n < n_states)[:, None] & is_channel[None, :]
    here = (b * n_chunks + chunk) * n_channels * n_states
    h_all = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    if entering is not None:
        h_all = tl.load(entering + here + state, mask=is_state, other=0)
    if decays is not None:
        steps_all = tl.zeros([BLOCK_D], tl.float32)
        alive = tl.full([BLOCK_D], 1, tl.float32)
    shift = None
    if bias is not None:
        shift = tl.load(bias + first_d + lane, mask=is_channel, other=0)[None, :]
    if D is not None:
        direct = tl.load(D + first_d + lane, mask=is_channel, other=0)[None, :]

    for i in range(n_tiles):
        tile = chunk * n_tiles + i
        first = tile * BLOCK_T
        is_step = first + t < length
        inside = is_step[:, None] & is_channel[None, :]
        place = (length - 1 - first if REVERSE else first).to(tl.int64)
        if kept is not None:
            before = (b * tl.cdiv(length, BLOCK_T) + tile) * n_channels * n_states
            tl.store(kept + before + state, h_all, mask=is_state & (first < length))
        x = load_tile(u_row, place, u_t, u_d, step, lane, inside)
        real = is_step
        if marks is not None:
            mark = tl.load(marks + b * length + first + t, mask=is_step, other=2)
            real, fresh = mark < 2, (mark == 1)[:, None]
        dt = step_sizes(
            tile_at(delta_row, place, delta_t, delta_d, step, lane), inside, real, shift, SOFTPLUS
        )
        entering_u = tl.where(real[:, None], dt * x, 0)
        if decays is not None:
            steps_all += tl.sum(dt, 0)
            if marks is not None:
                alive = tl.where(tl.max((mark == 1).to(tl.int32), 0) > 0, 0, alive)
        if out is not None:
            y = tl.zeros([BLOCK_T, BLOCK_D], tl.float32)
        for k in range(n_states):
            is_k, of_k = (n == k)[:, None], k * n_channels + first_d + lane
            decay = tl.exp(dt * row_at(A + of_k, is_channel))
            if marks is not None:
                decay = tl.where(fresh, 0, decay)
            if B_VARIES:
                h = entering_u * column_at(B_row + place * B_t + k * B_n, is_step)
            else:
                h = entering_u * row_at(B + of_k, is_channel)
            before_tile = row_of(h_all, is_k)
            h += tl.where(is_first, decay * before_tile, 0)
            _, h = tl.associative_scan((decay, h), 0, affine)
            h_all = tl.where(is_k, row_of(h, is_last), h_all)
            if out is not None:
                if C_VARIES:
                    y += h * column_at(C_row + place * C_t + k * C_n, is_step)
                else:
                    y += h * row_at(C + of_k, is_channel)
        if out is not None:
            if D is not None:
                y += x * direct
            if z is not None:
                gate = load_tile(z_row, place, z_t, z_d, step, lane, inside)
                y *= gate * sigmoid(gate)
            if marks is not None:
                y = tl.where(real[:, None], y, 0)
            store_tile(y, out_row, place, out_t, out_d, step, lane, inside)

    tl.store(leaving + here + state, h_all, mask=is_state)
    if decays is not None:
        rates = tl.load(A + state, mask=is_state, other=0)
        decay_all = alive[None, :] * tl.exp(rates * steps_all[None, :])
        tl.store(decays + here + state, decay_all, mask=is_state)
