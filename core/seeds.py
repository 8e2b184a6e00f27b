"""Random numbers as a function of where one is: seed, epoch, step, process."""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def mix(*keys: int) -> int:
    """One seed of 64 bits from several whole numbers; the order counts."""
    state = np.random.SeedSequence([key % 2**64 for key in keys]).generate_state(1, np.uint64)
    return int(state[0])


def generator(*keys: int) -> torch.Generator:
    """A generator on the CPU whose numbers depend on ``keys`` alone."""
    return torch.Generator().manual_seed(mix(*keys))


def global_seed() -> int:
    """The seed that Lightning's ``seed_everything`` left, else the one PyTorch began with."""
    return int(os.environ.get("PL_GLOBAL_SEED", torch.initial_seed()))


def seed_all(*keys: int, device: torch.device) -> None:
    """Set the global generators of Python, NumPy and PyTorch (CPU and ``device``) from ``keys``."""
    seed = mix(*keys)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    # torch.manual_seed also queues a call for each kind of device that is absent, with a traceback:
    # once a step, that takes milliseconds and memory without end.
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


@contextmanager
def seeded(*keys: int) -> Iterator[None]:
    """Global CPU generators set from ``keys`` inside, and as they were before on leaving."""
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seed = mix(*keys)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
