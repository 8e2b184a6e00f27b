"""A data module to classify windows of one's own with."""

import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tristate.bio.data.bed import Interval, read_bed
from tristate.bio.data.complement import reverse_complement_ids
from tristate.bio.data.fasta import Genome
from tristate.bio.data.genome_windows import token_facts
from tristate.bio.data.misread import Misread
from tristate.bio.data.sources import NamedWindows
from tristate.bio.data.tokenize import CharacterTokenizer, caduceus_tokenizer
from tristate.bio.data.tsv import Labelled, read_tsv
from tristate.core.errors import UserError
from tristate.core.training.data import PartedData
from tristate.core.training.loader import Loader, Source
from tristate.kernels.registry import nearest


class LabelledIds:
    """Windows in one tensor, with labels, as a :class:`tristate.core.training.loader.Source`.

    Args:
        ids: ``(M, L)`` int64, filled up on the left.
        labels: ``(M,)`` int64.
        tokenizer: made the ids.
        both_strands: read every other window on the other strand.
    """

    def __init__(
        self,
        ids: Tensor,
        labels: Tensor,
        tokenizer: CharacterTokenizer,
        *,
        both_strands: bool = False,
    ) -> None:
        # A byte an id until a batch is made: tables may be large.
        self.ids, self.labels = ids.to(torch.uint8), labels
        self.both_strands, self.pad_id = both_strands, tokenizer.pad_id
        self.complement = tokenizer.complement()

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Ids ``(B, L)`` int64 and labels ``(B,)``."""
        ids = self.ids[indices].long()
        if self.both_strands:
            other = torch.rand(len(ids), 1, generator=generator) < 0.5
            turned = reverse_complement_ids(ids, self.complement, self.pad_id)
            ids = torch.where(other, turned, ids)
        return ids, self.labels[indices]


def held_out(groups: Sequence[str], share: float) -> Tensor:
    """Which rows to validate on, ``(M,)`` bool: whole groups, as many as fit into ``share`` of all.

    Groups are taken in the order of the CRC-32 of their names, so that no seed changes them.
    """
    sizes, taken, room = Counter(groups), set(), share * len(groups)
    for group in sorted(sizes, key=lambda name: (zlib.crc32(name.encode()), name)):
        if sizes[group] <= room:
            taken.add(group)
            room -= sizes[group]
    return torch.tensor([group in taken for group in groups])


class LabelledWindows(PartedData):
    """Windows with labels from tables with tabs, in memory.

    A batch is ``(ids, labels)``, ``(B, L)`` and ``(B,)`` int64; shorter windows are filled up on
    the left with ``[PAD]``. Classes are the labels of ``train``, sorted.

    Args:
        train: table to train on: columns ``sequence`` and ``label``, plain or compressed.
        test: table to test on.
        val: table to validate on; None sets some of ``train`` aside.
        val_share: share of ``train`` that is set aside, in whole groups.
        group: column of ``train`` that tells which windows belong together (a gene, a contig);
            None for windows of the same sequence.
        max_length: cut longer windows at their end; None keeps them.
        both_strands: read every other training window on the other strand: for classes that do not
            depend on it.
        misread: share of the training windows' bases that are replaced at random, anew each epoch.
        batch_size: windows of a batch.
        workers: processes that prepare batches; none are needed.
        seed: root of all that is random; None takes the run's global seed.
        predict_fasta: genome to predict in; None for the test windows.
        predict_bed: intervals of it, each on its strand.

    Raises:
        UserError: a file is missing or damaged, a label of ``val`` or ``test`` is not among the
            classes, or ``train`` has a single class.
        ValueError: a number is out of its range, or of ``predict_fasta`` and ``predict_bed`` one is
            missing.
    """

    def __init__(
        self,
        train: str,
        test: str,
        val: str | None = None,
        val_share: float = 0.1,
        group: str | None = None,
        max_length: int | None = None,
        both_strands: bool = False,
        misread: float = 0.0,
        batch_size: int = 64,
        workers: int = 0,
        seed: int | None = None,
        predict_fasta: str | None = None,
        predict_bed: str | None = None,
    ) -> None:
        super().__init__(batch_size, workers, seed)
        if not 0 < val_share < 1:
            raise ValueError(f"val_share is a share between 0 and 1, got {val_share}")
        if max_length is not None and max_length < 1:
            raise ValueError(f"max_length must be at least 1, got {max_length}")
        if not 0 <= misread <= 1:
            raise ValueError(f"misread is a share between 0 and 1, got {misread}")
        if (predict_fasta is None) != (predict_bed is None):
            raise ValueError(
                "predict_fasta and predict_bed go together, "
                f"got {predict_fasta!r} and {predict_bed!r}"
            )
        self.train, self.test, self.val = train, test, val
        self.val_share, self.max_length, self.both_strands = val_share, max_length, both_strands
        self.misread = misread
        self.predict_fasta, self.predict_bed = predict_fasta, predict_bed
        self.tokenizer = caduceus_tokenizer()
        self.group = group
        # Read now: the classes are facts.
        self.rows = self.read("train")
        self.class_names = sorted({row.label for row in self.rows})
        if len(self.class_names) < 2:
            raise UserError(f"{train} has the single label {self.class_names[0]!r}: wanted two")

    @property
    def facts(self) -> dict[str, Any]:
        """The ids, the class names, and the length of the longest training window."""
        longest = max(len(row.sequence) for row in self.rows)
        return token_facts(self.tokenizer) | {
            "class_names": list(self.class_names),
            "max_length": longest if self.max_length is None else min(longest, self.max_length),
        }

    def read(self, part: str) -> list[Labelled]:
        """The rows of ``part``: ``"train"``, ``"val"`` or ``"test"``."""
        return read_tsv(getattr(self, part), group=self.group if part == "train" else None)

    def setup(self, stage: str) -> None:
        """Read the tables and make ids of them."""
        if self.parts:
            return
        train, val = self.rows, self.read("val") if self.val else []
        if not self.val:
            aside = held_out([row.group for row in train], self.val_share).tolist()
            val = [row for row, out in zip(self.rows, aside, strict=True) if out]
            train = [row for row, out in zip(self.rows, aside, strict=True) if not out]
            if not train or not val:
                raise UserError(
                    f"{self.train} cannot be parted with val_share {self.val_share}: name a table "
                    "to validate on (val), or a column of smaller groups (group)"
                )
        source = self.training_source(train)
        if self.misread:
            source = Misread(source, self.misread, self.tokenizer.base_ids)
        self.parts = {
            "train": source,
            "val": LabelledIds(*self.encode(val, self.val or self.train), self.tokenizer),
            "test": LabelledIds(*self.encode(self.read("test"), self.test), self.tokenizer),
        }

    def training_source(self, rows: Sequence[Labelled]) -> Source:
        """The windows to train on, with what is done to them."""
        ids, labels = self.encode(rows, self.train)
        return LabelledIds(ids, labels, self.tokenizer, both_strands=self.both_strands)

    def encode(self, rows: Sequence[Labelled], path: str) -> tuple[Tensor, Tensor]:
        """Ids ``(M, L)`` and labels ``(M,)`` of rows of the table at ``path``.

        Raises:
            UserError: a label is not among the classes.
        """
        numbers = {name: number for number, name in enumerate(self.class_names)}
        for row in rows:
            if row.label not in numbers:
                raise UserError(
                    f"{path} has the label {row.label!r}, which {self.train} has not: "
                    f"{nearest(row.label, numbers)}"
                )
        texts = [row.sequence[: self.max_length] for row in rows]
        labels = torch.tensor([numbers[row.label] for row in rows])
        return self.tokenizer.encode_batch(texts), labels

    def predict_dataloader(self) -> Loader:
        """The intervals of ``predict_bed``, else the test windows, with their names."""
        if self.predict_fasta is None or self.predict_bed is None:
            return super().predict_dataloader()
        genome = Genome(self.predict_fasta)
        intervals = read_bed(self.predict_bed, genome.lengths)
        self.check_intervals(intervals)
        return self.loader(NamedWindows(genome, self.tokenizer, intervals))

    def check_intervals(self, intervals: Sequence[Interval]) -> None:
        """Refuse intervals that these classes make no sense for; here none."""
