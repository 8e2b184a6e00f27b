"""Sizes at which the Triton kernels of RWKV-4's attention are inspected."""

from collections.abc import Callable, Iterator
from functools import partial
from unittest.mock import patch

import torch

from tristate.kernels.rwkv import triton
from tristate.kernels.triton import plan


def cases() -> Iterator[tuple[str, Callable[[], object]]]:
    """All that changes the code: storage, packing, and a sequence shared by programs."""
    yield "channels last, float32", partial(_run, torch.float32)
    yield "channels last, bfloat16, packed", partial(_run, torch.bfloat16, packed=True)
    yield "channels last, float32, split", partial(_run, torch.float32, split=True)
    yield (
        "time last, float16, packed, split",
        partial(_run, torch.float16, packed=True, split=True, channels_last=False),
    )


def _run(
    dtype: torch.dtype, *, packed: bool = False, split: bool = False, channels_last: bool = True
) -> None:
    batch, length, dim = 2, 4096, 512
    k = torch.empty(batch, length, dim, dtype=dtype, device="meta")
    if not channels_last:
        k = k.mT.contiguous().mT
    w, state = torch.empty(dim, device="meta"), torch.empty(batch, 3, dim, device="meta")
    seq_idx = torch.empty(batch, length, dtype=torch.int32, device="meta") if packed else None
    inputs = k, k, w, w, state, seq_idx
    with patch.object(plan, "programs_to_fill", lambda _: 1000 if split else 1):
        _, last, kept = triton.forward(*inputs, False, True)
        triton.backward(k, state, *inputs, last, kept, False)
