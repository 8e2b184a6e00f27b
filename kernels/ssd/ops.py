"""The scan of Mamba-2 as PyTorch ops, ``tristate::ssd_scan`` and its backward.

Each device's kernels are registered here and imported when first run.
"""

from typing import Any

import torch
from torch import Tensor

from tristate.kernels import double_backward
from tristate.kernels.direct import shortened
from tristate.kernels.ssd import reference
from tristate.kernels.triton.plan import power_of_two
from tristate.kernels.triton.twin import twin

TILE, CHUNK = 64, 2
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


def triton_part(B: Tensor) -> int:
    """Positions from one kept state to the next on a GPU: a state is ``N`` numbers a channel."""
    return power_of_two(max(64, 4 * B.shape[3]))


def triton_kept_shape(x: Tensor, B: Tensor) -> tuple[int, ...]:
    """Of the states that Triton's kernels keep, ``(B, parts, H, P, N)``."""
    batch, length, n_heads, width = x.shape
    part = triton_part(B)
    return batch, (length + part - 1) // part, n_heads, width, B.shape[3]


def _fake(
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


def _fake_triton(*inputs: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    *others, keep = inputs
    x, B = others[0], others[3]
    out, last, y, _ = _fake(*others, False)  # pyright: ignore[reportCallIssue]
    kept = x.new_empty(triton_kept_shape(x, B) if keep else (0,), dtype=torch.float32)
    return out, last, y, kept


def _fake_backward(
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
    ctx.ops = run, run_backward
    # What was kept has no gradient, and the last states often none: no zeros are made for them.
    ctx.set_materialize_grads(False)


def _forward_gradients(
    ctx: Any, grad_out: Tensor | None, grad_last: Tensor | None, *_: Tensor | None
) -> tuple[Any, ...]:
    *tensors, y, kept = ctx.saved_tensors
    flags = ctx.softplus, ctx.dt_min, ctx.dt_max, ctx.reverse
    if kept.numel() == 0:
        _, _, y, kept = ctx.ops[0](*tensors, *flags, True)
    if grad_out is None:
        grad_out = torch.zeros_like(tensors[0])
    grads = ctx.ops[1](grad_out, grad_last, *tensors, y.detach(), kept.detach(), *flags)
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


triton_forward = twin(forward, "tristate.kernels.ssd.triton:forward")
triton_backward = twin(backward, "tristate.kernels.ssd.triton:backward")


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
