"""Norms that add the residual first: one pass over the stream at each block's entrance."""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tristate.core.mixer import at_least_float32
from tristate.kernels.norm import add_norm


class AddNorm(nn.Module):
    """``residual = residual + x``, then ``norm(residual)``; the base of the two norms.

    Args:
        d_model: width.
        eps: added to the variance.
        residual_in_fp32: keep the residual stream in float32 while the model runs in half
            precision.
    """

    rms: ClassVar[bool]

    def __init__(self, d_model: int, *, eps: float = 1e-5, residual_in_fp32: bool = False) -> None:
        super().__init__()
        self.eps = eps
        self.residual_in_fp32 = residual_in_fp32
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = None if self.rms else nn.Parameter(torch.zeros(d_model))

    def forward(self, x: Tensor, residual: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Add and normalise.

        Args:
            x: what the last block gave, ``(B, L, d_model)``.
            residual: the stream so far, or None at the start.

        Returns:
            The normalised sum in the dtype of ``x``, and the sum itself.
        """
        out, total = add_norm(
            x,
            self.weight,
            self.bias,
            residual,
            rms=self.rms,
            eps=self.eps,
            residual_in_fp32=self.residual_in_fp32,
        )
        return out, total

    def extra_repr(self) -> str:
        """Sizes, for ``print(model)``."""
        return f"{self.weight.shape[0]}, eps={self.eps}"


class RMSNorm(AddNorm):
    """Root-mean-square norm: no mean is taken off, no bias (Zhang & Sennrich 2019, 1910.07467)."""

    rms = True


class LayerNorm(AddNorm):
    """Layer norm with weight and bias (Ba et al. 2016, https://arxiv.org/abs/1607.06450)."""

    rms = False


class AddOnly(nn.Module):
    """Adds as the norms do, and does not normalise: stands in for one that was pruned."""

    def forward(self, x: Tensor, residual: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The sum, twice."""
        total = x if residual is None else x + residual
        return total, total


class AddThen(nn.Module):
    """Adds as the norms do, then applies any norm to the sum.

    Args:
        norm: maps ``(B, L, D)`` to itself: :class:`BatchNorm`, say.
        residual_in_fp32: keep the residual stream in float32 while the model runs in half
            precision.
    """

    def __init__(self, norm: nn.Module, *, residual_in_fp32: bool = False) -> None:
        super().__init__()
        self.norm, self.residual_in_fp32 = norm, residual_in_fp32

    def forward(self, x: Tensor, residual: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The normalised sum in the dtype of ``x`` and the sum itself, ``(B, L, D)``."""
        total = x if residual is None else x + residual
        if self.residual_in_fp32:
            total = at_least_float32(total)
        return self.norm(total.to(x.dtype)), total


class PostNorm(nn.Module):
    """Adds and normalises as ``norm`` does, and hands the normalised sum on as the stream.

    Blocks in front of which it stands read and add to what is normalised, ``x = norm(x + f(x))``:
    the first Transformers' order of norm and residual, and S4's on some tasks.

    Args:
        norm: one of this module's, which add first.
    """

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor, residual: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The normalised sum, twice."""
        out, _ = self.norm(x, residual)
        return out, out


class BatchNorm(nn.BatchNorm1d):
    """Batch norm of ``(B, L, D)`` over batch and positions (Ioffe & Szegedy 2015, 1502.03167)."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise each channel of ``input (B, L, D)``."""
        return super().forward(input.transpose(1, 2)).transpose(1, 2)


class ScaleNorm(nn.Module):
    """Root-mean-square norm with one weight for all channels (Nguyen & Salazar 2019, 1910.05895).

    Args:
        eps: added to the mean square.
        affine: have the weight at all.
    """

    def __init__(self, *, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(1)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x (..., D)``."""
        y = F.rms_norm(x, x.shape[-1:], eps=self.eps)
        return y if self.weight is None else y * self.weight
