"""Convolution of a sequence, an image or a volume with a kernel as long as itself."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from tristate.kernels.backend import choose
from tristate.kernels.checks import expect_floating, expect_one_device
from tristate.kernels.longconv import ops, reference

__all__ = ["long_conv", "two_sided"]


def long_conv(
    x: Tensor,
    kernel: Tensor,
    D: Tensor | None = None,
    *,
    origin: int | Sequence[int] = 0,
    reverse: bool = False,
    backend: str = "auto",
) -> Tensor:
    """Depthwise convolution ``y[t] = D x[t] + sum_j kernel[j] x[t - j + origin]``, of any length.

    With ``origin`` 0 it is causal, with ``(K - 1) // 2`` centred, and in between two-sided: S4's
    pair of kernels is ``long_conv(x, two_sided(k0, k1), origin=k1.shape[-1])``. Beyond its grid
    ``x`` is zero. There is no state to hand on and there are no segments: the past of a long
    convolution is all of its input. Where it must be carried, the recurrence behind the kernel
    carries it.

    Args:
        x: input, ``(B, D, *grid)``, one to three axes behind the channels, any strides.
        kernel: taps, ``(D, *taps)``, or ``(C, D, *taps)`` for ``C`` outputs of every channel;
            shorter or longer than the grid.
        D: weight of the input itself, ``(D,)`` or ``(C, D)`` as the kernel has it.
        origin: index of the tap with lag 0, one for each axis or the same for all; taps before it
            weigh what is ahead.
        reverse: read every axis backwards. Equals flipping ``x`` and the output back.
        backend: ``"auto"``, or one of :func:`tristate.kernels.available_backends`.

    Returns:
        ``(B, D, *grid)``, or ``(B, C, D, *grid)``, in the dtype of ``x``; computed in float32 at
        least. Memory beyond inputs and outputs is that of the kernel some times, and for each
        thread ``2 C + 3`` channels of complex numbers, padded; on grids of more than one axis, of
        blocks of 2 MB, or of four padded channels where those are longer.

    Raises:
        ValueError: the shapes disagree, an origin is no tap, or the backend can't run this.

    Source: Romero et al. 2021 (CKConv), https://arxiv.org/abs/2102.02611; as in S4, Gu et al. 2022,
    https://arxiv.org/abs/2111.00396, and Fu et al. 2023, https://arxiv.org/abs/2302.06646.
    """
    n_axes = x.dim() - 2
    # While a program is traced, a number may be a symbol.
    origin = list(origin) if isinstance(origin, Sequence) else [origin] * n_axes
    _check(x, kernel, D, origin)
    single = kernel.dim() == n_axes + 1
    kernel = kernel[None] if single else kernel
    if D is not None:
        kernel = kernel + _tap(D[None] if single else D, kernel, origin)
    if reverse:
        axes = range(-n_axes, 0)
        kernel = kernel.flip(tuple(axes))
        origin = [kernel.shape[i] - 1 - o for i, o in zip(axes, origin, strict=True)]
    if choose("long_conv", x, backend, ("reference", "cpu")) == "cpu":
        out = ops.run(x, kernel, origin)
    else:
        out = reference.long_conv(x, kernel, origin)
    return out[:, 0] if single else out


def two_sided(kernel: Tensor, backward: Tensor, dim: int = -1) -> Tensor:
    """``kernel`` with lags 0, 1, 2, ... behind ``backward`` with lags -1, -2, ...; along one axis.

    Its origin is ``backward.shape[dim]``.
    """
    return torch.cat([backward.flip(dim), kernel], dim)


def _tap(D: Tensor, kernel: Tensor, origin: Sequence[int]) -> Tensor:
    """``D`` as the tap with lag 0 of a kernel ``(C, D, *taps)``, zeros elsewhere."""
    sides = []
    for o, count in zip(reversed(origin), reversed(kernel.shape[2:]), strict=True):
        sides += [o, count - 1 - o]
    return F.pad(D.reshape(*D.shape, *[1] * len(origin)), sides)


def _check(x: Tensor, kernel: Tensor, D: Tensor | None, origin: Sequence[int]) -> None:
    n_axes = x.dim() - 2
    if n_axes not in (1, 2, 3):
        raise ValueError(f"x must be (B, D, *grid) with one to three axes, got {tuple(x.shape)}")
    if 0 in x.shape[2:]:
        raise ValueError(f"x must have at least one position on each axis, got {tuple(x.shape)}")
    outer = kernel.shape[:-n_axes]
    if len(outer) not in (1, 2) or outer[-1] != x.shape[1] or 0 in kernel.shape[-n_axes:]:
        raise ValueError(
            f"kernel must be (D, *taps) or (C, D, *taps) with D = {x.shape[1]} and {n_axes} axes "
            f"of taps, got {tuple(kernel.shape)}"
        )
    if D is not None and D.shape != outer:
        raise ValueError(f"D must be {tuple(outer)}, as the kernel's, got {tuple(D.shape)}")
    taps = kernel.shape[-n_axes:]
    if len(origin) != n_axes or any(not 0 <= o < k for o, k in zip(origin, taps, strict=True)):
        raise ValueError(f"origin must be one of the taps on each of {tuple(taps)}, got {origin}")
    expect_floating({"x": x, "kernel": kernel, "D": D})
    expect_one_device({"x": x, "kernel": kernel, "D": D})
