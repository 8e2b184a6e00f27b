"""Segments and padding as the scans' kernels read them."""

import torch
from torch import Tensor

FRESH, PADDING = 1, 2
"""A later segment's first position, and a position that isn't there; 0 is all else."""


def marks(seq_idx: Tensor | None, reverse: bool) -> Tensor | None:
    """What each position is, ``(B, L)`` int8, in the order in which time is read."""
    if seq_idx is None:
        return None
    segment, real, before = _read(seq_idx, reverse)
    fresh = real & (before >= 0) & (segment != segment.gather(1, before.clamp(min=0)))
    return torch.where(real, torch.where(fresh, FRESH, 0), PADDING).to(torch.int8)


def numbers(seq_idx: Tensor | None, reverse: bool, block: int) -> Tensor | None:
    """The number of each position's segment, in the order in which time is read, from 0.

    ``(B, L)`` int32, continued to whole blocks; ``~`` the number of the segment before (-1 for 0)
    where there is padding or nothing.
    """
    what = marks(seq_idx, reverse)
    if what is None:
        return None
    what = torch.nn.functional.pad(what, (0, -what.shape[1] % block), value=PADDING)
    number = (what == FRESH).cumsum(1, dtype=torch.int32)
    return torch.where(what == PADDING, ~number, number)


def earlier(seq_idx: Tensor | None, reverse: bool) -> Tensor | None:
    """The real position before each in its segment, ``(B, L)`` int32, in the order of reading.

    -1 where that is the initial state; -2 where there is none.
    """
    if seq_idx is None:
        return None
    segment, real, before = _read(seq_idx, reverse)
    same = (before < 0) | (segment == segment.gather(1, before.clamp(min=0)))
    return torch.where(real & same, before, -2).int()


def _read(seq_idx: Tensor, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Segments as they are read, which are real, and the real position before each, or -1."""
    segment = seq_idx.flip(1) if reverse else seq_idx
    real = segment >= 0
    place = torch.arange(segment.shape[1], device=segment.device).expand_as(segment)
    latest = torch.where(real, place, -1).cummax(1).values
    return segment, real, torch.nn.functional.pad(latest[:, :-1], (1, 0), value=-1)
