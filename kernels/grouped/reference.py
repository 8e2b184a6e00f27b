"""What the ops on groups of rows mean: a product a group."""

import torch
from torch import Tensor
from torch.nn import functional as F


def linear(x: Tensor, weight: Tensor, sizes: Tensor) -> Tensor:
    """``y[i] = weight[e] x[i]`` for the rows of each group ``e``, ``(M, N)``."""
    pieces = zip(x.split(sizes.tolist()), weight, strict=True)
    return torch.cat([F.linear(rows, own) for rows, own in pieces])


def outer(a: Tensor, b: Tensor, sizes: Tensor) -> Tensor:
    """``sum_i a[i] b[i]^T`` over the rows of each group, ``(E, N, K)``; 0 for an empty one."""
    counts = sizes.tolist()
    return torch.stack([p.T @ q for p, q in zip(a.split(counts), b.split(counts), strict=True)])
