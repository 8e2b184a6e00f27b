"""How the axes of ``(B, D, L)`` lie in memory."""

from collections.abc import Callable

import torch
from torch import Tensor


def channels_last(x: Tensor) -> bool:
    """Whether the channels of ``x (B, D, L)`` lie side by side in memory, and time doesn't."""
    return x.stride(1) == 1 and x.stride(2) != 1


def side_by_side(x: Tensor) -> Tensor:
    """``x (B, D, L)``, copied where its channels don't lie side by side in memory."""
    return x if x.stride(1) == 1 else x.transpose(1, 2).contiguous().transpose(1, 2)


def empty_like_rows(x: Tensor, new: Callable[..., Tensor] = torch.empty) -> Tensor:
    """A tensor like ``x (B, D, L)``, dense, with its axes in the same order in memory.

    Args:
        x: what it is to be like.
        new: :func:`torch.empty`, or :func:`torch.zeros`.
    """
    batch, dim, length = x.shape
    if channels_last(x):
        return new(batch, length, dim, dtype=x.dtype, device=x.device).transpose(1, 2)
    return new(batch, dim, length, dtype=x.dtype, device=x.device)
