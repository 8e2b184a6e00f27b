"""The fused norms as PyTorch ops, ``tristate::add_norm``, ``tristate::gated_rms_norm``, backwards.

Each device's kernels are registered here and imported when first run.
"""

from typing import Any

import torch
from torch import Tensor

from tristate.kernels import double_backward
from tristate.kernels.direct import shortened
from tristate.kernels.norm import reference
from tristate.kernels.triton.twin import twin


@torch.library.custom_op("tristate::add_norm", mutates_args=(), device_types="cpu")
def add_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    rms: bool,
    eps: float,
    residual_dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """``(out, total)``; ``total`` is empty where it would be ``x`` itself."""
    from tristate.kernels.norm import cpu

    return cpu.add_norm(x, weight, bias, residual, rms, eps, residual_dtype)


def _fake_add_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    rms: bool,
    eps: float,
    residual_dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    out = x.new_empty(x.shape)
    if residual is None and x.dtype == residual_dtype:
        return out, x.new_empty(0)
    return out, x.new_empty(x.shape, dtype=residual_dtype)


@torch.library.custom_op("tristate::add_norm_backward", mutates_args=(), device_types="cpu")
def add_norm_backward(
    grad_out: Tensor,
    grad_total: Tensor,
    total: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    rms: bool,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the sum, of ``weight``, of ``bias``; ``grad_total`` may be empty, for none."""
    from tristate.kernels.norm import cpu

    return cpu.add_norm_backward(grad_out, grad_total, total, weight, bias, rms, eps)


def _fake_add_norm_backward(
    grad_out: Tensor,
    grad_total: Tensor,
    total: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    rms: bool,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    bias_dtype = weight.dtype if bias is None else bias.dtype
    return (
        total.new_empty(total.shape),
        weight.new_empty(weight.shape),
        weight.new_empty(weight.shape, dtype=bias_dtype),
    )


def _keep_add_norm(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, weight, bias, residual, ctx.rms, ctx.eps, _ = inputs
    ctx.has_total = output[1].shape == x.shape
    ctx.dtypes = x.dtype, None if residual is None else residual.dtype
    ctx.save_for_backward(output[1] if ctx.has_total else x, weight, bias)
    ctx.backward_op = run_add_norm_backward


def _add_norm_gradients(ctx: Any, grad_out: Tensor, grad_total: Tensor) -> tuple[Any, ...]:
    total, weight, bias = ctx.saved_tensors
    if not ctx.has_total:
        grad_total = grad_total.new_empty(0)
    dtotal, dweight, dbias = ctx.backward_op(
        grad_out, grad_total, total, weight, bias, ctx.rms, ctx.eps
    )
    dx, dresidual = (None if dtype is None else dtotal.to(dtype) for dtype in ctx.dtypes)
    return dx, dweight, None if bias is None else dbias, dresidual, None, None, None


def _keep_add_norm_backward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, ctx.rms, ctx.eps = inputs
    ctx.save_for_backward(*tensors)


def _add_norm_backward_gradients(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:
    grad_out, grad_total, total, weight, bias = ctx.saved_tensors

    def meaning(total: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        return reference.add_norm(total, weight, bias, None, ctx.rms, ctx.eps, total.dtype)

    weights = grad_out, grad_total if grad_total.numel() else None
    grads, inputs = double_backward.gradients(meaning, (total, weight, bias), weights, cotangents)
    return *grads, *inputs, None, None


@torch.library.custom_op("tristate::gated_rms_norm", mutates_args=(), device_types="cpu")
def gated_rms_norm(
    x: Tensor,
    weight: Tensor,
    z: Tensor | None,
    eps: float,
    group_size: int,
    norm_before_gate: bool,
) -> Tensor:
    """See the public function."""
    from tristate.kernels.norm import cpu

    return cpu.gated_rms_norm(x, weight, z, eps, group_size, norm_before_gate)


def _fake_gated_rms_norm(
    x: Tensor,
    weight: Tensor,
    z: Tensor | None,
    eps: float,
    group_size: int,
    norm_before_gate: bool,
) -> Tensor:
    return x.new_empty(x.shape)


@torch.library.custom_op("tristate::gated_rms_norm_backward", mutates_args=(), device_types="cpu")
def gated_rms_norm_backward(
    grad_out: Tensor,
    x: Tensor,
    weight: Tensor,
    z: Tensor | None,
    eps: float,
    group_size: int,
    norm_before_gate: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of ``x``, ``weight`` and ``z``; the last is empty without one."""
    from tristate.kernels.norm import cpu

    return cpu.gated_rms_norm_backward(grad_out, x, weight, z, eps, group_size, norm_before_gate)


def _fake_gated_rms_norm_backward(
    grad_out: Tensor,
    x: Tensor,
    weight: Tensor,
    z: Tensor | None,
    eps: float,
    group_size: int,
    norm_before_gate: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    dz = x.new_empty(0) if z is None else z.new_empty(z.shape)
    return x.new_empty(x.shape), weight.new_empty(weight.shape), dz


def _keep_gated(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, ctx.eps, ctx.group_size, ctx.norm_before_gate = inputs
    ctx.save_for_backward(*tensors)
    ctx.backward_op = run_gated_rms_norm_backward


def _gated_gradients(ctx: Any, grad_out: Tensor) -> tuple[Any, ...]:
    x, weight, z = ctx.saved_tensors
    dx, dweight, dz = ctx.backward_op(
        grad_out, x, weight, z, ctx.eps, ctx.group_size, ctx.norm_before_gate
    )
    return dx, dweight, None if z is None else dz, None, None, None


def _gated_backward_gradients(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:
    grad_out, *inputs = ctx.saved_tensors

    def meaning(x: Tensor, weight: Tensor, z: Tensor | None) -> tuple[Tensor]:
        options = ctx.eps, ctx.group_size, ctx.norm_before_gate
        return (reference.gated_rms_norm(x, weight, z, *options),)

    grads, inputs = double_backward.gradients(meaning, inputs, (grad_out,), cotangents)
    return *grads, *inputs, None, None, None


def _twin(op: Any, name: str) -> Any:
    return twin(op, f"tristate.kernels.norm.triton:{name}")


triton_add_norm = _twin(add_norm, "add_norm")
triton_add_norm_backward = _twin(add_norm_backward, "add_norm_backward")
triton_gated_rms_norm = _twin(gated_rms_norm, "gated_rms_norm")
triton_gated_rms_norm_backward = _twin(gated_rms_norm_backward, "gated_rms_norm_backward")


def _keep_triton_add_norm(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _keep_add_norm(ctx, inputs, output)
    ctx.backward_op = triton_add_norm_backward


def _keep_triton_gated(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    _keep_gated(ctx, inputs, output)
    ctx.backward_op = triton_gated_rms_norm_backward


for _op, _keep in ((add_norm, _keep_add_norm), (triton_add_norm, _keep_triton_add_norm)):
    _op.register_fake(_fake_add_norm)
    _op.register_autograd(_add_norm_gradients, setup_context=_keep)
for _op, _keep in ((gated_rms_norm, _keep_gated), (triton_gated_rms_norm, _keep_triton_gated)):
    _op.register_fake(_fake_gated_rms_norm)
    _op.register_autograd(_gated_gradients, setup_context=_keep)
for _op in (add_norm_backward, triton_add_norm_backward):
    _op.register_fake(_fake_add_norm_backward)
    _op.register_autograd(_add_norm_backward_gradients, setup_context=_keep_add_norm_backward)
for _op in (gated_rms_norm_backward, triton_gated_rms_norm_backward):
    _op.register_fake(_fake_gated_rms_norm_backward)
    _op.register_autograd(_gated_backward_gradients, setup_context=_keep_gated)

run_add_norm, run_add_norm_backward = shortened(add_norm), shortened(add_norm_backward)
run_gated_rms_norm = shortened(gated_rms_norm)
run_gated_rms_norm_backward = shortened(gated_rms_norm_backward)
