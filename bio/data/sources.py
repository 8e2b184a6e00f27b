"""Windows of a genome as batches: to train on, to be tested on, to predict for."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tristate.bio.data.bed import Interval
from tristate.bio.data.complement import reverse_complement_ids
from tristate.bio.data.fasta import Genome
from tristate.bio.data.masking import IGNORE, mask_tokens
from tristate.bio.data.tokenize import CharacterTokenizer
from tristate.bio.data.windows import RandomWindows, covered, tile
from tristate.core.seeds import generator as seeded_generator


class Reader:
    """Reads windows of a genome as ids and makes inputs and labels of them.

    Args:
        genome: the sequences.
        tokenizer: makes ids of letters.
        length: ids of an input.
        mask_rate: share of letters to be guessed; None for the next letter.
    """

    def __init__(
        self,
        genome: Genome,
        tokenizer: CharacterTokenizer,
        length: int,
        mask_rate: float | None,
    ) -> None:
        self.genome, self.tokenizer = genome, tokenizer
        self.length, self.mask_rate = length, mask_rate
        self.complement = tokenizer.complement()

    @property
    def n_bases(self) -> int:
        """Bases of a window: the next letter needs one more than the inputs."""
        return self.length + (self.mask_rate is None)

    def ids(self, windows: Sequence[Interval]) -> Tensor:
        """The ids of windows of one length, each as its strand reads it, ``(B, L)`` int64."""
        letters = [self.genome.letters(w.chrom, w.start, w.end) for w in windows]
        ids = self.tokenizer.encode_letters(np.stack(letters))
        minus = torch.tensor([window.strand == "-" for window in windows])
        return torch.where(minus[:, None], reverse_complement_ids(ids, self.complement), ids)

    def masked(self, ids: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Inputs with places to be guessed, and labels there."""
        return mask_tokens(ids, rate=self.mask_rate or 0.0, generator=generator)

    def bases_only(self, labels: Tensor) -> Tensor:
        """Labels without N and what else is no base: bits per base count bases."""
        bases = torch.tensor(self.tokenizer.base_ids)
        return labels.masked_fill(~torch.isin(labels, bases), IGNORE)


class RandomExamples:
    """``count`` windows drawn anew for each epoch.

    Args:
        reader: reads them.
        regions: where to draw.
        count: windows of an epoch.
        both_strands: read every other window on the other strand.

    Raises:
        UserError: no region is as long as a window.
    """

    def __init__(
        self, reader: Reader, regions: Sequence[Interval], count: int, *, both_strands: bool
    ) -> None:
        self.reader, self.count, self.both_strands = reader, count, both_strands
        self.windows = RandomWindows(regions, reader.n_bases)

    def __len__(self) -> int:
        return self.count

    def batch(self, indices: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Inputs and labels, both ``(B, L)`` int64; labels that do not count are -100."""
        windows = self.windows.draw(len(indices), generator)
        if self.both_strands:
            minus = torch.rand(len(windows), generator=generator) < 0.5
            windows = [
                window._replace(strand="-" if other else "+")
                for window, other in zip(windows, minus.tolist(), strict=True)
            ]
        ids = self.reader.ids(windows)
        if self.reader.mask_rate is None:
            return ids[:, :-1], self.reader.bases_only(ids[:, 1:])
        inputs, labels = self.reader.masked(ids, generator)
        return inputs, self.reader.bases_only(labels)


class TiledExamples:
    """Windows side by side, in which every base of some regions is a label once.

    The first base of a region is none where the next letter is guessed: nothing stands before it.
    Masks are a function of the window, so that every evaluation has the same.

    Args:
        reader: reads them.
        regions: what to cover; those shorter than a window are passed over.
    """

    def __init__(self, reader: Reader, regions: Sequence[Interval]) -> None:
        self.reader = reader
        self.tiles = tile(regions, reader.n_bases, overlap=reader.n_bases - reader.length)

    def __len__(self) -> int:
        return len(self.tiles)

    def batch(self, indices: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Inputs and labels, both ``(B, L)`` int64; labels that do not count are -100."""
        tiles = [self.tiles[index] for index in indices.tolist()]
        ids = self.reader.ids([t.interval for t in tiles])
        if self.reader.mask_rate is None:
            inputs, labels = ids[:, :-1], covered(tiles, ids, IGNORE)[:, 1:]
        else:
            draws = [
                self.reader.masked(row, seeded_generator(index))
                for row, index in zip(ids, indices.tolist(), strict=True)
            ]
            inputs = torch.stack([row for row, _ in draws])
            labels = covered(tiles, torch.stack([row for _, row in draws]), IGNORE)
        return inputs, self.reader.bases_only(labels)


class NamedWindows:
    """Intervals of a genome as ``(ids, names)``, filled up on the left where one is shorter.

    Args:
        genome: the sequences.
        tokenizer: makes ids of letters.
        intervals: each is read on its own strand; its name is ``CHROM:START-END(STRAND)``.
    """

    def __init__(
        self, genome: Genome, tokenizer: CharacterTokenizer, intervals: Sequence[Interval]
    ) -> None:
        self.genome, self.tokenizer, self.intervals = genome, tokenizer, intervals

    def __len__(self) -> int:
        return len(self.intervals)

    def batch(self, indices: Tensor, generator: torch.Generator) -> tuple[Tensor, list[str]]:
        """Ids ``(B, L)`` int64 and names."""
        chosen = [self.intervals[index] for index in indices.tolist()]
        texts = [self.genome.fetch(w.chrom, w.start, w.end, w.strand) for w in chosen]
        return self.tokenizer.encode_batch(texts), [str(window) for window in chosen]
