"""A data module to pretrain on: random windows of a genome, tested on what was never trained on."""

from typing import Any

import numpy as np

from tristate.bio.data.bed import Interval, read_bed
from tristate.bio.data.fasta import Genome
from tristate.bio.data.markov import markov_baselines
from tristate.bio.data.sources import NamedWindows, RandomExamples, Reader, TiledExamples
from tristate.bio.data.tokenize import CharacterTokenizer, caduceus_tokenizer
from tristate.bio.data.windows import (
    intersect,
    require_disjoint,
    split_by_chromosome,
    split_by_position,
    tile,
)
from tristate.core.errors import UserError
from tristate.core.training.data import DataModule
from tristate.core.training.loader import Loader

MARKOV_BASES = 20_000_000  # genomes up to so many bases get Markov models to compare with

# What files call the part that validates.
_PART_NAMES = {"train": "train", "valid": "val", "validation": "val", "val": "val", "test": "test"}


def token_facts(tokenizer: CharacterTokenizer) -> dict[str, Any]:
    """What a model and a task have to know of the ids."""
    return {
        "vocab_size": tokenizer.vocab_size,
        "tokens": list(tokenizer.vocabulary),
        "pad_id": tokenizer.pad_id,
        "mask_id": tokenizer.mask_id,
        "base_ids": list(tokenizer.base_ids),
        "complement": tokenizer.complement().tolist(),
    }


