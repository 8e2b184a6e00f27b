"""Tensors as kernels see them: addresses, bytes between elements, working memory."""

from collections.abc import Sequence

import torch
from torch import Tensor

LINE = 64
"""Bytes of 16 lanes; working memory starts at a multiple of it."""


def address(x: Tensor | None) -> int:
    """Where a tensor's first element lies; 0 where there is no tensor."""
    return 0 if x is None else x.data_ptr()


def span(x: Tensor, time: int, reverse: bool = False) -> tuple[int, ...]:
    """Address of the first position that is read along the axis ``time``, and strides in bytes."""
    strides = [step * x.element_size() for step in x.stride()]
    start = x.data_ptr()
    if reverse:
        start += (x.shape[time] - 1) * strides[time]
        strides[time] = -strides[time]
    return start, *strides


def segments(seq_idx: Tensor | None, reverse: bool) -> tuple[int, ...]:
    """The span of ``seq_idx (B, L)``, int32; zeros where there is none."""
    return (0, 0, 0) if seq_idx is None else span(seq_idx, 1, reverse)


def empty(*shape: int | Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
    """As :func:`torch.empty`, in the processor's memory.

    Kernels write as many bytes as they reckon with, whatever :func:`torch.set_default_dtype` and
    :func:`torch.set_default_device` say: Lightning sets the first where weights are in bfloat16.
    """
    return torch.empty(*shape, dtype=dtype, device="cpu")  # pyright: ignore[reportCallIssue, reportArgumentType]


def zeros(*shape: int | Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
    """Zeros as :func:`empty` has them."""
    return empty(*shape, dtype=dtype).zero_()


def scratch(n_tasks: int, n_bytes: int) -> tuple[Tensor, int, int]:
    """Working memory: the tensor that owns it, the address of the first task's, and bytes each."""
    n_bytes = -(-n_bytes // LINE) * LINE
    memory = empty(n_tasks * n_bytes + LINE, dtype=torch.uint8)
    return memory, -(-memory.data_ptr() // LINE) * LINE, n_bytes
