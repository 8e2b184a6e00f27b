"""Sizes at which the selective scan's Triton kernels are inspected."""

from collections.abc import Callable, Iterator
from functools import partial
from unittest.mock import patch

import torch
from torch import Tensor

from tristate.kernels.selective import triton, triton_update
from tristate.kernels.selective.ops import triton_checkpoint_shape
from tristate.kernels.triton import plan

Case = tuple[str, Callable[[], object]]


def cases() -> Iterator[Case]:
    """All that changes the code: states, layout, storage, and a sequence split between programs."""
    yield "16 states, channels last, float32", partial(_run, 16, True, torch.float32)
    yield "16 states, channels last, bfloat16", partial(_run, 16, True, torch.bfloat16)
    yield "16 states, time last, float32", partial(_run, 16, False, torch.float32)
    yield (
        "16 states, time last, bfloat16, packed",
        partial(_run, 16, False, torch.bfloat16, packed=True),
    )
    yield "1 state, channels last, bfloat16", partial(_run, 1, True, torch.bfloat16)
    yield "64 states, channels last, bfloat16", partial(_run, 64, True, torch.bfloat16)
    yield "256 states, channels last, bfloat16", partial(_run, 256, True, torch.bfloat16)
    yield (
        "16 states, channels last, bfloat16, split, reversed",
        partial(_run, 16, True, torch.bfloat16, split=True, reverse=True),
    )
    yield (
        "16 complex states, channels last, float32",
        partial(_run, 16, True, torch.float32, complex_A=True),
    )
    yield (
        "16 states, constant B and C, channels last, float32",
        partial(_run, 16, True, torch.float32, constant=True),
    )
    yield "16 states, a step, bfloat16", _step


def _run(
    n_states: int,
    channels_last: bool,
    dtype: torch.dtype,
    *,
    packed: bool = False,
    split: bool = False,
    reverse: bool = False,
    constant: bool = False,
    complex_A: bool = False,
) -> None:
    batch, dim, length = 2, 512, 4096

    def sequence(n: int, steps: int = length) -> Tensor:
        if channels_last:
            return torch.empty(batch, steps, n, dtype=dtype, device="meta").transpose(1, 2)
        return torch.empty(batch, n, steps, dtype=dtype, device="meta")

    def weight() -> Tensor:
        return sequence(n_states, 2 * length if complex_A else length)

    def parameter(*shape: int) -> Tensor:
        kind = torch.complex64 if complex_A else torch.float32
        return torch.empty(*shape, dtype=kind, device="meta")

    A = parameter(dim, n_states)
    D, bias = (torch.empty(dim, device="meta") for _ in range(2))
    B, C = (A, A) if constant else (weight(), weight())
    state = parameter(batch, dim, n_states)
    u, delta, z = (sequence(dim) for _ in range(3))
    seq_idx = None
    if packed:
        seq_idx = torch.empty(batch, length, dtype=torch.int32, device="meta")
    inputs = (u, delta, A, B, C, D, z, bias, state, seq_idx)
    with patch.object(plan, "programs_to_fill", lambda _: 1000 if split else 1):
        triton.forward(*inputs, True, reverse, True)
        kept = parameter(*triton_checkpoint_shape(u, A, B, C))
        triton.backward(u, state, *inputs, kept, True, reverse)


def _step() -> None:
    batch, dim, n_states = 2, 512, 16
    state = torch.empty(batch, 1, dim, n_states, device="meta")
    x, dt, z = (torch.empty(batch, 1, dim, dtype=torch.bfloat16, device="meta") for _ in range(3))
    B, C = (torch.empty(batch, 1, n_states, dtype=torch.bfloat16, device="meta") for _ in range(2))
    A = torch.empty(1, dim, n_states, device="meta")
    D, bias = (torch.empty(1, dim, device="meta") for _ in range(2))
    triton_update.selective_state_update(state, x, dt, A, B, C, D, z, bias, True)
