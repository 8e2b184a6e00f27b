"""The linear scan as PyTorch ops, ``tristate::linear_scan`` and its backward.

They take float32 or complex64, all tensors alike. Each device's kernels are registered here and
imported when first run.
"""

from typing import Any

import torch
from torch import Tensor

from tristate.kernels import double_backward
from tristate.kernels.direct import shortened
from tristate.kernels.layout import empty_like_rows
from tristate.kernels.linear import reference
from tristate.kernels.triton.twin import twin


@torch.library.custom_op("tristate::linear_scan", mutates_args=(), device_types="cpu")
def forward(
    a: Tensor,
    b: Tensor,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    """All states in the layout of ``b``, and the last one; see the public function."""
    from tristate.kernels.linear import cpu

    return cpu.forward(a, b, initial_state, seq_idx, reverse)


@torch.library.custom_op("tristate::linear_scan_backward", mutates_args=(), device_types="cpu")
def backward(
    grad_h: Tensor,
    grad_last: Tensor,
    a: Tensor,
    h: Tensor,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of ``a``, ``b`` and the initial state, be there one or not."""
    from tristate.kernels.linear import cpu

    return cpu.backward(grad_h, grad_last, a, h, initial_state, seq_idx, reverse)


def empty_like(x: Tensor) -> Tensor:
    """A dense tensor like ``x (B, L, D)`` or ``(D,)``, its axes in the same order in memory."""
    return x.new_empty(x.shape) if x.dim() == 1 else empty_like_rows(x.mT).mT


def _fake(
    a: Tensor,
    b: Tensor,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    return empty_like(b), b.new_empty(b.shape[0], b.shape[2])


def _fake_backward(
    grad_h: Tensor,
    grad_last: Tensor,
    a: Tensor,
    h: Tensor,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return empty_like(a), empty_like(h), h.new_empty(h.shape[0], h.shape[2])


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    a, _, initial_state, seq_idx, ctx.reverse = inputs
    ctx.save_for_backward(a, output[0], initial_state, seq_idx)
    ctx.backward_op = run_backward


def _forward_gradients(ctx: Any, grad_h: Tensor, grad_last: Tensor) -> tuple[Any, ...]:
    a, h, initial_state, seq_idx = ctx.saved_tensors
    da, db, dinitial = ctx.backward_op(grad_h, grad_last, a, h, initial_state, seq_idx, ctx.reverse)
    return da, db, None if initial_state is None else dinitial, None, None


def _keep_for_second(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, ctx.reverse = inputs
    ctx.save_for_backward(*tensors)


def _backward_gradients(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:
    *inputs, seq_idx = ctx.saved_tensors

    def meaning(
        grad_h: Tensor, grad_last: Tensor, a: Tensor, h: Tensor, initial_state: Tensor | None
    ) -> tuple[Tensor, ...]:
        return reference.gradients(
            grad_h, grad_last, a, h, initial_state, seq_idx, reverse=ctx.reverse
        )

    return *double_backward.vector_jacobian(meaning, inputs, cotangents), None, None


triton_forward = twin(forward, "tristate.kernels.linear.triton:forward")
triton_backward = twin(backward, "tristate.kernels.linear.triton:backward")


def _keep_triton(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
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
