"""The gated norms of mamba-ssm: https://github.com/state-spaces/mamba, ``layernorm_gated.py``."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tristate.kernels.norm import gated_rms_norm


def rmsnorm_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    z: Tensor | None = None,
    eps: float = 1e-6,
    group_size: int | None = None,
    norm_before_gate: bool = True,
) -> Tensor:
    """``norm(x) weight silu(z)``, or ``norm(x silu(z)) weight`` without ``norm_before_gate``.

    The arguments are those of :func:`tristate.kernels.norm.gated_rms_norm`; ``bias (D,)`` is added
    to what is normalised and weighed.
    """
    if bias is None:
        return gated_rms_norm(
            x, weight, z, eps=eps, group_size=group_size, norm_before_gate=norm_before_gate
        )
    return _gated(_rms, x, weight, bias, z, eps, group_size, norm_before_gate)


def layernorm_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    z: Tensor | None = None,
    eps: float = 1e-6,
    group_size: int | None = None,
    norm_before_gate: bool = True,
    is_rms_norm: bool = False,
) -> Tensor:
    """:func:`rmsnorm_fn` with the mean taken away, unless ``is_rms_norm``."""
    if is_rms_norm:
        return rmsnorm_fn(x, weight, bias, z, eps, group_size, norm_before_gate)
    return _gated(F.layer_norm, x, weight, bias, z, eps, group_size, norm_before_gate)


def _gated(
    norm: Any,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    z: Tensor | None,
    eps: float,
    group_size: int | None,
    norm_before_gate: bool,
) -> Tensor:
    """What no kernel does, in plain PyTorch and at least float32."""
    exact = torch.promote_types(x.dtype, torch.float32)
    value = x.to(exact)
    gate = None if z is None else F.silu(z.to(exact))
    if gate is not None and not norm_before_gate:
        value = value * gate
    size = x.shape[-1] if group_size is None else group_size
    value = norm(value.unflatten(-1, (-1, size)), (size,), eps=eps).flatten(-2)
    value = value * weight.to(exact)
    if bias is not None:
        value = value + bias.to(exact)
    if gate is not None and norm_before_gate:
        value = value * gate
    return value.to(x.dtype)


def _rms(x: Tensor, shape: tuple[int], eps: float) -> Tensor:
    return F.rms_norm(x, shape, eps=eps)


class LayerNorm(nn.Module):
    """:func:`layernorm_fn` with weight and bias.

    Args:
        hidden_size: width.
        eps: added to the variance.
        group_size: channels that are normalised together; all when absent.
        norm_before_gate: gate what is normalised; else normalise what is gated.
        device: of the parameters.
        dtype: of the parameters.
    """

    rms: ClassVar[bool] = False

    def __init__(
        self,
        hidden_size: int,
        eps: float = 1e-5,
        group_size: int | None = None,
        norm_before_gate: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.eps = eps
        self.group_size = group_size
        self.norm_before_gate = norm_before_gate
        self.weight = nn.Parameter(torch.ones(hidden_size, device=device, dtype=dtype))
        self.bias = None if self.rms else nn.Parameter(torch.zeros_like(self.weight))

    def reset_parameters(self) -> None:
        """Ones, and zeros for the bias."""
        nn.init.ones_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        """Normalise ``x (..., D)``, with the gate ``z`` like it."""
        return layernorm_fn(
            x,
            self.weight,
            self.bias,
            z,
            self.eps,
            self.group_size,
            self.norm_before_gate,
            is_rms_norm=self.rms,
        )


class RMSNorm(LayerNorm):
    """:func:`rmsnorm_fn` with a weight; the arguments are those of :class:`LayerNorm`."""

    rms = True
