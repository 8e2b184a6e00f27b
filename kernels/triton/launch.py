"""Starts kernels: on a GPU, in the interpreter, or on paper, to compile them for another GPU."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tristate.kernels.cache import folder, is_usable
from tristate.kernels.triton.interpreter import hasten


@dataclass(frozen=True)
class Launch:
    """A kernel with its arguments, by name.

    Attributes:
        kernel: the function under ``triton.jit``.
        arguments: tensors, numbers and constants.
        options: ``num_warps`` and the like.
    """

    kernel: Any
    arguments: dict[str, Any]
    options: dict[str, int]


_recorded: list[Launch] | None = None


@contextmanager
def recording() -> Iterator[list[Launch]]:
    """Write launches down instead of starting them; tensors may be on ``meta``."""
    global _recorded
    before, _recorded = _recorded, []
    try:
        yield _recorded
    finally:
        _recorded = before


def is_recording() -> bool:
    """Whether launches are written down."""
    return _recorded is not None


def for_nvidia(options: dict[str, int]) -> dict[str, int]:
    """The options with as many registers a thread as the program's warps can have.

    Left to itself NVIDIA's assembler may spill to let two programs share a processor.
    """
    return options | {"maxnreg": min(255, 65536 // (32 * options["num_warps"]))}


def launch(
    kernel: Any,
    grid: Sequence[int],
    /,
    *,
    num_warps: int = 4,
    num_stages: int = 1,
    **arguments: Any,
) -> None:
    """Start ``kernel`` on a grid of programs.

    Args:
        kernel: a function under ``triton.jit``.
        grid: how many programs along up to three axes; with none there is nothing to do.
        num_warps: of a program.
        num_stages: of its loops' pipelines.
        arguments: by name; an absent tensor is None.
    """
    options = {"num_warps": num_warps, "num_stages": num_stages}
    if _recorded is not None:
        _recorded.append(Launch(kernel, arguments, options))
        return
    if 0 in grid:
        return
    device = next(x.device for x in arguments.values() if isinstance(x, Tensor))
    if device.type != "cpu":
        find_room()
        is_nvidia = device.type == "cuda" and torch.version.hip is None
        with getattr(torch, device.type).device(device):
            kernel[tuple(grid)](**arguments, **(for_nvidia(options) if is_nvidia else options))
        return
    hasten()
    # A GPU says nothing of overflow either.
    with np.errstate(all="ignore"):
        kernel[tuple(grid)](**arguments)


def strides(name: str, x: Tensor | None, axes: str) -> dict[str, int]:
    """A kernel's arguments ``{name}_{axis}``, one a letter of ``axes``; 0 of what isn't there."""
    steps = [0] * len(axes) if x is None else x.stride()
    return {f"{name}_{axis}": step for axis, step in zip(axes, steps, strict=True)}


@cache
def find_room() -> None:
    """Let Triton keep what it compiles in another folder where it can't write to its own."""
    from triton import __version__, knobs

    if not is_usable(Path(knobs.cache.dir)):
        knobs.cache.dir = str(folder("triton", __version__))
