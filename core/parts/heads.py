"""Heads: how many there are by default, and the norm over each of them."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tristate.core.mixer import at_least_float32


def heads_of(d_model: int, n_heads: int | None, width: int) -> int:
    """``n_heads``, or one for every ``width`` channels.

    Raises:
        ValueError: they don't divide ``d_model``.
    """
    n_heads = n_heads or max(1, d_model // width)
    if d_model % n_heads:
        raise ValueError(f"{n_heads} heads don't divide {d_model} channels")
    return n_heads


def unit_length(x: Tensor, eps: float = 1e-6) -> Tensor:
    """``x`` divided by its length along the last axis; ``eps`` is added to the square of that."""
    wide = at_least_float32(x)
    return (wide * torch.rsqrt(wide.square().sum(-1, keepdim=True) + eps)).to(x.dtype)


class HeadNorm(nn.Module):
    """LayerNorm of each head, with a weight and a bias for each channel of all of them.

    Args:
        d_model: channels of all heads.
        eps: added to the variance.
    """

    def __init__(self, d_model: int, *, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))

    def forward(self, x: Tensor) -> Tensor:
        """``(..., H, V)`` to ``(..., d_model)``."""
        return F.layer_norm(x, x.shape[-1:], eps=self.eps).flatten(-2) * self.weight + self.bias

    def extra_repr(self) -> str:
        """Sizes, for ``print(model)``."""
        return f"{self.weight.shape[0]}, eps={self.eps}"
