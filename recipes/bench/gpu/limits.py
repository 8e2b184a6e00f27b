"""What a GPU can't beat: the bytes that must be moved, and the exponentials of a scan."""

from functools import partial

import torch

from tristate.kernels.triton.clock import Clock, interleaved

# Bytes a second of memory, as their makers state them; part of the name as PyTorch tells it.
PUBLISHED = {
    "B200": 8.0e12,
    "H200": 4.8e12,
    "H100 PCIe": 2.0e12,
    "H100 NVL": 3.9e12,
    "H100": 3.35e12,
    "A100-SXM4-80GB": 2.04e12,
    "A100": 1.56e12,
    "L40S": 0.864e12,
    "RTX 4090": 1.01e12,
    "MI300X": 5.3e12,
    "MI325X": 6.0e12,
    "7900 XTX": 0.96e12,
}

# Exponentials that an NVIDIA multiprocessor begins in a cycle.
_PER_CYCLE = 16


def published(name: str) -> float | None:
    """Bytes a second that the maker of a GPU states; None where it isn't known here."""
    return next((rate for part, rate in PUBLISHED.items() if part in name), None)


def copied(device: torch.device, clock: Clock, n_bytes: int = 1 << 30) -> float:
    """Bytes a second that a copy between two large tensors reads and writes."""
    source, target = torch.ones(2, n_bytes // 4, device=device).unbind(0)
    copy = partial(target.copy_, source)
    copy()
    (ms,) = interleaved([copy], clock, rounds=9)
    return 2 * n_bytes / (1e-3 * ms)


def exponentials(device: torch.device) -> float | None:
    """How many a second the GPU computes; None where that isn't known."""
    if device.type != "cuda" or torch.version.hip:
        return None
    found = torch.cuda.get_device_properties(device)
    hertz = 1e3 * getattr(found, "clock_rate", 0)
    return _PER_CYCLE * found.multi_processor_count * hertz or None
