"""Products by groups of rows as PyTorch ops, ``tristate::grouped_linear`` and ``grouped_outer``.

Each has the other in its gradients, so both may be differentiated any number of times.
"""

from typing import Any

import torch
from torch import Tensor

from tristate.kernels.grouped import reference


@torch.library.custom_op("tristate::grouped_linear", mutates_args=())
def linear(x: Tensor, weight: Tensor, sizes: Tensor) -> Tensor:
    """``(M, N)``: see the public function."""
    return reference.linear(x, weight, sizes)


@torch.library.custom_op("tristate::grouped_outer", mutates_args=())
def outer(a: Tensor, b: Tensor, sizes: Tensor) -> Tensor:
    """``(E, N, K)``: of ``a (M, N)`` and ``b (M, K)`` the sums of outer products by group."""
    return reference.outer(a, b, sizes)


@linear.register_fake
def _fake_linear(x: Tensor, weight: Tensor, sizes: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[1])


@outer.register_fake
def _fake_outer(a: Tensor, b: Tensor, sizes: Tensor) -> Tensor:
    return a.new_empty(sizes.shape[0], a.shape[1], b.shape[1])


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _linear_gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, sizes = ctx.saved_tensors
    wants_x, wants_weight, _ = ctx.needs_input_grad
    dx = linear(grad, weight.transpose(1, 2), sizes) if wants_x else None
    return dx, outer(grad, x, sizes) if wants_weight else None, None


def _outer_gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    a, b, sizes = ctx.saved_tensors
    wants_a, wants_b, _ = ctx.needs_input_grad
    da = linear(b, grad, sizes) if wants_a else None
    return da, linear(a, grad.transpose(1, 2), sizes) if wants_b else None, None


linear.register_autograd(_linear_gradients, setup_context=_keep)
outer.register_autograd(_outer_gradients, setup_context=_keep)
