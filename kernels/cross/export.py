"""The routed scans' op in PyTorch's own operators, for programs that leave this package."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from tristate.kernels.cross.branches import Branch, Branches
from tristate.kernels.cross.ops import checkpoints_shape
from tristate.kernels.cross.reference import summed
from tristate.kernels.selective import export


def routed_scan(
    tensors: Sequence[Tensor],
    counts: Sequence[int],
    seq_idx: Tensor | None,
    delta_softplus: bool,
    routes: Sequence[int],
    height: int,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    """What the op computes, as one loop a route."""
    inputs = Branches.unflatten(tensors, counts)

    def scan(x: Branch, reverse: bool) -> Tensor:
        weights = (x.A, x.B, x.C, x.D, None, x.delta_bias, None, seq_idx)
        options = (delta_softplus, reverse, False)
        return export.selective_scan(x.u.float(), x.delta, *weights, *options)[0]

    out = summed(inputs, seq_idx, routes, height, scan)
    # The loops keep what their own gradients need: nothing reads the checkpoints.
    shape = checkpoints_shape(inputs, routes) if keep else (0,)
    return out.to(tensors[0].dtype), out.new_zeros(shape, dtype=torch.float32)


def decompositions() -> dict[Any, Callable[..., Any]]:
    """The table for :meth:`torch.export.ExportedProgram.run_decompositions`."""
    return {torch.ops.tristate.routed_scan.default: routed_scan}
