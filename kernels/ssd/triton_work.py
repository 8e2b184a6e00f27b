"""What the kernels of Mamba-2's scan on a GPU have in common: shapes, grids, step sizes, states."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from tristate.kernels.ssd import triton_states
from tristate.kernels.ssd.ops import triton_part
from tristate.kernels.ssd.triton_tiles import PIECE
from tristate.kernels.triton.carry import hand_on
from tristate.kernels.triton.launch import launch, strides
from tristate.kernels.triton.plan import Tiles, power_of_two, share_out
from tristate.kernels.triton.segments import numbers

STEPS, STATES = 64, 32
"""Of a tile: steps, and states where nothing but sums of these is in registers."""

SUMS = 128
"""States of a tile's sums over heads: scores are made again for each block of them."""

SAVED = 4
"""Tiles between the states that gradients have in memory: a part of those between kept ones."""

ROWS = 16
"""The least steps that matrix units take."""


@dataclass(frozen=True)
class Work:
    """What the kernels have in common.

    Attributes:
        grid: programs: blocks of channels of all heads, and chunks of time.
        parts: of a chunk: stretches of time between kept states.
        kept: tiles of a part.
        n_blocks: of a head's channels.
        inputs: of all kernels, with sizes, flags and tiles.
        B: and ``C``, of one dtype.
        C: of which the scores are made.
        D: ``(H, P)``.
    """

    grid: tuple[int, int]
    parts: int
    kept: int
    n_blocks: int
    inputs: dict[str, Any]
    B: Tensor
    C: Tensor
    D: Tensor | None


def forward_tile(x: Tensor) -> Tiles:
    """A tile of a head's channels: each warp has the least rows that there may be."""
    return Tiles(STEPS, channels_of(x, 32), warps=STEPS // ROWS)


def backward_tile(x: Tensor, channels: int) -> Tiles:
    """A tile of so many channels at most: with twice as much to hold, of half the steps."""
    channels = channels_of(x, channels)
    return Tiles(max(ROWS, STEPS // 2), channels, warps=channels // 4)


def weights_tile(n_states: int) -> tuple[Tiles, int]:
    """A tile of sums over the channels of a head; of how many of the states."""
    block = max(16, min(SUMS, power_of_two(n_states)))
    return Tiles(STEPS, PIECE.value, warps=max(STEPS, block) // ROWS), block


def channels_of(x: Tensor, most: int) -> int:
    """Of a head: so many at most, 16 at least."""
    return max(16, min(most, power_of_two(x.shape[3])))


def shared_work(
    tile: Tiles,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    seq_idx: Tensor | None,
    dt_softplus: bool,
    dt_min: float,
    dt_max: float,
    reverse: bool,
) -> Work:
    """The work on these inputs, by tiles of a head's channels."""
    batch, length, n_heads, width = x.shape
    n_groups, n_states = B.shape[2:]
    n_blocks = -(-width // tile.channels)
    part = triton_part(B)
    n_chunks, n_parts = share_out(x, batch * n_heads * n_blocks, -(-length // part))
    segments = numbers(seq_idx, reverse, n_parts * part)
    if B.dtype != C.dtype:
        B, C = B.float(), C.float()
    _, size = step_sizes(dt, dt_bias, dt_softplus)
    size = size.clamp(dt_min, dt_max).transpose(1, 2)
    size = (size.flip(2) if reverse else size).contiguous()
    if segments is not None:
        size = torch.where(segments[:, None, :length] >= 0, size, 0)
    inputs = {
        "sizes": size,
        "A": A.float().contiguous(),
        "z": z,
        "segments": segments,
        "length": length,
        "n_places": 0 if segments is None else segments.shape[1],
        "n_heads": n_heads,
        "group_heads": n_heads // n_groups,
        "width": width,
        "n_states": n_states,
        **strides("z", z, "bthp"),
        "REVERSE": reverse,
        "BLOCK_N": PIECE.value,
        "BLOCK_P": tile.channels,
        "BLOCK_T": tile.steps,
        "num_warps": tile.warps,
    }
    if D is not None:
        D = D.float()
        D = D if D.dim() == 2 else D[:, None].expand(n_heads, width)
    grid = batch * n_heads * n_blocks, n_chunks
    return Work(grid, n_parts, part // tile.steps, n_blocks, inputs, B, C, D)


def step_sizes(dt: Tensor, dt_bias: Tensor | None, dt_softplus: bool) -> tuple[Tensor, Tensor]:
    """What comes to the softplus, and step sizes before they are limited, ``(B, L, H)``.

    One number a head: made here, since in a kernel each thread that reads one would make it anew.
    """
    raw = dt.float() if dt_bias is None else dt.float() + dt_bias.float()
    return raw, softplus(raw) if dt_softplus else raw


def between_chunks(
    work: Work, rows: Tensor, columns: Tensor, given: Tensor | None, back: bool = False
) -> Tensor:
    """The state before each chunk, ``(B, chunks, H, P, N)``; where ``back``, its gradient behind.

    Args:
        work: that is shared out.
        rows: ``x``, or the gradient of the output.
        columns: ``B``, or ``C``.
        given: the state before the first chunk, or its gradient behind the last; or zeros.
        back: from the end.
    """
    batch, _, n_heads, width = rows.shape
    n_chunks, n_states = work.grid[1], columns.shape[3]
    ends = rows.new_empty(batch, n_chunks, n_heads, width, n_states, dtype=torch.float32)
    if n_chunks == 1:
        return ends.zero_() if given is None else ends.copy_(given[:, None])
    block = max(16, min(STATES, power_of_two(n_states)))
    decays = ends.new_empty(ends.shape[:3])
    launch(
        triton_states.states,
        (*work.grid, -(-n_states // block)),
        **{**work.inputs, "z": work.inputs["z"] if back else None, "BLOCK_N": block},
        x=rows,
        B=columns,
        ends=ends,
        decays=decays,
        n_blocks=work.n_blocks,
        n_tiles=work.parts * work.kept,
        **strides("x", rows, "bthp"),
        **strides("B", columns, "btgn"),
        BACK=back,
    )
    return hand_on(decays, ends, given, back)
