"""The selective scan as PyTorch ops, ``tristate::selective_scan`` and its backward.

Each device's kernels are registered here and imported when first run.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tristate.kernels import double_backward
from tristate.kernels.backend import takes_triton
from tristate.kernels.direct import shortened
from tristate.kernels.layout import empty_like_rows
from tristate.kernels.selective import reference
from tristate.kernels.triton.twin import twin

TILE, SHORT_TILE, LANES = 32, 8, 16
"""Steps between checkpoints, where there is one state too, and channels a kernel takes at once."""

TRITON_TILE = 32
"""Steps between the checkpoints that Triton's kernels keep."""

TRITON_MAX_STATES = 256
"""Of a channel, that Triton's kernels take: more don't fit a program's registers."""


@torch.library.custom_op("tristate::selective_scan", mutates_args=(), device_types="cpu")
def forward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    delta_softplus: bool,
    reverse: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Output in the layout of ``u``, last state, and with ``keep`` what the backward needs."""
    inputs = u, delta, A, B, C, D, z, delta_bias, initial_state, seq_idx
    return _cpu(A).forward(*inputs, delta_softplus, reverse, keep)


@torch.library.custom_op("tristate::selective_scan_backward", mutates_args=(), device_types="cpu")
def backward(
    grad_out: Tensor,
    grad_last: Tensor | None,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    checkpoints: Tensor,
    delta_softplus: bool,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the first nine inputs; empty where an optional one is absent."""
    inputs = u, delta, A, B, C, D, z, delta_bias, initial_state, seq_idx
    return _cpu(A).backward(grad_out, grad_last, *inputs, checkpoints, delta_softplus, reverse)


def _cpu(A: Tensor) -> Any:
    """The module of the CPU's kernels for ``A``, real or complex."""
    if A.is_complex():
        from tristate.kernels.selective import cpu_complex as module
    else:
        from tristate.kernels.selective import cpu as module
    return module


