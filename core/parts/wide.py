"""Linear maps in the precision of their input, whatever their weights are stored in."""

from typing import Any

from torch import Tensor
from torch.nn import functional as F


def wide_linear(x: Tensor, layer: Any) -> Tensor:
    """``layer(x)`` of an ``nn.Linear`` in the dtype of ``x``.

    Networks over positions need it: half precision can't tell thousands of them apart.
    """
    bias = None if layer.bias is None else layer.bias.to(x.dtype)
    return F.linear(x, layer.weight.to(x.dtype), bias)
