"""What mamba-ssm 1 had in other places, or with its arguments in another order.

Source: https://github.com/state-spaces/mamba at v1.1.1, ``modules/mamba_simple.py`` and
``ops/triton/layernorm.py``.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from tristate.core.compat import block, norm
from tristate.core.compat.norm import RMSNorm

__all__ = ["Block", "RMSNorm", "layer_norm_fn", "rms_norm_fn"]


def layer_norm_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None = None,
    eps: float = 1e-6,
    prenorm: bool = False,
    residual_in_fp32: bool = False,
    is_rms_norm: bool = False,
) -> Any:
    """:func:`tristate.core.compat.norm.layer_norm_fn`."""
    return norm.layer_norm_fn(
        x,
        weight,
        bias,
        residual,
        eps=eps,
        prenorm=prenorm,
        residual_in_fp32=residual_in_fp32,
        is_rms_norm=is_rms_norm,
    )


def rms_norm_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None = None,
    prenorm: bool = False,
    residual_in_fp32: bool = False,
    eps: float = 1e-6,
) -> Any:
    """:func:`tristate.core.compat.norm.rms_norm_fn`."""
    return layer_norm_fn(x, weight, bias, residual, eps, prenorm, residual_in_fp32, True)


class Block(block.Block):
    """:class:`tristate.core.compat.block.Block` without an MLP."""

    def __init__(
        self,
        dim: int,
        mixer_cls: Callable[[int], nn.Module],
        norm_cls: Callable[[int], nn.Module] = nn.LayerNorm,
        fused_add_norm: bool = False,
        residual_in_fp32: bool = False,
    ) -> None:
        super().__init__(dim, mixer_cls, nn.Identity, norm_cls, fused_add_norm, residual_in_fp32)
