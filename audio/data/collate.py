"""Clips of unequal length as one batch, padded so that padding can be told from sound."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

PADDING = -1


# Not frozen: Lightning sets the fields of a batch where it changes the precision.
@dataclass
class Padded:
    """A batch of waveforms or features; its items are the clips without their padding.

    Args:
        values: ``(B, L)`` or ``(B, F, T)``, zero behind the end of a clip.
        lengths: of the clips, ``(B,)`` int64: samples or columns.
    """

    values: Tensor
    lengths: Tensor

    @property
    def seq_idx(self) -> Tensor:
        """``(B, L)`` int32: 0 where there is sound, negative where there is padding.

        A mixer that packs then hands out for each clip what it would alone.
        """
        places = torch.arange(self.values.shape[-1], device=self.values.device)
        return torch.where(places < self.lengths[:, None], 0, PADDING).int()

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Tensor:
        return self.values[index, ..., : self.lengths[index]]

    def to(self, *args: Any, **kwargs: Any) -> "Padded":
        """On another device, or the values of another type; arguments as of ``Tensor.to``."""
        values = self.values.to(*args, **kwargs)
        return Padded(values, self.lengths.to(values.device, non_blocking=True))

    def pin_memory(self) -> "Padded":
        """In page-locked memory, for a fast way to a GPU."""
        return Padded(self.values.pin_memory(), self.lengths.pin_memory())


def collate(clips: Sequence[Tensor], multiple: int = 1) -> Padded:
    """The ``clips``, each ``(L,)`` or ``(F, T)``, as one batch.

    Args:
        clips: at least one.
        multiple: the padded length is a multiple of it.

    Raises:
        ValueError: there is none, or they differ in more than their length.
    """
    if not clips or len({clip.shape[:-1] for clip in clips}) > 1:
        raise ValueError(
            "clips that differ in length only are wanted, got the shapes "
            f"{[tuple(clip.shape) for clip in clips]}"
        )
    lengths = torch.tensor([clip.shape[-1] for clip in clips])
    longest = -(-int(lengths.max()) // multiple) * multiple
    values = clips[0].new_zeros(len(clips), *clips[0].shape[:-1], longest)
    for row, clip in zip(values, clips, strict=True):
        row[..., : clip.shape[-1]] = clip
    return Padded(values, lengths)
