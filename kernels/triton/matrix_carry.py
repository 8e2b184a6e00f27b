"""Hands a state on from piece to piece of a sequence, where a piece multiplies it by a matrix.

:mod:`tristate.kernels.triton.carry` is this for a number.
"""

# Triton compiles what is below: to a type checker its tiles are Python's values.
# pyright: reportArgumentType=false

import torch
import triton
import triton.language as tl
from torch import Tensor

from tristate.kernels.triton.launch import launch
from tristate.kernels.triton.plan import power_of_two
from tristate.kernels.triton.products import dot

_ROWS = 32


@triton.jit
def matrix_carry(
    maps, ends, initial, entering, n_chunks, n_heads, d_key, d_value, map_to, map_from,
    BACK: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """``entering[k + 1] = maps[k] entering[k] + ends[k]``, from the last chunk where ``BACK``.

    ``map_to`` and ``map_from`` are the strides of a map's rows and columns.

    COST: reads a state and ``K / V`` of one a chunk, writes one and reads it again from the first
    cache; moves what it must. ``2 K`` operations a number of a state.
    """
    head, b = tl.program_id(0) % n_heads, tl.program_id(1).to(tl.int64)
    key, row = tl.arange(0, BLOCK_K), tl.arange(0, ROWS)
    value = tl.program_id(0) // n_heads * BLOCK_V + tl.arange(0, BLOCK_V)
    is_key, is_value = key < d_key, value < d_value
    at = key[:, None] * d_value + value[None, :]
    inside = is_key[:, None] & is_value[None, :]
    state = tl.zeros([BLOCK_K, BLOCK_V], tl.float32)
    if initial is not None:
        here = (b * n_heads + head) * d_key * d_value
        state = tl.load(initial + here + at, mask=inside, other=0)
    for i in range(n_chunks):
        chunk = n_chunks - 1 - i if BACK else i
        here = (b * n_chunks + chunk) * n_heads + head
        tl.store(entering + here * d_key * d_value + at, state, mask=inside)
        # The rows of the state are read from memory: a tile in registers can't be cut.
        tl.debug_barrier()
        state = tl.load(ends + here * d_key * d_value + at, mask=inside, other=0)
        for first in range(0, d_key, ROWS):
            source = first + row
            is_source = source < d_key
            part = tl.load(
                maps + here * d_key * d_key + key[:, None] * map_to + source[None, :] * map_from,
                mask=is_key[:, None] & is_source[None, :],
                other=0,
            )
            rows = tl.load(
                entering + here * d_key * d_value + source[:, None] * d_value + value[None, :],
                mask=is_source[:, None] & is_value[None, :],
                other=0,
            )
            state += dot(part, rows)


def hand_matrix_on(
    maps: Tensor, ends: Tensor, initial: Tensor | None, back: bool = False
) -> Tensor:
    """The state ``(K, V)`` that enters each chunk, ``(B, chunks, H, K, V)``.

    Args:
        maps: by which matrix a chunk multiplies the state, ``(B, chunks, H, K, K)``, float32.
        ends: with which state it ends if it starts from zero.
        initial: what enters the first, ``(B, H, K, V)``; zeros when absent.
        back: the last chunk is the first, and maps are transposed.
    """
    batch, n_chunks, n_heads, d_key, d_value = ends.shape
    entering = torch.empty_like(ends)
    block_k = max(16, power_of_two(d_key))
    block_v = max(16, min(32, power_of_two(d_value), 8192 // block_k))
    launch(
        matrix_carry,
        (n_heads * -(-d_value // block_v), batch),
        maps=maps,
        ends=ends,
        initial=None if initial is None else initial.float().contiguous(),
        entering=entering,
        n_chunks=n_chunks,
        n_heads=n_heads,
        d_key=d_key,
        d_value=d_value,
        map_to=1 if back else d_key,
        map_from=d_key if back else 1,
        BACK=back,
        BLOCK_K=block_k,
        BLOCK_V=block_v,
        ROWS=min(_ROWS, block_k),
    )
    return entering
