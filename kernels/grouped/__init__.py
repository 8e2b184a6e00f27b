"""A matrix of its own for each group of rows: what mixtures of experts are made of."""

import torch
from torch import Tensor

from tristate.kernels.checks import expect_floating, expect_one_device, expect_shape
from tristate.kernels.grouped import ops

__all__ = ["grouped_linear"]


def grouped_linear(x: Tensor, weight: Tensor, sizes: Tensor) -> Tensor:
    """``y[i] = weight[e] x[i]`` for each row ``i`` of the group ``e``; groups follow each other.

    Time O(M K N), with no row padded and none dropped; memory beyond the output that of one group.
    The sizes may depend on data: programs that are compiled or exported keep the op whole. On a GPU
    they are read back, which waits for it.

    Args:
        x: rows, ``(M, K)``.
        weight: a matrix a group, ``(E, N, K)``, of the dtype of ``x``; under autocast both are
            cast.
        sizes: rows of each group, ``(E,)`` int64; they sum to ``M``.

    Returns:
        ``(M, N)``.

    Raises:
        ValueError: shapes or dtypes disagree.

    Source: Gale et al. 2022, https://arxiv.org/abs/2211.15841.
    """
    expect_floating({"x": x, "weight": weight})
    expect_one_device({"x": x, "weight": weight, "sizes": sizes})
    if x.ndim != 2 or weight.ndim != 3:
        raise ValueError(
            f"x is (M, K) and weight (E, N, K), got {tuple(x.shape)} and {tuple(weight.shape)}"
        )
    expect_shape("weight", weight, (*weight.shape[:2], x.shape[1]), "(E, N, K)")
    expect_shape("sizes", sizes, (weight.shape[0],), "(E,)")
    if torch.is_autocast_enabled(x.device.type):
        narrow = torch.get_autocast_dtype(x.device.type)
        x, weight = x.to(narrow), weight.to(narrow)
    if x.dtype != weight.dtype:
        raise ValueError(f"x and weight must have one dtype, got {x.dtype} and {weight.dtype}")
    return ops.linear(x, weight, sizes)
