"""Several selective scans over one map, each along a route of its own, in plain PyTorch.

With ``y_k`` the output of the selective scan that reads the map's positions in the order of route
``k``, put back to the positions::

    out = (y_1 + ... + y_K) silu(z)

Source: Vim (routes ahead and back, https://arxiv.org/abs/2401.09417, algorithm 1) and VMamba (four
routes, https://arxiv.org/abs/2401.10166, section 4.2).
"""

from collections.abc import Callable, Sequence
from functools import reduce

import torch
from torch import Tensor
from torch.nn.functional import silu

from tristate.kernels.cross.branches import Branch, Branches
from tristate.kernels.selective import reference

Scan = Callable[[Branch, bool], Tensor]


def routed_scan(
    inputs: Branches,
    seq_idx: Tensor | None,
    delta_softplus: bool,
    routes: Sequence[int],
    height: int,
) -> Tensor:
    """The sum over routes, ``(B, D, L)`` in the dtype of ``u``.

    Computes in float64 if an input is, else in float32, and rounds once.

    Args:
        inputs: of all scans; sequences as the map lies, row after row.
        seq_idx: segments of the positions, ``(B, L)``; only where no route goes down columns.
        delta_softplus: apply softplus to the step sizes, after the bias.
        routes: as :func:`tristate.kernels.cross.routes.route_codes` numbers them.
        height: rows of the map; 0 where none goes down columns.
    """
    exact = reduce(torch.promote_types, (x.dtype for x in inputs.flat), torch.float32)

    def scan(x: Branch, reverse: bool) -> Tensor:
        u, weights = x.u.to(exact), (x.A, x.B, x.C, x.D)
        options = (delta_softplus, None, seq_idx, reverse)
        return reference.selective_scan(u, x.delta, *weights, None, x.delta_bias, *options)[0]

    return summed(inputs, seq_idx, routes, height, scan).to(inputs.branch(0).u.dtype)


def summed(
    inputs: Branches, seq_idx: Tensor | None, routes: Sequence[int], height: int, scan: Scan
) -> Tensor:
    """The gated sum, by any ``scan`` of one branch, read forwards or in reverse."""
    outs = []
    for k, route in enumerate(routes):
        x = inputs.branch(k)
        if not route & 1:
            outs.append(scan(x, bool(route & 2)))
            continue
        x = x._replace(
            u=_down(x.u, height),
            delta=_down(x.delta, height),
            B=_down(x.B, height) if x.B.dim() > 2 else x.B,
            C=_down(x.C, height) if x.C.dim() > 2 else x.C,
        )
        y = scan(x, bool(route & 2))
        outs.append(y.unflatten(-1, (-1, height)).transpose(-1, -2).flatten(-2))
    total = sum(outs[1:], outs[0])
    if not inputs.z:
        return total
    out = total * silu(inputs.z[0].to(total.dtype))
    return out if seq_idx is None else torch.where((seq_idx >= 0)[:, None], out, 0)


def _down(x: Tensor, height: int) -> Tensor:
    """``(..., L)`` of a map row after row in the order of its columns."""
    return x.unflatten(-1, (height, -1)).transpose(-1, -2).flatten(-2)
