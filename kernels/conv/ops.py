"""The causal convolution as PyTorch ops, ``tristate::causal_conv1d`` and its backward.

Each device's kernels are registered here and imported when first run.
"""

from typing import Any

import torch
from torch import Tensor

from tristate.kernels import double_backward
from tristate.kernels.backend import takes_triton
from tristate.kernels.conv import reference
from tristate.kernels.direct import shortened
from tristate.kernels.layout import empty_like_rows
from tristate.kernels.triton.twin import twin


@torch.library.custom_op("tristate::causal_conv1d", mutates_args=(), device_types="cpu")
def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    seq_idx: Tensor | None,
    initial_states: Tensor | None,
    silu: bool,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    """Output in the layout of ``x``, and last state in float32; see the public function."""
    from tristate.kernels.conv import cpu

    return cpu.forward(x, weight, bias, seq_idx, initial_states, silu, reverse)


@torch.library.custom_op("tristate::causal_conv1d_backward", mutates_args=(), device_types="cpu")
def backward(
    grad_out: Tensor,
    grad_state: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    seq_idx: Tensor | None,
    initial_states: Tensor | None,
    silu: bool,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of ``x``, ``weight``, ``bias`` and the initial state; the last two always exist."""
    from tristate.kernels.conv import cpu

    return cpu.backward(
        grad_out, grad_state, x, weight, bias, seq_idx, initial_states, silu, reverse
    )


def _fake(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    seq_idx: Tensor | None,
    initial_states: Tensor | None,
    silu: bool,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    batch, dim, _ = x.shape
    return empty_like_rows(x), x.new_empty(batch, dim, weight.shape[1] - 1, dtype=torch.float32)


def _fake_backward(
    grad_out: Tensor,
    grad_state: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    seq_idx: Tensor | None,
    initial_states: Tensor | None,
    silu: bool,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dim, width = weight.shape
    states = x.new_empty(x.shape[0], dim, width - 1, dtype=torch.float32)
    if initial_states is not None:
        states = states.to(initial_states.dtype)
    bias_dtype = weight.dtype if bias is None else bias.dtype
    return (
        empty_like_rows(x),
        weight.new_empty(dim, width),
        weight.new_empty(dim, dtype=bias_dtype),
        states,
    )


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, weight, bias, seq_idx, initial_states, ctx.silu, ctx.reverse = inputs
    ctx.save_for_backward(x, weight, bias, seq_idx, initial_states)
    ctx.backward_op = run_backward


def _forward_gradients(ctx: Any, grad_out: Tensor, grad_state: Tensor) -> tuple[Any, ...]:
    x, weight, bias, seq_idx, initial_states = ctx.saved_tensors
    dx, dweight, dbias, dstates = ctx.backward_op(
        grad_out, grad_state, x, weight, bias, seq_idx, initial_states, ctx.silu, ctx.reverse
    )
    dbias = None if bias is None else dbias
    dstates = None if initial_states is None else dstates
    return dx, dweight, dbias, None, dstates, None, None


def _keep_for_second(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, ctx.silu, ctx.reverse = inputs
    ctx.save_for_backward(*tensors)


def _backward_gradients(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:
    grad_out, grad_state, x, weight, bias, seq_idx, initial_states = ctx.saved_tensors
    activation = "silu" if ctx.silu else None

    def meaning(x: Tensor, weight: Tensor, bias: Tensor | None, states: Tensor | None):
        return reference.causal_conv1d(
            x, weight, bias, seq_idx, states, activation, reverse=ctx.reverse
        )

    grads, (x, weight, bias, states) = double_backward.gradients(
        meaning, (x, weight, bias, initial_states), (grad_out, grad_state), cotangents
    )
    return *grads, x, weight, bias, None, states, None, None


triton_forward = twin(forward, "tristate.kernels.conv.triton:forward")
triton_backward = twin(backward, "tristate.kernels.conv.triton:backward")


def _keep_triton(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    _keep(ctx, inputs, output)
    ctx.backward_op = triton_backward


forward.register_autograd(_forward_gradients, setup_context=_keep)
triton_forward.register_autograd(_forward_gradients, setup_context=_keep_triton)
for _forward in (forward, triton_forward):
    _forward.register_fake(_fake)
for _backward in (backward, triton_backward):
    _backward.register_fake(_fake_backward)
    _backward.register_autograd(_backward_gradients, setup_context=_keep_for_second)

run, run_backward = shortened(forward), shortened(backward)


@torch.library.custom_op("tristate::causal_conv1d_update_triton", mutates_args=("conv_state",))
def triton_update(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    silu: bool,
    cache_seqlens: Tensor | None,
) -> Tensor:
    """The next steps; see the reference of that name. Has no gradient."""
    from tristate.kernels.conv import triton

    return triton.causal_conv1d_update(x, conv_state, weight, bias, silu, cache_seqlens)


@triton_update.register_fake
def _(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    silu: bool,
    cache_seqlens: Tensor | None,
) -> Tensor:
    return torch.empty_like(x)


def update(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    activation: str | None,
    cache_seqlens: Tensor | None,
) -> Tensor:
    """Steps by what is fastest for the state's device; the reference where gradients flow."""
    tensors = [y for y in (x, conv_state, weight, bias) if y is not None]
    needs_grad = torch.is_grad_enabled() and any(y.requires_grad for y in tensors)
    exact = any(y.dtype == torch.float64 for y in tensors)
    if takes_triton(conv_state) and not needs_grad and not exact:
        silu = activation is not None
        return triton_update(x, conv_state, weight, bias, silu, cache_seqlens)
    return reference.causal_conv1d_update(x, conv_state, weight, bias, activation, cache_seqlens)
