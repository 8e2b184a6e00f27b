"""Sums of complex powers over states, and over positions, on a GPU.

Position ``l`` is ``start + j``: ``exp(z l)`` is a factor of the block that begins at ``start``
times one of ``BLOCK_L`` powers that all blocks share. So few powers are made, none by repeated
multiplication, and what is left is a matrix product in full float32.
"""

# Triton compiles what is below: to a type checker its tiles are Python's values.
# pyright: reportArgumentType=false, reportIndexIssue=false

import triton
import triton.language as tl

from tristate.kernels.ssm_kernel.triton_powers import power


@triton.jit
def evaluate(
    coefficient, rates, turns, out, n_rows, n_channels, n_states, length,
    BLOCK_M: tl.constexpr, BLOCK_L: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """``out[r, d, l] = 2 Re sum_n c[r, d, n] exp(z[d, n] l)``, ``BLOCK_M`` blocks of positions.

    The blocks of all rows of a channel are counted one after the other.

    COST: writes ``out`` once; of ``N`` states it reads 12 bytes for the exponents and 8 for each
    row's coefficients, for up to ``BLOCK_M BLOCK_L`` outputs of 4: 1.08 times the least with 32
    states and tiles of 32 by 64. ``2 N`` multiply-adds an output, and powers of 25 operations for
    ``1 / BLOCK_L + 1 / BLOCK_M`` of the terms: bound by arithmetic; 0.06 ms on an H100 for 1,024
    channels of 16,384 positions and 32 states, where memory takes 0.02 ms.
    """
    d, m = tl.program_id(0), tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    lane, step = tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_L)
    row_blocks = tl.cdiv(length, BLOCK_L)
    row, start = m // row_blocks, (m % row_blocks).to(tl.int64) * BLOCK_L
    line = row.to(tl.int64) * n_channels + d
    y = tl.zeros([BLOCK_M, BLOCK_L], tl.float32)
    for first in range(0, n_states, BLOCK_N):
        n = first + lane
        is_state = n < n_states
        rate = tl.load(rates + d * n_states + n, mask=is_state, other=0)
        turn = tl.load(turns + d * n_states + n, mask=is_state, other=0)
        here = (row < n_rows)[:, None] & is_state[None, :]
        c = coefficient + 2 * (line[:, None] * n_states + n[None, :])
        c_re, c_im = tl.load(c, mask=here, other=0), tl.load(c + 1, mask=here, other=0)
        far_re, far_im = power(rate[None, :], turn[None, :], start[:, None])
        near_re, near_im = power(rate[:, None], turn[:, None], step[None, :].to(tl.int64))
        left = c_re * far_re - c_im * far_im
        y = tl.dot(left, near_re, y, input_precision="ieee")
        left = -(c_re * far_im + c_im * far_re)
        y = tl.dot(left, near_im, y, input_precision="ieee")
    place = start[:, None] + step[None, :]
    inside = (row < n_rows)[:, None] & (place < length)
    tl.store(out + line[:, None] * length + place, 2 * y, mask=inside)


@triton.jit
def moments(
    x, rates, turns, out, n_rows, n_channels, n_states, length, x_r, x_d, x_l,
    BLOCK_M: tl.constexpr, BLOCK_L: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """``sum_l x exp(z l)`` and ``sum_l l x exp(z l)`` over ``BLOCK_M`` blocks of positions.

    ``out[chunk, r, d]`` has four planes of ``N``: both parts of the one, then of the other.

    COST: reads ``x`` once; of ``N`` states it reads 12 bytes and writes 16, read again to be added
    up, for ``BLOCK_M BLOCK_L`` inputs of 4 bytes: 1.17 times the least with 32 states and tiles of
    32 by 64. ``4 N`` multiply-adds an input: bound by arithmetic, twice as long as
    :func:`evaluate`.
    """
    chunk, d, r = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    lane, step = tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_L)
    start = (chunk * BLOCK_M + tl.arange(0, BLOCK_M)).to(tl.int64) * BLOCK_L
    place = start[:, None] + step[None, :]
    source = x + r.to(tl.int64) * x_r + d.to(tl.int64) * x_d
    values = tl.load(source + place * x_l, mask=place < length, other=0).to(tl.float32)
    line = (chunk.to(tl.int64) * n_rows + r) * n_channels + d
    before, weight = start.to(tl.float32)[:, None], step.to(tl.float32)[:, None]
    for first in range(0, n_states, BLOCK_N):
        n = first + lane
        is_state = n < n_states
        rate = tl.load(rates + d * n_states + n, mask=is_state, other=0)[None, :]
        turn = tl.load(turns + d * n_states + n, mask=is_state, other=0)[None, :]
        near_re, near_im = power(rate, turn, step[:, None].to(tl.int64))
        p_re = tl.dot(values, near_re, input_precision="ieee")
        p_im = tl.dot(values, near_im, input_precision="ieee")
        q_re = tl.dot(values, near_re * weight, before * p_re, input_precision="ieee")
        q_im = tl.dot(values, near_im * weight, before * p_im, input_precision="ieee")
        far_re, far_im = power(rate, turn, start[:, None])
        target = out + line * 4 * n_states + n
        tl.store(target, tl.sum(far_re * p_re - far_im * p_im, 0), mask=is_state)
        tl.store(target + n_states, tl.sum(far_re * p_im + far_im * p_re, 0), mask=is_state)
        target += 2 * n_states
        tl.store(target, tl.sum(far_re * q_re - far_im * q_im, 0), mask=is_state)
        tl.store(target + n_states, tl.sum(far_re * q_im + far_im * q_re, 0), mask=is_state)
