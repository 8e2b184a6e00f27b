"""The gated delta rule as PyTorch ops, ``tristate::gated_delta_rule`` and its backward.

Each device's kernels are registered here and imported when first run.
"""

from typing import Any

import torch
from torch import Tensor

from tristate.kernels import double_backward
from tristate.kernels.delta import reference
from tristate.kernels.direct import shortened
from tristate.kernels.triton.plan import power_of_two
from tristate.kernels.triton.twin import twin


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


def triton_part(k: Tensor) -> int:
    """Steps from one kept state to the next on a GPU: a state is ``K`` numbers a value channel."""
    return power_of_two(max(32, 2 * k.shape[3]))


def triton_kept_shape(k: Tensor, v: Tensor) -> tuple[int, ...]:
    """Of the states that Triton's kernels keep, ``(B, parts, H, K, V)``."""
    batch, steps, heads, d_key = k.shape
    part = triton_part(k)
    return batch, (steps + part - 1) // part, heads, d_key, v.shape[3]


def _fake(
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


def _fake_triton(*inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
    *others, keep = inputs
    k, v = others[1], others[2]
    out, last, _ = _fake(*others, False)  # pyright: ignore[reportCallIssue]
    kept = v.new_empty(triton_kept_shape(k, v) if keep else (0,), dtype=torch.float32)
    return out, last, kept


def _fake_backward(
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
    ctx.ops = run, run_backward
    # Errors have no gradient, and the last state often none: no zeros are made for them.
    ctx.set_materialize_grads(False)


def _forward_gradients(
    ctx: Any, grad_out: Tensor | None, grad_last: Tensor | None, _: Tensor | None
) -> tuple[Any, ...]:
    *tensors, errors = ctx.saved_tensors
    if errors.numel() == 0:
        errors = ctx.ops[0](*tensors, ctx.scale, ctx.reverse, True)[2]
    if grad_out is None:
        batch, length, heads, _ = tensors[0].shape
        grad_out = tensors[2].new_zeros(batch, length, heads, tensors[2].shape[3])
    grads = ctx.ops[1](grad_out, grad_last, *tensors, errors, ctx.scale, ctx.reverse)
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


triton_forward = twin(forward, "tristate.kernels.delta.triton:forward")
triton_backward = twin(backward, "tristate.kernels.delta.triton:backward")


def _keep_triton(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _keep(ctx, inputs, output)
    ctx.ops = triton_forward, triton_backward


forward.register_fake(_fake)
triton_forward.register_fake(_fake_triton)
forward.register_autograd(_forward_gradients, setup_context=_keep)
triton_forward.register_autograd(_forward_gradients, setup_context=_keep_triton)
for _backward in (backward, triton_backward):
    _backward.register_fake(_fake_backward)
    _backward.register_autograd(_backward_gradients, setup_context=_keep_for_second)
run, run_backward = shortened(forward), shortened(backward)
