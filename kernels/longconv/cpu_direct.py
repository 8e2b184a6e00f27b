"""The long convolution summed directly: from tensors to the kernels on rows, and back."""

from collections.abc import Sequence

import torch
from torch import Tensor

from tristate.kernels.cpu.memory import empty
from tristate.kernels.cpu.runtime import Kernel, threads

_forward = Kernel("tristate.kernels.longconv.cpu_direct_kernels", "forward")
_backward = Kernel("tristate.kernels.longconv.cpu_direct_kernels", "backward")

LANES = 16
# Below this many multiply-adds a second thread costs more than it brings.
SMALL = 1 << 18


def forward(x: Tensor, taps: Tensor, origin: Sequence[int]) -> Tensor:
    """``(B, C, D, *grid)`` float32, for ``x (B, D, *grid)`` and ``taps (C, D, *taps)``."""
    x, taps = x.contiguous(), taps.contiguous()
    out = x.new_empty(x.shape[0], taps.shape[0], *x.shape[1:])
    grid, counts, first = _planes(x.shape[2:], taps.shape[2:], origin)
    n_tasks = _n_tasks(x, taps)
    scratch, room = _room(n_tasks, 1, grid, counts)
    _forward(
        n_tasks,
        n_tasks,
        x.data_ptr(),
        taps.data_ptr(),
        out.data_ptr(),
        scratch.data_ptr(),
        room,
        *x.shape[:2],
        taps.shape[0],
        *grid,
        *counts,
        *first,
    )
    return out


def backward(grad: Tensor, x: Tensor, taps: Tensor, origin: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Gradients of ``x`` and of ``taps``, float32."""
    grad, x, taps = grad.contiguous(), x.contiguous(), taps.contiguous()
    dx, dtaps = torch.empty_like(x), torch.empty_like(taps)
    grid, counts, first = _planes(x.shape[2:], taps.shape[2:], origin)
    n_tasks = _n_tasks(x, taps)
    scratch, room = _room(n_tasks, 2, grid, counts)
    _backward(
        n_tasks,
        n_tasks,
        grad.data_ptr(),
        x.data_ptr(),
        taps.data_ptr(),
        dx.data_ptr(),
        dtaps.data_ptr(),
        scratch.data_ptr(),
        room,
        *x.shape[:2],
        taps.shape[0],
        *grid,
        *counts,
        *first,
    )
    return dx, dtaps


def _planes(*axes: Sequence[int]) -> list[list[int]]:
    """Grid, numbers of taps, and origin, with axes of one position in front up to three."""
    return [[fill] * (3 - len(a)) + list(a) for a, fill in zip(axes, (1, 1, 0), strict=True)]


def _room(n_tasks: int, n_planes: int, grid: list[int], counts: list[int]) -> tuple[Tensor, int]:
    """Scratch memory of all tasks, and bytes of one: a line, the taps, and padded rows."""
    line = _padded(grid[2]) + _padded(counts[2])
    rows = 1 + n_planes * grid[0] * grid[1]
    floats = rows * line + counts[0] * counts[1] * _padded(counts[2])
    return empty(n_tasks * floats), 4 * floats


def _padded(n: int) -> int:
    return -(-n // LANES) * LANES


def _n_tasks(x: Tensor, taps: Tensor) -> int:
    """One for each thread, which takes its share of the channels."""
    work = x.numel() * taps.numel() // max(1, x.shape[1])
    return 1 if work < SMALL else threads(x.shape[1])
