"""The causal convolution against PyTorch's own with SiLU behind it."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tristate.kernels.conv import causal_conv1d
from tristate.recipes.bench.cases import Case

SIZES = {"Vim-tiny layer": (8, 384, 197), "audio": (2, 256, 16000)}
WIDTH = 4


def cases(quick: bool) -> Iterator[Case]:
    """One case a size, channel-last as the models here hand it in."""
    for name, (batch, dim, length) in SIZES.items():
        inputs = {
            "x": torch.randn(batch, length, dim).transpose(1, 2),
            "weight": torch.randn(dim, WIDTH),
            "bias": torch.randn(dim),
        }
        shape = {"B": batch, "D": dim, "L": length, "width": WIDTH}
        peers = {"PyTorch, conv1d and SiLU": torch_conv}
        yield Case(f"causal_conv1d, {name}", shape, inputs, _ours, peers)


def _ours(**inputs: Any) -> Any:
    return causal_conv1d(**inputs, activation="silu", backend="cpu")


def torch_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A grouped convolution with padding, cut to length."""
    y = F.conv1d(x, weight[:, None], bias, padding=WIDTH - 1, groups=x.shape[1])
    return F.silu(y[..., : x.shape[2]])
