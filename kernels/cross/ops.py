"""Routed selective scans as PyTorch ops, ``tristate::routed_scan`` and its backward.

Each device's kernels are registered here and imported when first run.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tristate.kernels import double_backward
from tristate.kernels.cross import reference
from tristate.kernels.cross.branches import Branches
from tristate.kernels.direct import unobserved
from tristate.kernels.selective.ops import checkpoint_shape


@torch.library.custom_op("tristate::routed_scan", mutates_args=(), device_types="cpu")
def forward(
    tensors: Sequence[Tensor],
    counts: Sequence[int],
    seq_idx: Tensor | None,
    delta_softplus: bool,
    routes: Sequence[int],
    height: int,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    """Output in the layout of ``u``, and with ``keep`` what the backward needs.

    ``tensors`` and ``counts`` are a :class:`tristate.kernels.cross.branches.Branches`, flattened.
    """
    from tristate.kernels.cross import cpu

    return cpu.forward(tensors, counts, seq_idx, delta_softplus, routes, height, keep)


@torch.library.custom_op("tristate::routed_scan_backward", mutates_args=(), device_types="cpu")
def backward(
    grad_out: Tensor,
    tensors: Sequence[Tensor],
    counts: Sequence[int],
    seq_idx: Tensor | None,
    checkpoints: Tensor,
    delta_softplus: bool,
    routes: Sequence[int],
    height: int,
) -> list[Tensor]:
    """Gradients of the tensors."""
    from tristate.kernels.cross import cpu

    return cpu.backward(
        grad_out, tensors, counts, seq_idx, checkpoints, delta_softplus, routes, height
    )


def checkpoints_shape(inputs: Branches, routes: Sequence[int]) -> tuple[int, ...]:
    """``(K, B, tiles, blocks, N, lanes)``: see the selective scan's."""
    first = inputs.branch(0)
    return len(routes), *checkpoint_shape(first.u, first.A, first.B, first.C)


@forward.register_fake
def _(
    tensors: Sequence[Tensor],
    counts: Sequence[int],
    seq_idx: Tensor | None,
    delta_softplus: bool,
    routes: Sequence[int],
    height: int,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    inputs = Branches.unflatten(tensors, counts)
    u = inputs.branch(0).u
    shape = checkpoints_shape(inputs, routes) if keep else (0,)
    return torch.empty_like(u), u.new_empty(shape, dtype=torch.float32)


@backward.register_fake
def _(
    grad_out: Tensor,
    tensors: Sequence[Tensor],
    counts: Sequence[int],
    seq_idx: Tensor | None,
    checkpoints: Tensor,
    delta_softplus: bool,
    routes: Sequence[int],
    height: int,
) -> list[Tensor]:
    return [torch.empty_like(x) for x in tensors]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    tensors, ctx.counts, seq_idx, ctx.softplus, ctx.routes, ctx.height, _ = inputs
    ctx.direct = False
    ctx.save_for_backward(*tensors, seq_idx, output[1])
    # Checkpoints have no gradient: no zeros are made for them.
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, grad_out: Tensor | None) -> list[Tensor] | None:
    *tensors, seq_idx, checkpoints = ctx.saved_tensors
    options = (ctx.softplus, ctx.routes, ctx.height)
    if grad_out is None:
        return None
    if checkpoints.numel() == 0:
        checkpoints = forward(tensors, ctx.counts, seq_idx, *options, True)[1]
    inputs = (grad_out, tensors, ctx.counts, seq_idx, checkpoints, *options)
    # The op, where the gradients are themselves differentiated or traced; else on the short way.
    if ctx.direct and not torch.is_grad_enabled() and type(grad_out) is Tensor:
        from tristate.kernels.cross import cpu

        return cpu.backward(*inputs)
    return backward(*inputs)


def _forward_gradients(ctx: Any, grad_out: Tensor | None, _: Tensor | None) -> tuple[Any, ...]:
    grads = _gradients(ctx, grad_out) or [None] * sum(ctx.counts)
    return grads, None, None, None, None, None, None


def _keep_for_second(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    grad_out, tensors, ctx.counts, seq_idx, _, ctx.softplus, ctx.routes, ctx.height = inputs
    ctx.save_for_backward(grad_out, *tensors, seq_idx)
    ctx.set_materialize_grads(False)


def _backward_gradients(ctx: Any, cotangents: Sequence[Tensor | None]) -> tuple[Any, ...]:
    grad_out, *tensors, seq_idx = ctx.saved_tensors

    def meaning(*tensors: Tensor) -> tuple[Tensor]:
        inputs = Branches.unflatten(tensors, ctx.counts)
        out = reference.routed_scan(inputs, seq_idx, ctx.softplus, ctx.routes, ctx.height)
        return (out,)

    grads, of_tensors = double_backward.gradients(meaning, tensors, (grad_out,), cotangents)
    return grads[0], of_tensors, None, None, None, None, None, None


forward.register_autograd(_forward_gradients, setup_context=_keep)
backward.register_autograd(_backward_gradients, setup_context=_keep_for_second)


# The op's arguments but the tensors, which _Direct is given last.
_N_OPTIONS = 6


class _Direct(torch.autograd.Function):
    """The forward op without the dispatcher, which takes longer than a small scan."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        from tristate.kernels.cross import cpu

        options, tensors = inputs[:_N_OPTIONS], inputs[_N_OPTIONS:]
        out, checkpoints = cpu.forward(tensors, *options)
        _keep(ctx, (tensors, *options), (out, checkpoints))
        ctx.direct = True
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        found = _gradients(ctx, grads[0]) or [None] * sum(ctx.counts)
        return *[None] * _N_OPTIONS, *found


def run(
    inputs: Branches,
    seq_idx: Tensor | None,
    delta_softplus: bool,
    routes: Sequence[int],
    height: int,
) -> Tensor:
    """Output of the op, on the shortest way there is."""
    tensors, counts = inputs.flat, inputs.counts
    options = (seq_idx, delta_softplus, routes, height)
    # A program that leaves seldom computes gradients, and may be of any length: how many tiles
    # that makes would limit it.
    keep = (
        torch.is_grad_enabled()
        and not torch.compiler.is_exporting()
        and any(x.requires_grad for x in tensors)
    )
    if not unobserved([*tensors, seq_idx]):
        return forward(tensors, counts, *options, keep)[0]
    if keep:
        return _Direct.apply(counts, *options, keep, *tensors)
    from tristate.kernels.cross import cpu

    return cpu.forward(tensors, counts, *options, keep)[0]