class GenomeWindows(DataModule):
    """Windows of the genome in a FASTA file, to guess the next letter or masked ones.

    A batch is ``(inputs, labels)``, both ``(B, length)`` int64; labels that do not count are -100.
    Training windows are drawn anew for each epoch from anywhere in the training part. Validation
    and test windows stand side by side on the strand ``+``: every base counts once.

    The parts are those that the BED file's fourth column names (``train``, ``valid``, ``test``)
    where every line names one. Otherwise whole sequences make them where some are named here, else
    each sequence is cut by position; the BED file's intervals then only choose what is used.

    Args:
        fasta: the genome, plain or compressed.
        bed: intervals to use; None for everything.
        length: ids of an input.
        batch_size: windows of a batch.
        windows_per_epoch: training windows of an epoch, of all processes together.
        mask_rate: share of letters to be guessed (0.15 as BERT); None for the next letter.
        both_strands: read every other training window on the other strand.
        pieces: hand out each training window in so many pieces, one batch after another: a causal
            model hands its state on (truncated back-propagation through time).
        val_chroms: sequences to validate on.
        test_chroms: sequences to test on.
        val_share: share of each sequence to validate on, where cut by position.
        test_share: share to test on, where cut by position: its end.
        workers: processes that prepare batches.
        seed: root of all that is random; None takes the run's global seed.
        predict_bed: intervals to predict for; None for the test windows.

    Raises:
        UserError: a file is missing or damaged, an interval lies outside, or two parts overlap.
        ValueError: a number is out of its range.
    """

    def __init__(
        self,
        fasta: str,
        bed: str | None = None,
        length: int = 1024,
        batch_size: int = 8,
        windows_per_epoch: int = 1024,
        mask_rate: float | None = None,
        both_strands: bool = True,
        pieces: int = 1,
        val_chroms: list[str] | None = None,
        test_chroms: list[str] | None = None,
        val_share: float = 0.02,
        test_share: float = 0.1,
        workers: int = 0,
        seed: int | None = None,
        predict_bed: str | None = None,
    ) -> None:
        super().__init__(batch_size, workers, seed)
        if length < 1 or windows_per_epoch < 1:
            raise ValueError(
                "length and windows_per_epoch must be at least 1, "
                f"got {length} and {windows_per_epoch}"
            )
        if pieces < 1 or length % pieces:
            raise ValueError(f"pieces must divide length = {length}, got {pieces}")
        if mask_rate is not None and not 0 < mask_rate <= 1:
            raise ValueError(f"mask_rate is a share above 0, got {mask_rate}")
        self.fasta, self.bed, self.length = fasta, bed, length
        self.windows_per_epoch, self.mask_rate = windows_per_epoch, mask_rate
        self.both_strands, self.pieces = both_strands, pieces
        self.val_chroms, self.test_chroms = val_chroms or [], test_chroms or []
        self.val_share, self.test_share = val_share, test_share
        self.predict_bed = predict_bed
        self.tokenizer = caduceus_tokenizer()
        self.regions: dict[str, list[Interval]] = {}

    @property
    def facts(self) -> dict[str, Any]:
        """The ids, the length of an input, and whether letters are masked."""
        return token_facts(self.tokenizer) | {
            "max_length": self.length,
            "pieces": self.pieces,
            "masked": self.mask_rate is not None,
        }

    def setup(self, stage: str) -> None:
        """Open the genome and choose the parts."""
        if self.regions:
            return
        self.genome = Genome(self.fasta)
        self.reader = Reader(self.genome, self.tokenizer, self.length, self.mask_rate)
        self.regions = self._parts()

    def _parts(self) -> dict[str, list[Interval]]:
        lengths = self.genome.lengths
        rows = read_bed(self.bed, lengths) if self.bed else None
        named = [row for row in rows or [] if row.name.lower() in _PART_NAMES]
        if rows and named:
            if len(named) < len(rows):
                row = next(row for row in rows if row.name.lower() not in _PART_NAMES)
                raise UserError(
                    f"{self.bed}:{row.line} names the part {row.name!r}, other lines train, valid "
                    "or test: name one of these in every line or in none"
                )
            parts: dict[str, list[Interval]] = {"train": [], "val": [], "test": []}
            for row in rows:
                parts[_PART_NAMES[row.name.lower()]].append(row)
            require_disjoint(parts, str(self.bed))
        else:
            if self.val_chroms or self.test_chroms:
                parts = split_by_chromosome(lengths, val=self.val_chroms, test=self.test_chroms)
            else:
                parts = split_by_position(
                    lengths, val_share=self.val_share, test_share=self.test_share
                )
            if rows:
                parts = {part: intersect(rows, regions) for part, regions in parts.items()}
        return parts

    def train_dataloader(self) -> Loader:
        """Windows from anywhere in the training part."""
        source = RandomExamples(
            self.reader,
            self._regions("train"),
            self.windows_per_epoch,
            both_strands=self.both_strands,
        )
        return self.loader(source, train=True, pieces=self.pieces)

    def val_dataloader(self) -> Loader:
        """The part to validate on, window by window."""
        return self._tiled("val")

    def test_dataloader(self) -> Loader:
        """The part to test on, window by window."""
        return self._tiled("test")

    def predict_dataloader(self) -> Loader:
        """The intervals of ``predict_bed``, else the test windows, with their names."""
        if self.predict_bed is not None:
            intervals = read_bed(self.predict_bed, self.genome.lengths)
        else:
            intervals = [t.interval for t in tile(self._regions("test"), self.length)]
        return self.loader(NamedWindows(self.genome, self.tokenizer, intervals))

    def baselines(self) -> dict[int, float]:
        """Bits per base of Markov models on the part to test on, by order.

        They are counted on all that is not tested on, of one strand: they need no validation.
        Empty for genomes of more than ``MARKOV_BASES``, where counting would take long.
        """
        counted = [*self.regions["train"], *self.regions["val"]]
        parts = [counted, self.regions["test"]]
        if sum(row.end - row.start for part in parts for row in part) > MARKOV_BASES:
            return {}
        # What lies side by side is one piece, an N between all others: no k-mer reaches across.
        known, unseen = (self._joined(part) for part in parts)
        return markov_baselines(known, unseen)

    def _joined(self, regions: list[Interval]) -> np.ndarray:
        pieces: list[np.ndarray] = []
        chrom, end = "", 0
        for row in sorted(regions):
            if (row.chrom, row.start) != (chrom, end):
                pieces.append(np.frombuffer(b"N", np.uint8))
            pieces.append(self.genome.letters(row.chrom, row.start, row.end))
            chrom, end = row.chrom, row.end
        return np.concatenate(pieces)

    def _tiled(self, part: str) -> Loader:
        source = TiledExamples(self.reader, self._regions(part))
        if not len(source):
            raise UserError(
                f"no interval of the part {part!r} of {self.fasta} holds a window of "
                f"{self.reader.n_bases} bases: shorten length or enlarge the part"
            )
        return self.loader(source)

    def _regions(self, part: str) -> list[Interval]:
        regions = self.regions[part]
        if not regions:
            raise UserError(f"nothing of {self.fasta} is in the part {part!r}: see bed and shares")
        return regions