def checkpoint_shape(u: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[int, ...]:
    """``(B, tiles, blocks, N, lanes)``: the states before each tile of time, by blocks of channels.

    Groups of channels start a new block; with complex ``A`` there is one block of all channels.
    Where there is one state some kernels keep it more often, and others leave room unused.
    """
    batch, dim, length = u.shape
    tile = SHORT_TILE if A.shape[1] == 1 and not A.is_complex() else TILE
    tiles = (length + tile - 1) // tile
    if A.is_complex():
        return batch, tiles, 1, A.shape[1], dim
    n_groups = max(w.shape[1] if w.dim() == 4 else 1 for w in (B, C))
    blocks = n_groups * ((dim // n_groups + LANES - 1) // LANES)
    return batch, tiles, blocks, A.shape[1], LANES


def triton_checkpoint_shape(u: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[int, ...]:
    """``(B, tiles, N, D)``: the states before each of Triton's tiles of time."""
    batch, dim, length = u.shape
    return batch, (length + TRITON_TILE - 1) // TRITON_TILE, A.shape[1], dim


def _fake(shape: Callable[..., tuple[int, ...]]) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    """What the forward op returns, empty; ``shape`` is that of the checkpoints."""

    def fake(
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor | None,
        z: Tensor | None,
        delta_bias: Tensor | None,
        initial_state: Tensor | None,
        seq_idx: Tensor | None,
        delta_softplus: bool,
        reverse: bool,
        keep: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        state = torch.complex64 if A.is_complex() else torch.float32
        return (
            empty_like_rows(u),
            u.new_empty(u.shape[0], u.shape[1], A.shape[1], dtype=state),
            u.new_empty(shape(u, A, B, C) if keep else (0,), dtype=state),
        )

    return fake


def _fake_backward(
    grad_out: Tensor,
    grad_last: Tensor | None,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    checkpoints: Tensor,
    delta_softplus: bool,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    return (
        empty_like_rows(u),
        empty_like_rows(delta),
        A.new_empty(A.shape),
        empty_like_weight(B),
        empty_like_weight(C),
        u.new_empty(0) if D is None else D.new_empty(D.shape),
        u.new_empty(0) if z is None else empty_like_rows(z),
        u.new_empty(0) if delta_bias is None else delta_bias.new_empty(delta_bias.shape),
        u.new_empty(0) if initial_state is None else initial_state.new_empty(initial_state.shape),
    )


def states_innermost(weight: Tensor) -> bool:
    """Whether the states of ``B`` or ``C`` lie side by side in memory, and time doesn't."""
    return weight.dim() > 2 and weight.stride(-2) == 1 and weight.stride(-1) != 1


def empty_like_weight(weight: Tensor) -> Tensor:
    """An empty tensor like ``B`` or ``C``, dense, with its last two axes in the same order."""
    if not states_innermost(weight):
        return weight.new_empty(weight.shape)
    *outer, n_states, length = weight.shape
    return weight.new_empty(*outer, length, n_states).transpose(-1, -2)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.softplus, ctx.reverse, _ = inputs
    ctx.ops = run, run_backward
    ctx.save_for_backward(*tensors, output[2])
    # Checkpoints have no gradient, and the last state often none: no zeros are made for them.
    ctx.set_materialize_grads(False)


def _forward_gradients(
    ctx: Any, grad_out: Tensor | None, grad_last: Tensor | None, _: Tensor | None
) -> tuple[Any, ...]:
    *tensors, checkpoints = ctx.saved_tensors
    forward, backward = ctx.ops
    if checkpoints.numel() == 0:
        checkpoints = forward(*tensors, ctx.softplus, ctx.reverse, True)[2]
    if grad_out is None:
        grad_out = torch.zeros_like(tensors[0])
    flags = ctx.softplus, ctx.reverse
    grads = backward(grad_out, grad_last, *tensors, checkpoints.detach(), *flags)
    present = [g if x is not None else None for g, x in zip(grads, tensors[:9], strict=True)]
    return *present, None, None, None, None


def _keep_for_second(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, _, ctx.softplus, ctx.reverse = inputs
    ctx.save_for_backward(*tensors)
    ctx.set_materialize_grads(False)


def _backward_gradients(ctx: Any, *cotangents: Tensor | None) -> tuple[Any, ...]:
    grad_out, grad_last, *inputs, seq_idx = ctx.saved_tensors

    def meaning(
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor | None,
        z: Tensor | None,
        bias: Tensor | None,
        state: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        return reference.selective_scan(
            u, delta, A, B, C, D, z, bias, ctx.softplus, state, seq_idx, ctx.reverse
        )

    grads, of_inputs = double_backward.gradients(meaning, inputs, (grad_out, grad_last), cotangents)
    return *grads, *of_inputs, None, None, None, None


triton_forward = twin(forward, "tristate.kernels.selective.triton:forward")
triton_backward = twin(backward, "tristate.kernels.selective.triton:backward")


def _keep_triton(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _keep(ctx, inputs, output)
    ctx.ops = triton_forward, triton_backward


forward.register_fake(_fake(checkpoint_shape))
triton_forward.register_fake(_fake(triton_checkpoint_shape))
forward.register_autograd(_forward_gradients, setup_context=_keep)
triton_forward.register_autograd(_forward_gradients, setup_context=_keep_triton)
for _backward in (backward, triton_backward):
    _backward.register_fake(_fake_backward)
    _backward.register_autograd(_backward_gradients, setup_context=_keep_for_second)
run, run_backward = shortened(forward), shortened(backward)


@torch.library.custom_op("tristate::selective_state_update_triton", mutates_args=("state",))
def triton_update(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    dt_softplus: bool,
) -> Tensor:
    """One step, for ``state (B, H, P, N)``; see the reference of that name. Has no gradient."""
    from tristate.kernels.selective import triton_update

    return triton_update.selective_state_update(state, x, dt, A, B, C, D, z, dt_bias, dt_softplus)


@triton_update.register_fake
def _(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    dt_softplus: bool,
) -> Tensor:
    return x.new_empty(x.shape)


def update(state: Tensor, *inputs: Any) -> Tensor:
    """One step by what is fastest for the state's device; the reference where gradients flow."""
    tensors = [x for x in (state, *inputs[:-1]) if x is not None]
    needs_grad = torch.is_grad_enabled() and any(x.requires_grad for x in tensors)
    exact = any(x.dtype == torch.float64 for x in tensors)
    if takes_triton(state) and not needs_grad and not exact:
        return triton_update(state, *inputs)
    return reference.selective_state_update(state, *inputs)
