"""The long convolution in plain PyTorch: what every backend must compute.

Along one axis, with ``K`` taps of which number ``o`` has lag 0::

    y[t] = sum_j kernel[j] x[t - j + o],   x zero outside of its grid

and likewise along two and three. All of the linear convolution is a product of spectra over at
least ``L + K - 1`` points; the output is what stands behind its first ``o`` of them.
"""

import torch
from torch import Tensor


def long_conv(x: Tensor, kernel: Tensor, origin: list[int]) -> Tensor:
    """``(B, C, D, *grid)`` for ``x (B, D, *grid)`` and ``kernel (C, D, *taps)``.

    Computes in float64 for float64 inputs, else in float32; the output is in the dtype of ``x``.
    """
    exact = torch.promote_types(x.dtype, torch.float32)
    axes = tuple(range(-len(origin), 0))
    # Multiples of 8: prime sizes are slow.
    sizes = [-(-(x.shape[i] + kernel.shape[i] - 1) // 8) * 8 for i in axes]
    spectrum = torch.fft.rfftn(x.to(exact)[:, None], s=sizes, dim=axes)
    spectrum = spectrum * torch.fft.rfftn(kernel.to(exact), s=sizes, dim=axes)
    y = torch.fft.irfftn(spectrum, s=sizes, dim=axes)
    for axis, first in zip(axes, origin, strict=True):
        y = y.narrow(axis, first, x.shape[axis])
    return y.to(x.dtype)
