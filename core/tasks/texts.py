"""Sequences of ids of unequal length, with a label each: kept together, handed out filled up."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

PAD = 0
"""The id of padding. It stands behind a sequence."""

BYTES = ["", *(chr(i) if 32 <= i < 127 else "\N{MIDDLE DOT}" for i in range(256))]
"""What stands for each id where ids are bytes: byte ``b`` is id ``b + 1``."""


def byte_ids(text: bytes) -> Tensor:
    """The ids of a text, ``(L,)`` int64."""
    return torch.frombuffer(bytearray(text or b"\n"), dtype=torch.uint8).long() + 1


class Texts:
    """Sequences and labels as a :class:`tristate.core.training.loader.Source`.

    A batch is as wide as its longest sequence: ids ``(B, L)`` int64, and labels ``(B,)``.

    Args:
        sequences: ids below 32,768, each ``(L,)``.
        labels: as many.
    """

    def __init__(self, sequences: Sequence[Tensor], labels: Sequence[int]) -> None:
        # Two bytes an id are a quarter of what PyTorch looks up with.
        self.ids = torch.cat([ids.to(torch.int16) for ids in sequences])
        self.ends = torch.tensor([0, *(len(ids) for ids in sequences)]).cumsum(0)
        self.labels = torch.tensor(list(labels))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Tensor:
        """The ids of one sequence, ``(L,)`` int64."""
        return self.ids[self.ends[index] : self.ends[index + 1]].long()

    def batch(self, indices: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The sequences at ``indices``, filled up, and their labels."""
        rows = [self[index] for index in indices.tolist()]
        return pad_sequence(rows, batch_first=True, padding_value=PAD), self.labels[indices]


def padding(ids: Tensor) -> Tensor:
    """The ``seq_idx`` of ``ids (..., L)``: 0, and -1 at padding."""
    return torch.where(ids == PAD, -1, 0)
