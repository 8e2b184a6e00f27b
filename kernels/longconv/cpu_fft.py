"""The long convolution of sequences by this package's own FFT: from tensors to the kernels."""

import math
from functools import cache

import torch
from torch import Tensor

from tristate.kernels.cpu.memory import empty
from tristate.kernels.cpu.runtime import Kernel, threads
from tristate.kernels.longconv.sizes import line_size

_forward = Kernel("tristate.kernels.longconv.cpu_fft_kernels", "forward")
_backward = Kernel("tristate.kernels.longconv.cpu_fft_kernels", "backward")

LANES, GROUP = 16, 256
# Below this many points a second thread costs more than it brings.
SMALL = 1 << 14


def forward(x: Tensor, taps: Tensor, origin: int) -> Tensor:
    """``(B, C, D, L)`` float32, for ``x (B, D, L)`` and ``taps (C, D, K)``, none of them idle."""
    x, taps = x.contiguous(), taps.contiguous()
    out = x.new_empty(x.shape[0], taps.shape[0], *x.shape[1:])
    size, odd = _size(x, taps, origin)
    n_tasks = _n_tasks(x)
    scratch, room = _room(n_tasks, 2 + taps.shape[0], size)
    factors = _factors(size, odd)
    _forward(
        n_tasks,
        n_tasks,
        x.data_ptr(),
        taps.data_ptr(),
        out.data_ptr(),
        factors.data_ptr(),
        scratch.data_ptr(),
        room,
        *x.shape[:2],
        taps.shape[0],
        x.shape[2],
        taps.shape[2],
        origin,
        size,
        odd,
    )
    return out


def backward(grad: Tensor, x: Tensor, taps: Tensor, origin: int) -> tuple[Tensor, Tensor]:
    """Gradients of ``x`` and of ``taps``, float32."""
    grad, x, taps = grad.contiguous(), x.contiguous(), taps.contiguous()
    dx, dtaps = torch.empty_like(x), torch.zeros_like(taps)
    size, odd = _size(x, taps, origin)
    n_tasks = _n_tasks(x)
    scratch, room = _room(n_tasks, 3 + 2 * taps.shape[0], size)
    factors = _factors(size, odd)
    if x.shape[0] == 0:
        return dx, dtaps
    _backward(
        n_tasks,
        n_tasks,
        grad.data_ptr(),
        x.data_ptr(),
        taps.data_ptr(),
        dx.data_ptr(),
        dtaps.data_ptr(),
        factors.data_ptr(),
        scratch.data_ptr(),
        room,
        *x.shape[:2],
        taps.shape[0],
        x.shape[2],
        taps.shape[2],
        origin,
        size,
        odd,
    )
    return dx, dtaps


def _size(x: Tensor, taps: Tensor, origin: int) -> tuple[int, int]:
    # The longest lag must not reach round the circle.
    return line_size(x.shape[2] + max(origin, taps.shape[2] - 1 - origin))


@cache
def _factors(size: int, odd: int) -> Tensor:
    """``exp(-2 pi i j / block)`` of each pass, real and imaginary planes, one behind the other."""
    blocks = [(size, size // odd)] if odd > 1 else []
    block = size // odd
    if math.log2(block) % 2:
        blocks.append((block, block // 2))
        block //= 2
    while block >= LANES:
        blocks.append((block, block // 4))
        block //= 4
    planes = []
    for block, count in blocks:
        angle = -2 * math.pi / block * torch.arange(count, dtype=torch.float64)
        planes += [angle.cos(), angle.sin()]
    return torch.cat(planes).float()


def _room(n_tasks: int, n_buffers: int, size: int) -> tuple[Tensor, int]:
    """Scratch memory of all tasks, and bytes of one: a tile, and buffers of two planes."""
    floats = 2 * GROUP + n_buffers * 2 * (size + LANES)
    return empty(n_tasks * floats), 4 * floats


def _n_tasks(x: Tensor) -> int:
    """One for each thread, which takes its share of the channels."""
    return 1 if x.numel() < SMALL else threads(x.shape[1])
