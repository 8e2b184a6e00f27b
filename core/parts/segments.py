"""Where sequences packed in one row begin, from their ``seq_idx``."""

from typing import NamedTuple

import torch
from torch import Tensor


class Segments(NamedTuple):
    """What ``seq_idx (B, L)`` says of each position; padding is as if it weren't there.

    Attributes:
        real: no padding.
        first: the first real position of its row.
        changed: a real position that begins another sequence than the last real one before it.
        before: index of the last real position before this one; -1 where there is none.
    """

    real: Tensor
    first: Tensor
    changed: Tensor
    before: Tensor


def segments(seq_idx: Tensor) -> Segments:
    """Read ``seq_idx (B, L)``, integers, negative at padding; all results are ``(B, L)``."""
    real = seq_idx >= 0
    places = torch.arange(seq_idx.shape[1], device=seq_idx.device)
    upto = torch.where(real, places, -1).cummax(1).values
    before = torch.cat([torch.full_like(upto[:, :1], -1), upto[:, :-1]], 1)
    other = seq_idx != seq_idx.gather(1, before.clamp(min=0))
    return Segments(real, real & (before < 0), real & (before >= 0) & other, before)
