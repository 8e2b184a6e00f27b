"""The windows that HyenaDNA and Caduceus cut out of the human genome, item for item.

Both go by a list of intervals, in BED with the part of the data in the fourth column, and cut
windows of one length by rules of their own.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from tristate.bio.data.bed import Interval
from tristate.bio.data.fasta import Genome
from tristate.bio.data.masking import mask_tokens
from tristate.bio.data.tokenize import VOCABULARY, caduceus_tokenizer, hyenadna_tokenizer
from tristate.core.errors import UserError

CADUCEUS_SPAN = 2**20  # bases of each of Caduceus' intervals, whatever its end


def hyenadna_window(
    genome: Genome, interval: Interval, max_length: int, *, pad: bool = False
) -> str:
    """HyenaDNA's window: the beginning of a long interval, or a short one with what is around it.

    A short interval is widened on both sides, on the right by one more where that is odd, and cut
    where the sequence ends.

    Args:
        genome: the sequences.
        interval: where to cut.
        max_length: in bases.
        pad: fill up with ``.`` what lies beyond the ends.
    """
    chrom, start, end = interval[:3]
    extra = max_length - (end - start)
    start, end = (start, start + max_length) if extra < 0 else (start - extra // 2, end + extra)
    end = min(end, start + max_length)
    length = genome.lengths[chrom]
    sequence = genome.fetch(chrom, max(start, 0), min(end, length))
    if pad:
        sequence = "." * max(0, -start) + sequence + "." * max(0, end - length)
    return sequence


def caduceus_window(genome: Genome, interval: Interval, max_length: int, shift: int) -> str:
    """Caduceus' window: the ``shift``-th of its interval, moved down where the sequence ends.

    Raises:
        UserError: the sequence is shorter than ``max_length``.
    """
    length = genome.lengths[interval.chrom]
    if length < max_length:
        raise UserError(
            f"{interval.chrom} in {genome.path} has {length} bases: fewer than the {max_length} "
            "of a window"
        )
    start = min(interval.start + shift * max_length, length - max_length)
    return genome.fetch(interval.chrom, start, start + max_length)


class HyenaDNAWindows:
    """HyenaDNA's items ``(inputs, next ids)``, one for each interval.

    Args:
        genome: the sequences, in the case of the file.
        intervals: those of one part of the data.
        max_length: in ids, before the shift by one.
        eos: end each window with ``[SEP]``.
        ignore_n: give ``[PAD]`` for N, which the loss passes over.
        pad: fill up with ``.``, which becomes ``[UNK]``, beyond the ends; else ``[PAD]`` stands on
            the left.
    """

    def __init__(
        self,
        genome: Genome,
        intervals: Sequence[Interval],
        max_length: int,
        *,
        eos: bool = False,
        ignore_n: bool = False,
        pad: bool = False,
    ) -> None:
        self.genome, self.intervals, self.max_length = genome, intervals, max_length
        self.eos, self.ignore_n, self.pad = eos, ignore_n, pad
        self.tokenizer = hyenadna_tokenizer()

    def __len__(self) -> int:
        return len(self.intervals)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        text = hyenadna_window(self.genome, self.intervals[index], self.max_length, pad=self.pad)
        ids = self.tokenizer.encode(text, special=self.eos, max_length=self.max_length)
        if self.ignore_n:
            ids = ids.masked_fill(ids == VOCABULARY["N"], self.tokenizer.pad_id)
        return ids[:-1], ids[1:]


class CaduceusWindows:
    """Caduceus' items ``(inputs, labels)``: each interval stands for 2**20 bases, cut up evenly.

    Args:
        genome: the sequences.
        intervals: those of one part of the data.
        max_length: in bases; divides 2**20.
        eos: end each window with ``[SEP]``.
        mask_rate: share of letters to be guessed, drawn from PyTorch's own generator; None for the
            next letter. Labels that do not count are ``[PAD]``, and N is ``[PAD]`` everywhere.

    Raises:
        ValueError: ``max_length`` does not divide 2**20.
    """

    def __init__(
        self,
        genome: Genome,
        intervals: Sequence[Interval],
        max_length: int,
        *,
        eos: bool = False,
        mask_rate: float | None = None,
    ) -> None:
        if CADUCEUS_SPAN % max_length:
            raise ValueError(f"max_length must divide {CADUCEUS_SPAN}, got {max_length}")
        self.genome, self.intervals, self.max_length = genome, intervals, max_length
        self.eos, self.mask_rate = eos, mask_rate
        self.tokenizer = caduceus_tokenizer()

    def __len__(self) -> int:
        return len(self.intervals) * (CADUCEUS_SPAN // self.max_length)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        row, shift = divmod(index, CADUCEUS_SPAN // self.max_length)
        text = caduceus_window(self.genome, self.intervals[row], self.max_length, shift)
        ids = self.tokenizer.encode(text, special=self.eos)
        pad = self.tokenizer.pad_id
        ids = torch.where(ids == VOCABULARY["N"], pad, ids)
        if self.mask_rate is None:
            return ids[:-1], ids[1:]
        letters = ids[:-1] if self.eos else ids
        return mask_tokens(letters, rate=self.mask_rate, ignore=pad)
