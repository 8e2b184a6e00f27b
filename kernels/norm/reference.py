"""Fused normalisations in plain PyTorch: what every backend must compute.

Source: the meaning, including which dtype each result has, follows ``layer_norm.py`` and
``layernorm_gated.py`` of https://github.com/state-spaces/mamba (``mamba_ssm/ops/triton``).
"""

import torch
from torch import Tensor
from torch.nn.functional import silu


def add_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    rms: bool,
    eps: float,
    residual_dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """``norm(x + residual)`` in the dtype of ``x``, and ``x + residual`` in ``residual_dtype``.

    The arguments are those of :func:`tristate.kernels.norm.add_norm`. Computes in float64 for
    float64 inputs, else in float32; the sum is normalised before it is rounded to
    ``residual_dtype``.
    """
    exact = torch.promote_types(residual_dtype, torch.float32)
    total = x.to(exact)
    if residual is not None:
        total = total + residual.to(exact)
    centred = total if rms else total - total.mean(-1, keepdim=True)
    out = centred * (centred.square().mean(-1, keepdim=True) + eps).rsqrt() * weight.to(exact)
    if bias is not None:
        out = out + bias.to(exact)
    return out.to(x.dtype), total.to(residual_dtype)


def gated_rms_norm(
    x: Tensor,
    weight: Tensor,
    z: Tensor | None,
    eps: float,
    group_size: int,
    norm_before_gate: bool,
) -> Tensor:
    """RMS norm over groups of ``group_size`` channels with a SiLU gate, in the dtype of ``x``.

    The arguments are those of :func:`tristate.kernels.norm.gated_rms_norm`. Computes in float64 for
    float64 inputs, else in float32.
    """
    exact = torch.promote_types(x.dtype, torch.float32)
    values = x.to(exact)
    gate = None if z is None else silu(z.to(exact))
    if gate is not None and not norm_before_gate:
        values = values * gate
    groups = values.unflatten(-1, (-1, group_size))
    groups = groups * (groups.square().mean(-1, keepdim=True) + eps).rsqrt()
    out = groups.flatten(-2) * weight.to(exact)
    if gate is not None and norm_before_gate:
        out = out * gate
    return out.to(x.dtype)
