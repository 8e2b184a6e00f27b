"""What pieces of a sequence do to the state of Mamba-2's scan, or to its gradient, on a GPU."""

# Triton compiles what is below: to a type checker its tiles are Python's values.
# pyright: reportArgumentType=false, reportOperatorIssue=false, reportGeneralTypeIssues=false

import triton
import triton.language as tl

from tristate.kernels.ssd.triton_tiles import left_of_state, tile_at
from tristate.kernels.ssd.triton_walk import slope_before, state_after


@triton.jit
def states(
    x, sizes, A, B, z, segments, ends, decays,
    length, n_places, n_heads, group_heads, width, n_states, n_blocks, n_tiles,
    x_b, x_t, x_h, x_p, B_b, B_t, B_g, B_n, z_b, z_t, z_h, z_p,
    REVERSE: tl.constexpr, BACK: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """Where a chunk of tiles leaves a state that starts from zero, and by what it multiplies it.

    A block of channels of one head and a block of its states, ``n_tiles`` tiles one after the
    other, the last first where ``BACK``. Then ``x`` is the gradient of the output, ``B`` is ``C``,
    and what is left is the gradient of the state before the chunk.

    COST: reads ``x``, ``B``, ``sizes``, ``z`` once; blocks of states run side by side and find the
    same in the second cache. Moves what it must. Operations of a channel and step: ``2 N``.
    """
    program, chunk = tl.program_id(0), tl.program_id(1)
    n_chunks = tl.num_programs(1)
    head = program % n_heads
    block = program // n_heads % n_blocks
    b = (program // n_heads // n_blocks).to(tl.int64)
    n = tl.program_id(2) * BLOCK_N + tl.arange(0, BLOCK_N)
    p = block * BLOCK_P + tl.arange(0, BLOCK_P)
    is_channel, is_n = p < width, n < n_states
    x += b * x_b + head.to(tl.int64) * x_h
    sizes += (b * n_heads + head) * length
    B += b * B_b + (head // group_heads).to(tl.int64) * B_g
    if z is not None:
        z += b * z_b + head.to(tl.int64) * z_h
    if segments is not None:
        segments += b * n_places
    rate = tl.load(A + head)
    end = tl.zeros([BLOCK_P, BLOCK_N], tl.float32)
    decay = 1.0
    for i in tl.range(0, n_tiles, disable_licm=True):
        tile = chunk * n_tiles + (n_tiles - 1 - i if BACK else i)
        place, _, _, log_decay, _, before, after = tile_at(
            tile, sizes, rate, segments, length, BLOCK_T
        )
        if BACK:
            end = slope_before(
                end, tile, x, x_t, x_p, z, z_t, z_p, B, B_t, B_n, p, is_channel, n, is_n,
                place, log_decay, before, after, sizes, segments, length, REVERSE, BLOCK_T,
            )  # fmt: skip
        else:
            end = state_after(
                end, tile, x, x_t, x_p, B, B_t, B_n, p, is_channel, n, is_n,
                place, log_decay, before, after, sizes, segments, length, REVERSE, BLOCK_T,
            )  # fmt: skip
        decay *= left_of_state(log_decay, before, after)
    one = (b * n_chunks + chunk) * n_heads + head
    to = one * width * n_states + p[:, None] * n_states + n[None, :]
    tl.store(ends + to, end, mask=is_channel[:, None] & is_n[None, :])
    tl.store(decays + one, decay)
