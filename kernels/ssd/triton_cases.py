"""Sizes at which the Triton kernels of Mamba-2's scan are inspected."""

from collections.abc import Callable, Iterator
from functools import partial
from unittest.mock import patch

import torch
from torch import Tensor

from tristate.kernels.ssd import triton
from tristate.kernels.ssd.ops import triton_kept_shape
from tristate.kernels.triton import plan


def cases() -> Iterator[tuple[str, Callable[[], object]]]:
    """All that changes the code: sizes, storage, gate, packing, and a sequence between programs."""
    yield "128 states, bfloat16", partial(_run, 128, torch.bfloat16)
    yield "128 states, float32", partial(_run, 128, torch.float32)
    yield "128 states, float16, gate", partial(_run, 128, torch.float16, gate=True)
    yield (
        "64 states, bfloat16, gate, packed, split, reversed",
        partial(_run, 64, torch.bfloat16, gate=True, packed=True, split=True, reverse=True),
    )
    yield "16 states, bfloat16", partial(_run, 16, torch.bfloat16)
    yield "256 states, bfloat16", partial(_run, 256, torch.bfloat16)


def _run(
    n_states: int,
    dtype: torch.dtype,
    *,
    gate: bool = False,
    packed: bool = False,
    split: bool = False,
    reverse: bool = False,
) -> None:
    batch, length, heads, groups, width = 2, 4096, 16, 1, 64

    def sequence(*axes: int) -> Tensor:
        return torch.empty(batch, length, *axes, dtype=dtype, device="meta")

    x, dt = sequence(heads, width), sequence(heads)
    B, C = sequence(groups, n_states), sequence(groups, n_states)
    A, D, bias = (torch.empty(heads, device="meta") for _ in range(3))
    state = torch.empty(batch, heads, width, n_states, device="meta")
    seq_idx = torch.empty(batch, length, dtype=torch.int32, device="meta") if packed else None
    inputs = (x, dt, A, B, C, D, sequence(heads, width) if gate else None, bias, state, seq_idx)
    flags = (True, 0.0, float("inf"), reverse)
    with patch.object(plan, "programs_to_fill", lambda _: 1000 if split else 1):
        triton.forward(*inputs, *flags, True)
        kept = torch.empty(triton_kept_shape(x, B), device="meta")
        triton.backward(x, state, *inputs, kept[:0], kept, *flags)
