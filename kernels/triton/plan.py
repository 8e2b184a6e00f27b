"""How work is shared out to programs: tiles, and how many programs share a sequence."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tiles:
    """The shape of a program's tiles.

    Attributes:
        steps: of time, or rows.
        channels: side by side.
        warps: that share a tile.
    """

    steps: int
    channels: int
    warps: int

    def __str__(self) -> str:
        return f"{self.steps} x {self.channels}, {self.warps} warps"


def narrowed(tile: Tiles, n_channels: int) -> Tiles:
    """Not wider than so many channels need, with as many numbers a thread; 8 wide at least."""
    channels = min(tile.channels, max(8, power_of_two(n_channels)))
    return replace(tile, channels=channels, warps=max(1, tile.warps * channels // tile.channels))


def halves(tile: Tiles, axis: str, least: int = 8) -> tuple[Tiles, ...]:
    """A tile, and half of it with as many numbers a thread: more programs that wait for less.

    Args:
        tile: the default.
        axis: which of its axes is halved: ``"channels"`` or ``"steps"``.
        least: the smallest that there may be of it.
    """
    size = getattr(tile, axis) // 2
    if size < least:
        return (tile,)
    return tile, replace(tile, **{axis: size}, warps=max(1, tile.warps // 2))


def narrower(tile: Tiles, least: int = 16) -> tuple[Tiles, ...]:
    """A tile, and one half as wide with as many warps: more programs, each thread holds less.

    Args:
        tile: the default.
        least: the smallest number of channels that there may be.
    """
    channels = tile.channels // 2
    return (tile,) if channels < least else (tile, replace(tile, channels=channels))


def power_of_two(n: int) -> int:
    """The least one that isn't below ``n``."""
    return 1 << max(0, n - 1).bit_length()


def programs_to_fill(x: Tensor) -> int:
    """How many programs keep the device of ``x`` busy: a few for each of its processors."""
    if x.device.type == "cuda":
        return 2 * torch.cuda.get_device_properties(x.device).multi_processor_count
    if x.device.type == "xpu":
        return 2 * torch.xpu.get_device_properties(x.device).max_compute_units
    return 1


def share_out(x: Tensor, n_programs: int, n_tiles: int) -> tuple[int, int]:
    """Into how many chunks a sequence is split, and the tiles in each.

    One, unless the device isn't filled by ``n_programs`` that take a whole sequence each: to split
    means to read it twice.
    """
    wanted = min(n_tiles, programs_to_fill(x) // max(1, n_programs))
    tiles_each = -(-n_tiles // max(1, wanted))
    return -(-n_tiles // tiles_each), tiles_each
