"""What this machine can't beat, measured in the same run: arithmetic and memory traffic."""

from collections.abc import Callable
from functools import partial

import torch

from tristate.kernels.cpu.runtime import Kernel
from tristate.recipes.bench.measure import interleaved

LANES, LINES = 16, 64

_KERNELS = {
    "forward": Kernel("tristate.recipes.bench.floor_kernels", "forward"),
    "forward+backward": Kernel("tristate.recipes.bench.floor_kernels", "backward"),
}


def scan_arithmetic(direction: str, n_elements: int) -> Callable[[], object]:
    """A call that does the least arithmetic of ``n_elements`` (channels, steps, states) of a scan.

    Large numbers are done in part: see :func:`scale`.
    """
    n_threads = torch.get_num_threads()
    rounds = max(1, n_elements // (LANES * LINES * n_threads))
    # Between -1 and 0, so that the states stay bounded.
    buffer = -torch.rand(n_threads * 2 * LINES * LANES + 16)
    address = -(-buffer.data_ptr() // 64) * 64
    kernel = _KERNELS[direction]

    def run() -> torch.Tensor:
        kernel(n_threads, address, rounds)
        return buffer

    return run


def memory_ms(n_bytes: int) -> float:
    """The time to move so many bytes between the processor and memory, by a plain copy."""
    half = max(1 << 12, min(n_bytes, 1 << 27) // 8)
    source, target = torch.ones(half), torch.ones(half)
    ms = interleaved({"copy": partial(target.copy_, source)}, rounds=9, seconds=1)["copy"]
    return ms * n_bytes / (8 * half)
