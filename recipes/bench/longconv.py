"""The long convolution against the same by PyTorch's transforms, and by its own convolution."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tristate.kernels.longconv import long_conv
from tristate.recipes.bench.cases import Case

# name: sequences, channels, grid, taps
SIZES = {
    "sequential image": (16, 64, (784,), (784,)),
    "a survey's length": (4, 64, (16384,), (16384,)),
    "short filter": (4, 64, (16384,), (128,)),
    "image": (8, 96, (56, 56), (111, 111)),
    "audio, 262,144 steps": (1, 16, (1 << 18,), (1 << 18,)),
}
LARGE = {"audio, 262,144 steps"}


def cases(quick: bool) -> Iterator[Case]:
    """One case a size, dense; causal in one dimension, centred in two."""
    for name, (batch, dim, grid, taps) in SIZES.items():
        if quick and name in LARGE:
            continue
        inputs = {
            "x": torch.randn(batch, dim, *grid),
            "kernel": torch.randn(dim, *taps),
            "D": torch.randn(dim),
        }
        shape = {"B": batch, "D": dim, "L": grid[0], "axes": len(grid), "taps": taps[0]}
        peers = {"PyTorch, FFT": by_transforms}
        if len(grid) == 1 and taps[0] <= 128:
            peers["PyTorch, convolution"] = summed
        yield Case(f"long_conv, {name}", shape, inputs, _ours, peers)


def _ours(x: Tensor, kernel: Tensor, D: Tensor) -> Any:
    origin = 0 if kernel.dim() == 2 else kernel.shape[-1] // 2
    return long_conv(x, kernel, D, origin=origin, backend="cpu")


def by_transforms(x: Tensor, kernel: Tensor, D: Tensor) -> Tensor:
    """As S4 and what grew from it do: transforms of inputs and kernel together in length."""
    axes = tuple(range(2, x.dim()))
    sizes = [x.shape[i] + kernel.shape[i - 1] for i in axes]
    spectrum = torch.fft.rfftn(x, s=sizes, dim=axes)
    spectrum = spectrum * torch.fft.rfftn(kernel, s=sizes, dim=tuple(i - 1 for i in axes))
    y = torch.fft.irfftn(spectrum, s=sizes, dim=axes)
    for axis in axes:
        first = 0 if len(axes) == 1 else kernel.shape[-1] // 2
        y = y.narrow(axis, first, x.shape[axis])
    return y + D.reshape(-1, *[1] * len(axes)) * x


def summed(x: Tensor, kernel: Tensor, D: Tensor) -> Tensor:
    """A grouped convolution with padding, cut to length; one dimension."""
    padded = F.pad(x, (kernel.shape[1] - 1, 0))
    return F.conv1d(padded, kernel.flip(1)[:, None], groups=x.shape[1]) + D[:, None] * x
