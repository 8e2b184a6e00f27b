"""Linear attention as PyTorch ops, ``tristate::linear_attention`` and its backward.

Each device's kernels are registered here and imported when first run.
"""

from typing import Any

import torch
from torch import Tensor

from tristate.kernels import double_backward
from tristate.kernels.attention import reference
from tristate.kernels.delta.ops import triton_kept_shape
from tristate.kernels.direct import shortened
from tristate.kernels.triton.twin import twin


@torch.library.custom_op("tristate::linear_attention", mutates_args=(), device_types="cpu")
def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    a: Tensor | None,
    b: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    scale: float,
    reverse: bool,
    before: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Output, last state in float32, and with ``keep`` what the gradient needs.

    On a CPU that is what each token found, if there is an ``a``; on a GPU some states on the way.
    """
    from tristate.kernels.attention import cpu

    inputs = q, k, v, g, a, b, initial_state, seq_idx
    return cpu.forward(*inputs, scale, reverse, before, keep)


@torch.library.custom_op("tristate::linear_attention_backward", mutates_args=(), device_types="cpu")
def backward(
    grad_out: Tensor,
    grad_last: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    a: Tensor | None,
    b: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    found: Tensor,
    scale: float,
    reverse: bool,
    before: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the first seven inputs; empty where an optional one is absent."""
    from tristate.kernels.attention import cpu

    inputs = q, k, v, g, a, b, initial_state, seq_idx
    return cpu.backward(grad_out, grad_last, *inputs, found, scale, reverse, before)


def _fake(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    a: Tensor | None,
    b: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    scale: float,
    reverse: bool,
    before: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    batch, _, heads, d_key = q.shape
    d_value = v.shape[3]
    return (
        v.new_empty(v.shape),
        v.new_empty(batch, heads, d_key, d_value, dtype=torch.float32),
        v.new_empty(v.shape if keep and a is not None else (0,), dtype=torch.float32),
    )


def _fake_triton(*inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
    k, v, keep = inputs[1], inputs[2], inputs[-1]
    out, last, _ = _fake(*inputs[:-1], False)  # pyright: ignore[reportCallIssue]
    kept = v.new_empty(triton_kept_shape(k, v) if keep else (0,), dtype=torch.float32)
    return out, last, kept


def _fake_backward(
    grad_out: Tensor,
    grad_last: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    a: Tensor | None,
    b: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    found: Tensor,
    scale: float,
    reverse: bool,
    before: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    def like(x: Tensor | None) -> Tensor:
        return q.new_empty(0) if x is None else x.new_empty(x.shape)

    return like(q), like(k), like(v), like(g), like(a), like(b), like(initial_state)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.scale, ctx.reverse, ctx.before, _ = inputs
    ctx.save_for_backward(*tensors, output[2])
    ctx.ops = run, run_backward
    # What was found has no gradient, and the last state often none: no zeros are made for them.
    ctx.set_materialize_grads(False)


def _forward_gradients(
    ctx: Any, grad_out: Tensor | None, grad_last: Tensor | None, _: Tensor | None
) -> tuple[Any, ...]:
    *tensors, found = ctx.saved_tensors
    how = ctx.scale, ctx.reverse, ctx.before
    forward_op, backward_op = ctx.ops
    # On a CPU only what was found under an ``a`` is needed.
    needed = forward_op is triton_forward or tensors[4] is not None
    if needed and found.numel() == 0:
        found = forward_op(*tensors, *how, True)[2]
    if grad_out is None:
        grad_out = torch.zeros_like(tensors[2])
    grads = backward_op(grad_out, grad_last, *tensors, found, *how)
    present = [g if x is not None else None for g, x in zip(grads, tensors[:7], strict=True)]
    return *present, None, None, None, None, None


def _keep_for_second(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, _, ctx.scale, ctx.reverse, ctx.before = inputs
    ctx.save_for_backward(*tensors)
    ctx.set_materialize_grads(False)


def _backward_gradients(ctx: Any, *cotangents: Tensor | None) -> tuple[Any, ...]:
    grad_out, grad_last, *inputs, seq_idx = ctx.saved_tensors

    def meaning(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        g: Tensor | None,
        a: Tensor | None,
        b: Tensor | None,
        state: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        how = ctx.scale, ctx.reverse, ctx.before
        return reference.linear_attention(q, k, v, g, a, b, state, seq_idx, *how)

    grads, of_inputs = double_backward.gradients(meaning, inputs, (grad_out, grad_last), cotangents)
    return *grads, *of_inputs, None, None, None, None, None


triton_forward = twin(forward, "tristate.kernels.attention.triton:forward")
triton_backward = twin(backward, "tristate.kernels.attention.triton:backward")


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
