"""How the axes of ``(B, D, L)`` lie in memory."""

from torch import Tensor


def channels_last(x: Tensor) -> bool:
    """Whether the channels of ``x (B, D, L)`` lie side by side in memory, and time doesn't."""
    return x.stride(1) == 1 and x.stride(2) != 1


def empty_like_rows(x: Tensor) -> Tensor:
    """An empty tensor like ``x (B, D, L)``, dense, with its axes in the same order in memory."""
    batch, dim, length = x.shape
    if channels_last(x):
        return x.new_empty(batch, length, dim).transpose(1, 2)
    return x.new_empty(batch, dim, length)
