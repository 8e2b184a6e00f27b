"""The long convolution on a CPU: which way, and for grids of more than one axis PyTorch's FFT.

That is called for blocks that stay in the cache. Axes here: ``x (B, D, *grid)``, ``kernel (C, D,
*taps)``, output ``(B, C, D, *grid)``.
"""

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from tristate.kernels.cpu.memory import zeros
from tristate.kernels.longconv import cpu_direct, cpu_fft
from tristate.kernels.longconv.layout import channels_inside, empty_output
from tristate.kernels.longconv.sizes import direct_is_faster, grid_size, line_size

# Points that are transformed at once: two megabytes, and as many of spectrum.
BLOCK = 1 << 19
# MKL transforms four rows in the time of one.
ROWS = 4


class Plan(NamedTuple):
    """A convolution without the taps that reach from no input to any output."""

    grid: Sequence[int]
    first: Sequence[int]  # of the taps, the first one that counts
    taps: Sequence[int]  # how many count
    origin: Sequence[int]  # which of these has lag 0
    sizes: Sequence[int]  # points of the transforms

    @property
    def axes(self) -> tuple[int, ...]:
        """The last axes, one for each of the grid."""
        return tuple(range(-len(self.grid), 0))

    def direct(self, x: Tensor, kernel: Tensor) -> bool:
        """Whether no transform is to be made."""
        counts = x.shape[0], kernel.shape[0]
        return direct_is_faster(*counts, self.grid, self.taps, self.origin, self.sizes)

    def crop(self, kernel: Tensor) -> Tensor:
        """The taps that count, a view."""
        return _narrow(kernel, self.first, self.taps)


@lru_cache(maxsize=1024)
def _plan(grid: Sequence[int], taps: Sequence[int], origin: Sequence[int]) -> Plan:
    """What is to be done for these sizes."""
    first = [max(0, o - n + 1) for o, n in zip(origin, grid, strict=True)]
    ends = [min(k, o + n) for o, n, k in zip(origin, grid, taps, strict=True)]
    counts = [end - begin for begin, end in zip(first, ends, strict=True)]
    origin = [o - begin for o, begin in zip(origin, first, strict=True)]
    # The longest lag must not reach round the circle.
    reach = [max(o, k - 1 - o) for o, k in zip(origin, counts, strict=True)]
    least = [n + r for n, r in zip(grid, reach, strict=True)]
    sizes = [line_size(least[0])[0]] if len(least) == 1 else [grid_size(n) for n in least]
    return Plan(grid, first, counts, origin, sizes)


def plan(x: Tensor, kernel: Tensor, origin: Sequence[int]) -> Plan:
    """What is to be done for these shapes."""
    return _plan(x.shape[2:], kernel.shape[2:], tuple(origin))


def forward(x: Tensor, kernel: Tensor, origin: Sequence[int]) -> Tensor:
    """The output, in the layout and dtype of ``x``."""
    p = plan(x, kernel, origin)
    taps, direct = p.crop(kernel).float(), p.direct(x, kernel)
    if direct or len(p.grid) == 1:
        if direct:
            found = cpu_direct.forward(x.float(), taps, p.origin)
        else:
            found = cpu_fft.forward(x.float(), taps, p.origin[0])
        plain = x.dtype == found.dtype and not channels_inside(x)
        return found if plain else empty_output(x, kernel.shape[0]).copy_(found)
    out = empty_output(x, kernel.shape[0])
    for channels, batches in _parts(x, p):
        filters = _spectrum(_placed(taps[:, channels], p), p)
        padded = zeros(batches[0].stop, filters.shape[1], *p.sizes)
        for part in batches:
            spectrum = _spectrum(_padded(x[part, channels], padded, p), p)
            for c in range(kernel.shape[0]):
                out[part, c, channels] = _output(spectrum * filters[c], p)
    return out


