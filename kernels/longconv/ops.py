"""The long convolution as PyTorch ops, ``tristate::long_conv`` and its backward.

It is linear in either argument, so that gradients of gradients are convolutions again. Each
device's kernels are registered here and imported when first run.
"""

from typing import Any

import torch
from torch import Tensor

from tristate.kernels.direct import shortened
from tristate.kernels.longconv.layout import empty_output


@torch.library.custom_op("tristate::long_conv", mutates_args=(), device_types="cpu")
def forward(x: Tensor, kernel: Tensor, origin: list[int]) -> Tensor:
    """``(B, C, D, *grid)`` for ``x (B, D, *grid)`` and ``kernel (C, D, *taps)``."""
    from tristate.kernels.longconv import cpu

    return cpu.forward(x, kernel, origin)


@torch.library.custom_op("tristate::long_conv_backward", mutates_args=(), device_types="cpu")
def backward(grad: Tensor, x: Tensor, kernel: Tensor, origin: list[int]) -> tuple[Tensor, Tensor]:
    """Gradients of ``x``, in its layout, and of ``kernel``."""
    from tristate.kernels.longconv import cpu

    return cpu.backward(grad, x, kernel, origin)


@forward.register_fake
def _(x: Tensor, kernel: Tensor, origin: list[int]) -> Tensor:
    return empty_output(x, kernel.shape[0])


@backward.register_fake
def _(grad: Tensor, x: Tensor, kernel: Tensor, origin: list[int]) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), kernel.new_empty(kernel.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, ctx.origin = inputs
    ctx.save_for_backward(*tensors)


def _forward_gradients(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    x, kernel = ctx.saved_tensors
    return *run_backward(grad, x, kernel, ctx.origin), None


def _backward_gradients(ctx: Any, of_x: Tensor, of_kernel: Tensor) -> tuple[Any, ...]:
    grad, x, kernel = ctx.saved_tensors
    of_grad = forward(of_x, kernel, ctx.origin) + forward(x, of_kernel, ctx.origin)
    again_x, _ = backward(grad, x, of_kernel, ctx.origin)
    _, again_kernel = backward(grad, of_x, kernel, ctx.origin)
    return of_grad, again_x, again_kernel, None


forward.register_autograd(_forward_gradients, setup_context=_keep)
backward.register_autograd(_backward_gradients, setup_context=_keep)

run, run_backward = shortened(forward), shortened(backward)
