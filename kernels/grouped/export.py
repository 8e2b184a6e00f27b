"""Products by groups of rows in PyTorch's own operators, for programs that leave this package.

A program can't cut rows at places that data tells: every group's matrix meets all rows, which takes
as many times as long as there are groups.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def linear(x: Tensor, weight: Tensor, sizes: Tensor) -> Tensor:
    """What the op computes."""
    own = _groups(sizes, x)
    y = x.new_zeros(x.shape[0], weight.shape[1])
    for group in range(weight.shape[0]):
        y = torch.where(own == group, F.linear(x, weight[group]), y)
    return y


def outer(a: Tensor, b: Tensor, sizes: Tensor) -> Tensor:
    """What the op computes."""
    own = _groups(sizes, a)
    sums = [torch.where(own == group, a, 0).T @ b for group in range(sizes.shape[0])]
    return torch.stack(sums)


def _groups(sizes: Tensor, rows: Tensor) -> Tensor:
    """The group of each row, ``(M, 1)``."""
    places = torch.arange(rows.shape[0], device=rows.device)
    return (places[:, None] >= sizes.cumsum(0)).sum(1, keepdim=True)


def decompositions() -> dict[Any, Callable[..., Any]]:
    """The table for :meth:`torch.export.ExportedProgram.run_decompositions`."""
    ops = torch.ops.tristate
    return {ops.grouped_linear.default: linear, ops.grouped_outer.default: outer}
