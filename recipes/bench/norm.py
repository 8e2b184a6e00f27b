"""The residual sum with its norm against the same as two operators of PyTorch."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tristate.kernels.norm import add_norm
from tristate.recipes.bench.cases import Case

SIZES = {"Vim-tiny layer": (8, 197, 192), "micro": (64, 50, 96)}


def cases(quick: bool) -> Iterator[Case]:
    """One case a size and kind of norm."""
    for name, (batch, length, dim) in SIZES.items():
        for rms in (True, False):
            inputs = {
                "x": torch.randn(batch, length, dim),
                "residual": torch.randn(batch, length, dim),
                "weight": torch.ones(dim),
            }
            if not rms:
                inputs["bias"] = torch.zeros(dim)
            kind = "RMS" if rms else "layer"
            peer = torch_rms if rms else torch_layer
            yield Case(
                f"add_norm ({kind}), {name}",
                {"B": batch, "L": length, "D": dim},
                inputs,
                partial(_ours, rms=rms),
                {"PyTorch, sum and norm": peer},
            )


def _ours(*, rms: bool, **inputs: Any) -> Any:
    out, total = add_norm(**inputs, rms=rms, backend="cpu")
    return out + total


def torch_rms(x: Tensor, residual: Tensor, weight: Tensor) -> Tensor:
    """A sum and an RMS norm."""
    total = x + residual
    return F.rms_norm(total, weight.shape, weight, 1e-5) + total


def torch_layer(x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A sum and a layer norm."""
    total = x + residual
    return F.layer_norm(total, weight.shape, weight, bias, 1e-5) + total
