"""Long Range Arena's retrieval task: does one of two papers, read byte by byte, cite the other?"""

import mmap
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from tristate.core.errors import UserError
from tristate.core.tasks.texts import BYTES, PAD, byte_ids
from tristate.core.training.data import PartedData

WHERE = "unpack lra_release.gz from https://github.com/google-research/long-range-arena"
PARTS = {"train": "train", "val": "eval", "test": "test"}
COLUMNS = 5  # label, two names, two texts
_LABELS = {b"0.0": 0, b"0": 0, b"1.0": 1, b"1": 1}


class Pairs:
    """The pairs of a file as a :class:`tristate.core.training.loader.Source`, read when asked for.

    A line is ``label TAB name TAB name TAB text TAB text``, the label 0.0 or 1.0. A batch is ids
    ``(B, 2, L)`` int64, as wide as its longest text, and labels ``(B,)``.

    Args:
        path: the file; it may be larger than the memory.
        max_length: bytes of a text that are read.

    Raises:
        UserError: the file is missing or empty, or a line is no such thing.
    """

    def __init__(self, path: Path, max_length: int) -> None:
        self.path, self.max_length = path, max_length
        try:
            size = path.stat().st_size
        except FileNotFoundError as error:
            raise UserError(f"there is no file {path}: {WHERE}") from error
        if not size:
            raise UserError(f"{path} is empty: fetch it again")
        self.starts = _line_starts(path)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def batch(self, indices: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The pairs at ``indices``, filled up, and their labels."""
        with self.path.open("rb") as file:
            rows = [self._row(file, index) for index in indices.tolist()]
        texts = [ids for _, pair in rows for ids in pair]
        filled = pad_sequence(texts, batch_first=True, padding_value=PAD)
        return filled.unflatten(0, (-1, 2)), torch.tensor([label for label, _ in rows])

    def _row(self, file: Any, index: int) -> tuple[int, list[Tensor]]:
        file.seek(self.starts[index])
        line = file.read(self.starts[index + 1] - self.starts[index]).rstrip(b"\r\n")
        fields = line.split(b"\t")
        if len(fields) != COLUMNS or fields[0] not in _LABELS:
            raise UserError(
                f"{self.path}:{index + 1} must be a label of 0.0 or 1.0, two names and two texts, "
                f"tabs between: it has {len(fields)} fields and begins with {fields[0][:20]!r}"
            )
        return _LABELS[fields[0]], [byte_ids(text[: self.max_length]) for text in fields[3:]]


def _line_starts(path: Path) -> list[int]:
    """Where each line begins, and where the last one ends, in bytes."""
    starts, step = [0], 1 << 26
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        for begin in range(0, len(view), step):
            piece = np.frombuffer(view[begin : begin + step], np.uint8)
            starts += (np.flatnonzero(piece == ord("\n")) + begin + 1).tolist()
        if starts[-1] != len(view):
            starts.append(len(view))
    return starts


class Papers(PartedData):
    """Pairs of papers of the ACL Anthology Network, as bytes: byte ``b`` is id ``b + 1``, 0 fills.

    Args:
        root: folder of ``new_aan_pairs.train.tsv``, ``.eval.tsv`` and ``.test.tsv``.
        max_length: bytes of a paper that are read.
        batch_size: pairs of a batch.
        workers: processes that read ahead.
        seed: as :class:`tristate.core.training.data.DataModule`.

    Raises:
        UserError: a file is missing.

    Source: Radev et al. 2013, https://doi.org/10.1007/s10579-012-9211-2; as pairs Tay et al. 2020,
    https://arxiv.org/abs/2011.04006, section 2.2.3.
    """

    def __init__(
        self,
        root: str,
        max_length: int = 4000,
        batch_size: int = 32,
        workers: int = 0,
        seed: int | None = None,
    ) -> None:
        super().__init__(batch_size, workers, seed)
        if max_length < 1:
            raise ValueError(f"max_length must be at least 1, got {max_length}")
        self.root, self.max_length = Path(root), max_length

    @property
    def facts(self) -> dict[str, Any]:
        """Class names, the number of ids, and what stands for each."""
        return {"class_names": ["apart", "cites"], "vocab_size": len(BYTES), "tokens": BYTES}

    def setup(self, stage: str) -> None:
        """Look where the lines begin."""
        if not self.parts:
            self.parts = {
                part: Pairs(self.root / f"new_aan_pairs.{name}.tsv", self.max_length)
                for part, name in PARTS.items()
            }