def backward(
    grad: Tensor, x: Tensor, kernel: Tensor, origin: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Gradients of ``x``, in its layout, and of ``kernel``.

    Spectra are made again, not kept: fresh memory for them costs as much as the transforms.
    """
    p = plan(x, kernel, origin)
    taps, direct = p.crop(kernel).float(), p.direct(x, kernel)
    if direct or len(p.grid) == 1:
        if direct:
            of_x, of_taps = cpu_direct.backward(grad.float(), x.float(), taps, p.origin)
        else:
            of_x, of_taps = cpu_fft.backward(grad.float(), x.float(), taps, p.origin[0])
        plain = x.dtype == of_x.dtype and x.is_contiguous()
        dx = of_x if plain else torch.empty_like(x).copy_(of_x)
        if of_taps.shape == kernel.shape:
            return dx, of_taps.to(kernel.dtype)
        dkernel = kernel.new_zeros(kernel.shape)
        p.crop(dkernel).copy_(of_taps)
        return dx, dkernel
    dx, dkernel = torch.empty_like(x), kernel.new_zeros(kernel.shape)
    dtaps = p.crop(dkernel)
    for channels, batches in _parts(x, p):
        filters = _spectrum(_placed(taps[:, channels], p), p).conj_physical_()
        of_filters = torch.zeros_like(filters)
        padded = zeros(batches[0].stop, filters.shape[1], *p.sizes)
        for part in batches:
            inputs = _spectrum(_padded(x[part, channels], padded, p), p).conj_physical_()
            of_inputs = torch.zeros_like(inputs)
            for c in range(kernel.shape[0]):
                spectrum = _spectrum(_padded(grad[part, c, channels], padded, p), p)
                of_inputs.addcmul_(spectrum, filters[c])
                of_filters[c] += spectrum.mul_(inputs).sum(0)
            dx[part, channels] = _output(of_inputs, p)
        around = torch.fft.irfftn(of_filters, s=p.sizes, dim=p.axes)
        # Negative lags stand at the end of the circle: bring the first tap to the front.
        around = around.roll(p.origin, p.axes)
        dtaps[:, channels] = _narrow(around, [0] * len(p.taps), p.taps)
    return dx, dkernel


def _parts(x: Tensor, p: Plan) -> Iterator[tuple[slice, list[slice]]]:
    """Channels that are done together, and for each such part the sequences that are."""
    batch, dim = x.shape[:2]
    n_rows = max(ROWS, BLOCK // math.prod(p.sizes))
    width = min(dim, n_rows)
    rows = max(1, n_rows // width)
    batches = [slice(i, min(i + rows, batch)) for i in range(0, batch, rows)]
    for first in range(0, dim if batch else 0, width):
        yield slice(first, min(first + width, dim)), batches


def _placed(taps: Tensor, p: Plan) -> Tensor:
    """The taps on a circle of the transforms' sizes, lag 0 at its beginning."""
    circle = zeros(*taps.shape[:2], *p.sizes)
    _narrow(circle, [0] * len(p.taps), p.taps).copy_(taps)
    return circle.roll([-o for o in p.origin], p.axes)


def _padded(x: Tensor, padded: Tensor, p: Plan) -> Tensor:
    """``x`` with zeros behind, in ``padded``."""
    padded = padded[: x.shape[0]]
    _narrow(padded, [0] * len(p.grid), p.grid).copy_(x)
    return padded


def _spectrum(values: Tensor, p: Plan) -> Tensor:
    return torch.fft.rfftn(values, dim=p.axes)


def _output(spectrum: Tensor, p: Plan) -> Tensor:
    return _narrow(torch.fft.irfftn(spectrum, s=p.sizes, dim=p.axes), [0] * len(p.grid), p.grid)


def _narrow(x: Tensor, first: Sequence[int], counts: Sequence[int]) -> Tensor:
    """``counts`` elements of each of the last axes, from ``first`` on, a view."""
    for axis, begin, count in zip(range(-len(counts), 0), first, counts, strict=True):
        if count != x.shape[axis]:
            x = x.narrow(axis, begin, count)
    return x
