"""Normalisations fused with what stands beside them: the residual sum, or the gate."""

import torch
from torch import Tensor

from tristate.kernels.backend import choose
from tristate.kernels.checks import expect_floating, expect_one_device, expect_shape
from tristate.kernels.norm import ops, reference

__all__ = ["add_norm", "gated_rms_norm"]


def add_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    *,
    rms: bool = True,
    eps: float = 1e-5,
    residual_in_fp32: bool = False,
    prenorm: bool = True,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """``residual_out = x + residual`` and ``out = norm(residual_out) * weight + bias``.

    The cpu backend goes over each row once either way, and keeps ``residual_out`` alone for the
    gradient. Beyond outputs and gradients it takes ``2 D`` numbers a thread. Inputs of 16 bits are
    widened as a whole.

    Args:
        x: input, ``(..., D)``.
        weight: ``(D,)``.
        bias: ``(D,)``.
        residual: what is added before the norm, of the shape of ``x``; nothing when absent.
        rms: divide by the root of the mean square; else LayerNorm, which also takes the mean away.
        eps: added to the mean square (to the variance).
        residual_in_fp32: ``residual_out`` is at least float32; else it is of the wider dtype of
            ``x`` and ``residual``.
        prenorm: also return ``residual_out``, which the next block adds to its output.
        backend: ``"auto"``, or one of :func:`tristate.kernels.backend.available_backends`.

    Returns:
        ``out`` in the dtype of ``x``; with ``prenorm`` also ``residual_out`` (``x`` itself where
        nothing was added and the dtype is the same).

    Raises:
        ValueError: the shapes disagree, or the backend can't run this.

    Source: ``layer_norm_fn`` of https://github.com/state-spaces/mamba; RMS norm: Zhang & Sennrich
    2019, https://arxiv.org/abs/1910.07467.
    """
    _check_channels(x, weight, bias, residual=residual)
    dtype = x.dtype if residual is None else torch.promote_types(x.dtype, residual.dtype)
    if residual_in_fp32:
        dtype = torch.promote_types(dtype, torch.float32)
    chosen = choose("add_norm", x, backend, _backends(x.shape[-1]))
    if chosen != "reference":
        op = ops.triton_add_norm if chosen == "triton" else ops.run_add_norm
        out, total = op(x, weight, bias, residual, rms, eps, dtype)
        # An op can't hand its own input back.
        total = x if residual is None and x.dtype == dtype else total
    else:
        out, total = reference.add_norm(x, weight, bias, residual, rms, eps, dtype)
    return (out, total) if prenorm else out


def gated_rms_norm(
    x: Tensor,
    weight: Tensor,
    z: Tensor | None = None,
    *,
    eps: float = 1e-5,
    group_size: int | None = None,
    norm_before_gate: bool = True,
    backend: str = "auto",
) -> Tensor:
    """RMS norm with a SiLU gate: ``norm(x) * weight * silu(z)``, or ``norm(x * silu(z)) * weight``.

    The cpu backend keeps nothing but its inputs for the gradient; its memory is as in
    :func:`add_norm`.

    Args:
        x: input, ``(..., D)``.
        weight: ``(D,)``.
        z: gate, of the shape of ``x``; no gate when absent.
        eps: added to the mean square.
        group_size: channels that share one mean square, contiguous; all ``D`` when absent.
        norm_before_gate: gate the normalised value; else normalise the gated value.
        backend: ``"auto"``, or one of :func:`tristate.kernels.backend.available_backends`.

    Returns:
        The output, of the shape and dtype of ``x``.

    Raises:
        ValueError: the shapes disagree, ``group_size`` doesn't divide ``D``, or the backend can't
            run this.

    Source: ``rmsnorm_fn`` in ``layernorm_gated.py`` of https://github.com/state-spaces/mamba.
    """
    _check_channels(x, weight, z=z)
    group_size = x.shape[-1] if group_size is None else group_size
    if group_size < 1 or x.shape[-1] % group_size:
        raise ValueError(f"group_size must divide D = {x.shape[-1]}, got {group_size}")
    chosen = choose("gated_rms_norm", x, backend, _backends(group_size))
    if chosen != "reference":
        op = ops.triton_gated_rms_norm if chosen == "triton" else ops.run_gated_rms_norm
        return op(x, weight, z, eps, group_size, norm_before_gate)
    return reference.gated_rms_norm(x, weight, z, eps, group_size, norm_before_gate)


def _backends(n_channels: int) -> tuple[str, ...]:
    """Those that normalise so many at once; Triton has a row in its registers."""
    return ("reference", "cpu", "triton") if n_channels <= 4096 else ("reference", "cpu")


def _check_channels(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, **shaped: Tensor | None
) -> None:
    if x.dim() < 1:
        raise ValueError(f"x must be (..., D), got {tuple(x.shape)}")
    tensors = {"x": x, "weight": weight, "bias": bias, **shaped}
    expect_floating(tensors)
    expect_one_device(tensors)
    expect_shape("weight", weight, (x.shape[-1],), "(D,)")
    expect_shape("bias", bias, (x.shape[-1],), "(D,)")
    for name, tensor in shaped.items():
        expect_shape(name, tensor, tuple(x.shape), "the shape of x")
