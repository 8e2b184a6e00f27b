"""Sizes at which the Triton kernels of linear attention are inspected."""

from collections.abc import Callable, Iterator
from functools import partial
from unittest.mock import patch

import torch
from torch import Tensor

from tristate.kernels.attention import triton
from tristate.kernels.triton import plan


def cases() -> Iterator[tuple[str, Callable[[], object]]]:
    """All that changes the code: decay, rank, who reads, storage, packing, a shared sequence."""
    yield "64 channels, no decay, float32", partial(_run, 64, 64, "", False)
    yield "64 channels, by head, bfloat16", partial(_run, 64, 64, "head", False, torch.bfloat16)
    yield (
        "64 channels, by key, bfloat16, packed, split",
        partial(_run, 64, 64, "key", False, torch.bfloat16, packed=True, split=True),
    )
    yield "64 channels, by key, before, float32", partial(_run, 64, 64, "key", False, before=True)
    yield (
        "64 channels, by key, rank one, bfloat16",
        partial(_run, 64, 64, "key", True, torch.bfloat16),
    )
    yield (
        "64 channels, by head, rank one, float32, packed, split",
        partial(_run, 64, 64, "head", True, packed=True, split=True),
    )
    yield "128 channels, by key, bfloat16", partial(_run, 128, 128, "key", False, torch.bfloat16)
    yield "16 and 32 channels, by head, rank one, float32", partial(_run, 16, 32, "head", True)


def _run(
    d_key: int,
    d_value: int,
    gate: str,
    rank_one: bool,
    dtype: torch.dtype = torch.float32,
    *,
    before: bool = False,
    packed: bool = False,
    split: bool = False,
) -> None:
    batch, length, heads = 2, 4096, 4

    def sequence(*channels: int, kind: torch.dtype = dtype) -> Tensor:
        return torch.empty(batch, length, heads, *channels, dtype=kind, device="meta")

    q, v = sequence(d_key), sequence(d_value)
    g = None
    if gate:
        g = sequence(*([d_key] if gate == "key" else []), kind=torch.float32)
    a = q if rank_one else None
    state = torch.empty(batch, heads, d_key, d_value, device="meta")
    seq_idx = torch.empty(batch, length, dtype=torch.int32, device="meta") if packed else None
    inputs = q, q, v, g, a, a, state, seq_idx
    with patch.object(plan, "programs_to_fill", lambda _: 1000 if split else 1):
        kept = triton.forward(*inputs, 0.125, False, before, True)[2]
        triton.backward(v, state, *inputs, kept, 0.125, False, before)
