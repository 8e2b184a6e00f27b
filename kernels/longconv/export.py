"""The long convolution's op in PyTorch's own operators, for programs that leave this package."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def long_conv(x: Tensor, kernel: Tensor, origin: list[int]) -> Tensor:
    """What the op computes, by whole transforms of padded tensors.

    onnxruntime 1.31 fails where a transform pads by itself, or makes a real sequence of half a
    spectrum.
    """
    axes = tuple(range(-len(origin), 0))
    sizes = [x.shape[i] + kernel.shape[i] - 1 for i in axes]

    def spectrum(values: Tensor) -> Tensor:
        sides = [n - values.shape[i] for i, n in zip(axes, sizes, strict=True)]
        pad = [amount for side in reversed(sides) for amount in (0, side)]
        return torch.fft.fftn(F.pad(values.float(), pad), dim=axes)

    y = torch.fft.ifftn(spectrum(x[:, None]) * spectrum(kernel), dim=axes).real
    for axis, first in zip(axes, origin, strict=True):
        y = y.narrow(axis, first, x.shape[axis])
    return y.to(x.dtype)


def decompositions() -> dict[Any, Callable[..., Any]]:
    """The table for :meth:`torch.export.ExportedProgram.run_decompositions`."""
    return {torch.ops.tristate.long_conv.default: long_conv}
