"""How the output of a long convolution lies in memory."""

from torch import Tensor


def channels_inside(x: Tensor) -> bool:
    """Whether the channels of ``x (B, D, *grid)`` lie side by side in memory."""
    return x.stride(1) == 1 and x.stride(-1) != 1


def empty_output(x: Tensor, n_out: int) -> Tensor:
    """``(B, C, D, *grid)``, its channels side by side in memory where those of ``x`` are."""
    batch, dim, *grid = x.shape
    if channels_inside(x):
        return x.new_empty(batch, *grid, n_out, dim).movedim((-2, -1), (1, 2))
    return x.new_empty(batch, n_out, dim, *grid)
