"""Sizes at which the Triton kernels of the gated delta rule are inspected."""

from collections.abc import Callable, Iterator
from functools import partial
from unittest.mock import patch

import torch
from torch import Tensor

from tristate.kernels.delta import triton
from tristate.kernels.delta.ops import triton_kept_shape
from tristate.kernels.triton import plan


def cases() -> Iterator[tuple[str, Callable[[], object]]]:
    """All that changes the code: sizes, storage, gates, packing, a sequence between programs."""
    yield "128 channels, bfloat16", partial(_run, 128, torch.bfloat16)
    yield "128 channels, float32, no gate", partial(_run, 128, torch.float32, gate="")
    yield (
        "64 channels, bfloat16, packed, split, reversed",
        partial(_run, 64, torch.bfloat16, packed=True, split=True, reverse=True),
    )
    yield "64 channels, float32, products of 2", partial(_run, 64, torch.float32, n=2)
    yield "128 channels, bfloat16, gate by key", partial(_run, 128, torch.bfloat16, gate="key")
    yield "64 channels, bfloat16, rate by value", partial(_run, 64, torch.bfloat16, by_value=True)
    yield "256 channels, bfloat16", partial(_run, 256, torch.bfloat16)


def _run(
    channels: int,
    dtype: torch.dtype,
    *,
    n: int = 1,
    gate: str = "head",
    by_value: bool = False,
    packed: bool = False,
    split: bool = False,
    reverse: bool = False,
) -> None:
    batch, length, heads = 2, 4096, 4

    def sequence(*axes: int, steps: int = length) -> Tensor:
        return torch.empty(batch, steps, heads, *axes, dtype=dtype, device="meta")

    q, k, v = (sequence(channels, steps=steps) for steps in (length, n * length, n * length))
    beta = torch.empty_like(v) if by_value else torch.empty_like(v[..., 0])
    g = {"": None, "head": q[..., 0], "key": q}[gate]
    if g is not None:
        g = torch.empty_like(g, dtype=torch.float32)
    state = torch.empty(batch, heads, channels, channels, device="meta")
    seq_idx = torch.empty(batch, length, dtype=torch.int32, device="meta") if packed else None
    inputs = (q, k, v, beta, g, state, seq_idx)
    with patch.object(plan, "programs_to_fill", lambda _: 1000 if split else 1):
        triton.forward(*inputs, 1.0, reverse, True)
        kept = torch.empty(triton_kept_shape(k, v), device="meta")
        triton.backward(q, state, *inputs, kept, 1.0, reverse)
