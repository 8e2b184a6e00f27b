"""RWKV-4's attention as PyTorch ops, ``tristate::wkv`` and its backward.

Each device's kernels are registered here and imported when first run.
"""

from typing import Any

import torch
from torch import Tensor

from tristate.kernels import double_backward
from tristate.kernels.direct import shortened
from tristate.kernels.rwkv import reference
from tristate.kernels.triton.twin import twin

TILE = 64
"""Positions between the states that are kept for the backward."""


@torch.library.custom_op("tristate::wkv", mutates_args=(), device_types="cpu")
def forward(
    k: Tensor,
    v: Tensor,
    w: Tensor,
    u: Tensor,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    reverse: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Output, last state in float32, and with ``keep`` the states before each tile."""
    from tristate.kernels.rwkv import cpu

    return cpu.forward(k, v, w, u, initial_state, seq_idx, reverse, keep)


@torch.library.custom_op("tristate::wkv_backward", mutates_args=(), device_types="cpu")
def backward(
    grad_out: Tensor,
    grad_last: Tensor | None,
    k: Tensor,
    v: Tensor,
    w: Tensor,
    u: Tensor,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    last: Tensor,
    states: Tensor,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the first five inputs; empty where there is no initial state."""
    from tristate.kernels.rwkv import cpu

    inputs = k, v, w, u, initial_state, seq_idx
    return cpu.backward(grad_out, grad_last, *inputs, last, states, reverse)


def _fake(
    k: Tensor,
    v: Tensor,
    w: Tensor,
    u: Tensor,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    reverse: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    batch, length, dim = k.shape
    n_tiles = (length + TILE - 1) // TILE
    return (
        v.new_empty(v.shape),
        v.new_empty(batch, 3, dim, dtype=torch.float32),
        v.new_empty((batch, n_tiles, 3, dim) if keep else (0,), dtype=torch.float32),
    )


def _fake_backward(
    grad_out: Tensor,
    grad_last: Tensor | None,
    k: Tensor,
    v: Tensor,
    w: Tensor,
    u: Tensor,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    last: Tensor,
    states: Tensor,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return (
        k.new_empty(k.shape),
        v.new_empty(v.shape),
        w.new_empty(w.shape),
        u.new_empty(u.shape),
        k.new_empty(0) if initial_state is None else initial_state.new_empty(initial_state.shape),
    )


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.reverse, _ = inputs
    ctx.save_for_backward(*tensors, *output[1:])
    # What is kept has no gradient, and the last state often none: no zeros are made for them.
    ctx.set_materialize_grads(False)
    ctx.ops = run, run_backward


def _forward_gradients(
    ctx: Any, grad_out: Tensor | None, grad_last: Tensor | None, _: Tensor | None
) -> tuple[Any, ...]:
    *tensors, last, states = ctx.saved_tensors
    forward_op, backward_op = ctx.ops
    if states.numel() == 0:
        _, last, states = forward_op(*tensors, ctx.reverse, True)
    if grad_out is None:
        grad_out = torch.zeros_like(tensors[1])
    grads = backward_op(grad_out, grad_last, *tensors, last, states, ctx.reverse)
    present = [g if x is not None else None for g, x in zip(grads, tensors[:5], strict=True)]
    return *present, None, None, None


def _keep_for_second(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.reverse = inputs
    ctx.save_for_backward(*tensors[:8])
    ctx.set_materialize_grads(False)


def _backward_gradients(ctx: Any, *cotangents: Tensor | None) -> tuple[Any, ...]:
    grad_out, grad_last, *inputs, seq_idx = ctx.saved_tensors

    def meaning(
        k: Tensor, v: Tensor, w: Tensor, u: Tensor, state: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        return reference.wkv(k, v, w, u, state, seq_idx, ctx.reverse)

    grads, of_inputs = double_backward.gradients(meaning, inputs, (grad_out, grad_last), cotangents)
    return *grads, *of_inputs, None, None, None, None


triton_forward = twin(forward, "tristate.kernels.rwkv.triton:forward")
triton_backward = twin(backward, "tristate.kernels.rwkv.triton:backward")


def _keep_triton(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _keep(ctx, inputs, output)
    ctx.ops = triton_forward, triton_backward


forward.register_autograd(_forward_gradients, setup_context=_keep)
triton_forward.register_autograd(_forward_gradients, setup_context=_keep_triton)
for _forward in (forward, triton_forward):
    _forward.register_fake(_fake)
for _backward in (backward, triton_backward):
    _backward.register_fake(_fake_backward)
    _backward.register_autograd(_backward_gradients, setup_context=_keep_for_second)
run, run_backward = shortened(forward), shortened(backward)
