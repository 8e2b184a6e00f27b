"""The norms of mamba-ssm 2, which add the residual first: https://github.com/state-spaces/mamba."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tristate.kernels.norm import add_norm


def layer_norm_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None = None,
    x1: Tensor | None = None,
    weight1: Tensor | None = None,
    bias1: Tensor | None = None,
    eps: float = 1e-6,
    dropout_p: float = 0.0,
    rowscale: Tensor | None = None,
    prenorm: bool = False,
    residual_in_fp32: bool = False,
    is_rms_norm: bool = False,
    return_dropout_mask: bool = False,
) -> Any:
    """``norm(dropout(x rowscale) + dropout(x1) + residual) weight + bias``.

    Args:
        x: input, ``(..., D)``.
        weight: ``(D,)``.
        bias: ``(D,)``.
        residual: added before the norm, like ``x``.
        x1: a second input, like ``x``.
        weight1: of a second output from the same normalised sum.
        bias1: likewise.
        eps: added to the variance.
        dropout_p: part of each input that is dropped, in training and not.
        rowscale: factor on each row of ``x``, ``(...)``; not with ``x1``.
        prenorm: also return the sum that was normalised.
        residual_in_fp32: that sum is float32 where there was no residual to take a dtype from.
        is_rms_norm: divide by the root of the mean square, and take no mean away.
        return_dropout_mask: also return which elements of ``x`` and ``x1`` stayed.

    Returns:
        The output; then, where asked for, the second one, the sum, and the two masks (None where
        nothing was dropped). A tuple unless it is one.

    Raises:
        ValueError: the shapes disagree, or ``rowscale`` comes with ``x1``.
    """
    if rowscale is not None:
        if x1 is not None:
            raise ValueError("rowscale can't be given together with x1")
        x = x * rowscale[..., None].to(x.dtype)
    x, mask = _drop(x, dropout_p)
    # The dtype of the sum is the residual's where there is one.
    residual_in_fp32 = residual_in_fp32 and residual is None
    mask1 = None
    if x1 is not None:
        x1, mask1 = _drop(x1, dropout_p)
        residual = x1 if residual is None else residual + x1
    norm: dict[str, Any] = {"rms": is_rms_norm, "eps": eps}
    out, total = add_norm(x, weight, bias, residual, residual_in_fp32=residual_in_fp32, **norm)
    results: list[Any] = [out]
    if weight1 is not None:
        again, _ = add_norm(total, weight1, bias1, **norm)
        results.append(again.to(x.dtype))
    if prenorm:
        results.append(total)
    if return_dropout_mask:
        results += [mask, mask1]
    return results[0] if len(results) == 1 else tuple(results)


def rms_norm_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None = None,
    x1: Tensor | None = None,
    weight1: Tensor | None = None,
    bias1: Tensor | None = None,
    eps: float = 1e-6,
    dropout_p: float = 0.0,
    rowscale: Tensor | None = None,
    prenorm: bool = False,
    residual_in_fp32: bool = False,
    return_dropout_mask: bool = False,
) -> Any:
    """:func:`layer_norm_fn` with ``is_rms_norm=True``."""
    return layer_norm_fn(
        x,
        weight,
        bias,
        residual,
        x1,
        weight1,
        bias1,
        eps,
        dropout_p,
        rowscale,
        prenorm,
        residual_in_fp32,
        True,
        return_dropout_mask,
    )


def layer_norm_linear_fn(
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor | None,
    linear_weight: Tensor,
    linear_bias: Tensor | None,
    residual: Tensor | None = None,
    eps: float = 1e-6,
    prenorm: bool = False,
    residual_in_fp32: bool = False,
    is_rms_norm: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """A linear map of :func:`layer_norm_fn`; with ``prenorm`` also the sum that was normalised."""
    y, total = layer_norm_fn(
        x,
        norm_weight,
        norm_bias,
        residual,
        eps=eps,
        prenorm=True,
        residual_in_fp32=residual_in_fp32,
        is_rms_norm=is_rms_norm,
    )
    out = F.linear(y.to(linear_weight.dtype), linear_weight, linear_bias)
    return (out, total) if prenorm else out


class RMSNorm(nn.Module):
    """Root-mean-square norm that can add the residual first.

    Args:
        hidden_size: width.
        eps: added to the mean square.
        dropout_p: part of the input that is dropped in training.
        device: of the weight.
        dtype: of the weight.
    """

    def __init__(
        self,
        hidden_size: int,
        eps: float = 1e-5,
        dropout_p: float = 0.0,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.eps = eps
        self.drop = nn.Dropout(dropout_p) if dropout_p > 0 else None
        self.weight = nn.Parameter(torch.ones(hidden_size, device=device, dtype=dtype))
        self.bias = None

    def reset_parameters(self) -> None:
        """Ones."""
        nn.init.ones_(self.weight)

    def forward(
        self,
        x: Tensor,
        residual: Tensor | None = None,
        prenorm: bool = False,
        residual_in_fp32: bool = False,
    ) -> Any:
        """Normalise ``x (..., D)``, or the sum with ``residual``: as :func:`rms_norm_fn`."""
        return rms_norm_fn(
            x,
            self.weight,
            None,
            residual=residual,
            eps=self.eps,
            dropout_p=self.drop.p if self.drop is not None and self.training else 0.0,
            prenorm=prenorm,
            residual_in_fp32=residual_in_fp32,
        )


def _drop(x: Tensor, p: float) -> tuple[Tensor, Tensor | None]:
    """``x`` with the part ``p`` dropped, and what stayed."""
    if p == 0:
        return x, None
    mask = torch.rand(x.shape, device=x.device) >= p
    return x * mask / (1 - p), mask
