"""Routed selective scans on a CPU: the selective scan's kernels with a row of arguments a route.

All routes run in one parallel region. A task goes through them in turn with the same share of the
sequences and channels, so that it can add to what it left in the output before.
"""

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor

from tristate.kernels.cross.branches import (
    Branches,
    Field,
    each,
    gather,
    is_shared,
    pick,
    tensors_of,
)
from tristate.kernels.cross.ops import checkpoints_shape
from tristate.kernels.layout import side_by_side
from tristate.kernels.selective import cpu_rows
from tristate.kernels.selective.cpu import backward_kernels, kernels
from tristate.kernels.selective.cpu_rows import Inputs, Route, plain

# Bytes that are still there when the next route comes by.
_CACHE = 1 << 22


def forward(
    tensors: Sequence[Tensor],
    counts: Sequence[int],
    seq_idx: Tensor | None,
    delta_softplus: bool,
    routes: Sequence[int],
    height: int,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    """Output in the layout of ``u``, and with ``keep`` the states before each tile."""
    inputs = Branches.unflatten(tensors, counts)
    branches = _readable(inputs, seq_idx, len(routes))
    first, u = branches[0], inputs.branch(0).u
    work = _sizes(first)
    # What is summed in place is summed in float32. Padding is passed over.
    new = torch.empty_like if seq_idx is None else torch.zeros_like
    out = new(u, dtype=first.u.dtype if len(routes) == 1 else torch.float32)
    shape = checkpoints_shape(inputs, routes) if keep else (0,)
    checkpoints = u.new_empty(shape, dtype=torch.float32)
    memory, *scratch = cpu_rows.forward_scratch(work)
    rows = []
    for k, (x, route) in enumerate(zip(branches, _routes(routes, height), strict=True)):
        # The gate comes once, on the sum.
        x = x if k == len(routes) - 1 else x._replace(z=None)
        kept = checkpoints[k] if keep else None
        options = (out, None, kept, delta_softplus, scratch)
        rows.append(cpu_rows.forward_row(x, work, route, *options, adds=k > 0))
    kernels(branches, out).forward.rows(work.n_tasks, *rows)
    del memory
    return out.to(u.dtype), checkpoints


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
    """Gradients of the tensors, in their dtypes."""
    inputs = Branches.unflatten(tensors, counts)
    branches = _readable(inputs, seq_idx, len(routes))
    first = branches[0]
    work = _sizes(first)
    sequences = (inputs.u, inputs.delta, inputs.z)
    written = [_room(field, first.u.dtype, seq_idx is not None) for field in sequences]
    places = [[pick(field, k) for field in written] for k in range(len(routes))]
    grad_out = grad_out.to(first.u.dtype)
    # Columns are read where channels lie side by side.
    grad_out = side_by_side(grad_out) if height else grad_out
    chosen, grad_out = backward_kernels(branches, grad_out, *chain.from_iterable(places))
    memory, *scratch = cpu_rows.backward_scratch(work)
    rows, grads = [], []
    for k, (x, route) in enumerate(zip(branches, _routes(routes, height), strict=True)):
        du, ddelta, dz = places[k]
        assert du is not None and ddelta is not None
        adds = [k > 0 and is_shared(field) for field in sequences]
        grads.append(cpu_rows.room(x, work, du, ddelta, dz, (adds[0], adds[1], adds[2])))
        options = (None, checkpoints[k], delta_softplus, scratch)
        rows.append(cpu_rows.backward_row(x, work, route, grad_out, None, grads[k], *options))
    chosen.backward.rows(work.n_tasks, *rows)
    del memory
    found = [cpu_rows.of_parameters(x, g) for x, g in zip(branches, grads, strict=True)]
    dA, dB, dC, dD, dbias = zip(*found, strict=True)
    made = Branches(
        written[0],
        written[1],
        gather(inputs.A, dA),
        gather(inputs.B, dB),
        gather(inputs.C, dC),
        gather(inputs.D, dD),
        gather(inputs.delta_bias, dbias),
        tensors_of(written[2]),
    )
    return [g.to(x.dtype) for g, x in zip(made.flat, tensors, strict=True)]


def _sizes(x: Inputs) -> cpu_rows.Sizes:
    """How the work is shared out: what a task's routes all read and add to stays in a cache."""
    work = cpu_rows.sizes(x.u, x.A, x.B, x.C)
    n_items = work.batch * work.n_splits
    together = max(1, _CACHE * n_items // (8 * max(1, x.u.numel())))
    return work._replace(n_tasks=max(work.n_tasks, -(-n_items // together)))


def _routes(routes: Sequence[int], height: int) -> list[Route]:
    return [Route(bool(route & 2), height if route & 1 else 0) for route in routes]


def _readable(inputs: Branches, seq_idx: Tensor | None, n_routes: int) -> list[Inputs]:
    """Each branch as the kernels read it; what branches share is converted once."""
    sequences = (inputs.u, inputs.delta, inputs.z)
    if len({x.dtype for field in sequences for x in tensors_of(field)}) > 1:
        u, delta, z = (each(Tensor.float, field) for field in sequences)
        inputs = inputs._replace(u=u, delta=delta, z=tensors_of(z))
    B, C = (
        each(plain if weight.dim() == 2 else Tensor.float, field)
        for weight, field in zip(inputs.branch(0)[3:5], (inputs.B, inputs.C), strict=True)
    )
    A, D, bias = (each(plain, field) for field in (inputs.A, inputs.D, inputs.delta_bias))
    inputs = inputs._replace(A=A, B=B, C=C, D=D, delta_bias=bias)
    segments = None if seq_idx is None else seq_idx.to(torch.int32).contiguous()
    found = []
    for k in range(n_routes):
        x = inputs.branch(k)
        found.append(Inputs(*x[:6], x.z, x.delta_bias, None, segments))
    return found


def _room(field: Field, dtype: torch.dtype, padded: bool) -> Field:
    """Room for the gradients of a field; in float32 where branches add to each other's."""
    # Padding is passed over.
    new = torch.zeros_like if padded else torch.empty_like
    dtype = torch.float32 if is_shared(field) else dtype
    return each(lambda x: new(x, dtype=dtype), field)
