"""Tensors as kernels see them: addresses, bytes between elements, working memory."""

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


def scratch(n_tasks: int, n_bytes: int) -> tuple[Tensor, int, int]:
    """Working memory: the tensor that owns it, the address of the first task's, and bytes each."""
    n_bytes = -(-n_bytes // LINE) * LINE
    memory = torch.empty(n_tasks * n_bytes + LINE, dtype=torch.uint8)
    return memory, -(-memory.data_ptr() // LINE) * LINE, n_bytes
