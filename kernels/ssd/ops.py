"""The scan of Mamba-2 as PyTorch ops, ``tristate::ssd_scan`` and its backward.

Each device's kernels are registered here and imported when first run.
"""

from typing import Any

import torch
from torch import Tensor

from tristate.kernels import double_backward
from tristate.kernels.ssd import reference

TILE, CHUNK = 32, 4
"""Positions that a kernel takes at once, and tiles from one kept state to the next."""


@torch.library.custom_op("tristate::ssd_scan", mutates_args=(), device_types="cpu")
def forward(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    initial_states: Tensor | None,
    seq_idx: Tensor | None,
    dt_softplus: bool,
    dt_min: float,
    dt_max: float,
    reverse: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Output and last states, and with ``keep`` what the backward needs; all dense.

    That is the output before the gate, if there is one, and the states before each chunk, both in
    float32.
    """
    from tristate.kernels.ssd import cpu

    inputs = x, dt, A, B, C, D, z, dt_bias, initial_states, seq_idx
    return cpu.forward(*inputs, dt_softplus, dt_min, dt_max, reverse, keep)


@torch.library.custom_op("tristate::ssd_scan_backward", mutates_args=(), device_types="cpu")
def backward(
    grad_out: Tensor,
    grad_last: Tensor | None,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    initial_states: Tensor | None,
    seq_idx: Tensor | None,
    y: Tensor,
    kept: Tensor,
    dt_softplus: bool,
    dt_min: float,
    dt_max: float,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the first nine inputs, dense; empty where an optional one is absent."""
    from tristate.kernels.ssd import cpu

    inputs = x, dt, A, B, C, D, z, dt_bias, initial_states, seq_idx
    return cpu.backward(grad_out, grad_last, *inputs, y, kept, dt_softplus, dt_min, dt_max, reverse)


def kept_shape(x: Tensor, B: Tensor) -> tuple[int, ...]:
    """Of the states before each chunk, ``(B, H, chunks, P, N)``."""
    batch, length, n_heads, width = x.shape
    n_chunks = (length + TILE * CHUNK - 1) // (TILE * CHUNK)
    return batch, n_heads, n_chunks, width, B.shape[3]


@forward.register_fake
def _(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    initial_states: Tensor | None,
    seq_idx: Tensor | None,
    dt_softplus: bool,
    dt_min: float,
    dt_max: float,
    reverse: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, _, n_heads, width = x.shape
    return (
        x.new_empty(x.shape),
        x.new_empty(batch, n_heads, width, B.shape[3], dtype=torch.float32),
        x.new_empty(x.shape if keep and z is not None else (0,), dtype=torch.float32),
        x.new_empty(kept_shape(x, B) if keep else (0,), dtype=torch.float32),
    )


@backward.register_fake
def _(
    grad_out: Tensor,
    grad_last: Tensor | None,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    initial_states: Tensor | None,
    seq_idx: Tensor | None,
    y: Tensor,
    kept: Tensor,
    dt_softplus: bool,
    dt_min: float,
    dt_max: float,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    required = (t.new_empty(t.shape) for t in (x, dt, A, B, C))
    optional = (
        x.new_empty(0) if t is None else t.new_empty(t.shape)
        for t in (D, z, dt_bias, initial_states)
    )
    return *required, *optional  # pyright: ignore[reportReturnType]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.softplus, ctx.dt_min, ctx.dt_max, ctx.reverse, _ = inputs
    ctx.save_for_backward(*tensors, output[2], output[3])
    # What was kept has no gradient, and the last states often none: no zeros are made for them.
    ctx.set_materialize_grads(False)


def _forward_gradients(
    ctx: Any, grad_out: Tensor | None, grad_last: Tensor | None, *_: Tensor | None
) -> tuple[Any, ...]:
    *tensors, y, kept = ctx.saved_tensors
    flags = ctx.softplus, ctx.dt_min, ctx.dt_max, ctx.reverse
    if kept.numel() == 0:
        _, _, y, kept = torch.ops.tristate.ssd_scan(*tensors, *flags, True)
    if grad_out is None:
        grad_out = torch.zeros_like(tensors[0])
    grads = backward(grad_out, grad_last, *tensors, y.detach(), kept.detach(), *flags)
    present = [g if x is not None else None for g, x in zip(grads, tensors[:9], strict=True)]
    return *present, *[None] * 6


def _keep_for_second(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, _, _, ctx.softplus, ctx.dt_min, ctx.dt_max, ctx.reverse = inputs
    ctx.save_for_backward(*tensors)
    ctx.set_materialize_grads(False)


def _backward_gradients(ctx: Any, *cotangents: Tensor | None) -> tuple[Any, ...]:
    grad_out, grad_last, *inputs, seq_idx = ctx.saved_tensors

    def meaning(
        x: Tensor,
        dt: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor | None,
        z: Tensor | None,
        bias: Tensor | None,
        states: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        flags = ctx.softplus, ctx.dt_min, ctx.dt_max, ctx.reverse
        return reference.ssd_scan(x, dt, A, B, C, D, z, bias, states, seq_idx, *flags)

    grads, of_inputs = double_backward.gradients(meaning, inputs, (grad_out, grad_last), cotangents)
    return *grads, *of_inputs, *[None] * 7


forward.register_autograd(_forward_gradients, setup_context=_keep)
backward.register_autograd(_backward_gradients, setup_context=_keep_for_second)
