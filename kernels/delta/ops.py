"""The gated delta rule as PyTorch ops, ``tristate::gated_delta_rule`` and its backward.

Each device's kernels are registered here and imported when first run.
"""

from typing import Any

import torch
from torch import Tensor

from tristate.kernels import double_backward
from tristate.kernels.delta import reference


@torch.library.custom_op("tristate::gated_delta_rule", mutates_args=(), device_types="cpu")
def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    g: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    scale: float,
    reverse: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Output, last state in float32, and with ``keep`` what the backward needs."""
    from tristate.kernels.delta import cpu

    return cpu.forward(q, k, v, beta, g, initial_state, seq_idx, scale, reverse, keep)


@torch.library.custom_op("tristate::gated_delta_rule_backward", mutates_args=(), device_types="cpu")
def backward(
    grad_out: Tensor,
    grad_last: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    g: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    errors: Tensor,
    scale: float,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the first six inputs; empty where an optional one is absent."""
    from tristate.kernels.delta import cpu

    inputs = q, k, v, beta, g, initial_state, seq_idx
    return cpu.backward(grad_out, grad_last, *inputs, errors, scale, reverse)


@forward.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    g: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    scale: float,
    reverse: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    batch, length, heads, d_key = q.shape
    d_value = v.shape[3]
    return (
        v.new_empty(batch, length, heads, d_value),
        v.new_empty(batch, heads, d_key, d_value, dtype=torch.float32),
        v.new_empty(v.shape if keep else (0,), dtype=torch.float32),
    )


@backward.register_fake
def _(
    grad_out: Tensor,
    grad_last: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    g: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    errors: Tensor,
    scale: float,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    return (
        q.new_empty(q.shape),
        k.new_empty(k.shape),
        v.new_empty(v.shape),
        beta.new_empty(beta.shape),
        q.new_empty(0) if g is None else g.new_empty(g.shape),
        q.new_empty(0) if initial_state is None else initial_state.new_empty(initial_state.shape),
    )


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.scale, ctx.reverse, _ = inputs
    ctx.save_for_backward(*tensors, output[2])
    # Errors have no gradient, and the last state often none: no zeros are made for them.
    ctx.set_materialize_grads(False)


def _forward_gradients(
    ctx: Any, grad_out: Tensor | None, grad_last: Tensor | None, _: Tensor | None
) -> tuple[Any, ...]:
    *tensors, errors = ctx.saved_tensors
    if errors.numel() == 0:
        errors = torch.ops.tristate.gated_delta_rule(*tensors, ctx.scale, ctx.reverse, True)[2]
    if grad_out is None:
        batch, length, heads, _ = tensors[0].shape
        grad_out = tensors[2].new_zeros(batch, length, heads, tensors[2].shape[3])
    grads = torch.ops.tristate.gated_delta_rule_backward(
        grad_out, grad_last, *tensors, errors, ctx.scale, ctx.reverse
    )
    present = [g if x is not None else None for g, x in zip(grads, tensors[:6], strict=True)]
    return *present, None, None, None, None


def _keep_for_second(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, _, ctx.scale, ctx.reverse = inputs
    ctx.save_for_backward(*tensors)
    ctx.set_materialize_grads(False)


def _backward_gradients(ctx: Any, *cotangents: Tensor | None) -> tuple[Any, ...]:
    grad_out, grad_last, *inputs, seq_idx = ctx.saved_tensors

    def meaning(
        q: Tensor, k: Tensor, v: Tensor, beta: Tensor, g: Tensor | None, state: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        return reference.gated_delta_rule(q, k, v, beta, g, state, seq_idx, ctx.scale, ctx.reverse)

    grads, of_inputs = double_backward.gradients(meaning, inputs, (grad_out, grad_last), cotangents)
    return *grads, *of_inputs, None, None, None, None


forward.register_autograd(_forward_gradients, setup_context=_keep)
backward.register_autograd(_backward_gradients, setup_context=_keep_for_second)
