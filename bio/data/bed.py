"""BED: intervals of a genome, one a line."""

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from tristate.bio.data.files import read_lines
from tristate.core.errors import UserError
from tristate.kernels.registry import nearest


class Interval(NamedTuple):
    """Bases ``start`` to ``end`` of a sequence, 0-based and half-open.

    Attributes:
        chrom: name of the sequence.
        start: first base.
        end: the base after the last.
        name: BED's fourth column: in lists of training windows the part it belongs to.
        strand: ``"+"`` or ``"-"``.
        line: where it stands in its file, 0 where it comes from none.
    """

    chrom: str
    start: int
    end: int
    name: str = ""
    strand: str = "+"
    line: int = 0

    def __str__(self) -> str:
        return f"{self.chrom}:{self.start}-{self.end}({self.strand})"


def read_bed(path: str | Path, lengths: Mapping[str, int] | None = None) -> list[Interval]:
    """The intervals in a BED file, plain or compressed, in the order of its lines.

    Columns are chromosome, start, end and, where there are so many, name, score (which is
    ignored) and strand (``.`` counts as ``+``), with tabs between them. Comments and the lines of
    genome browsers are passed over.

    Args:
        path: the file.
        lengths: length of each sequence in bases; intervals have to lie inside.

    Raises:
        UserError: the file is missing or empty, or a line is no interval or lies outside, with
            its number.
    """
    found = []
    for number, line in read_lines(path):
        if line.startswith(("#", "track ", "browser ")):
            continue
        found.append(_interval(line.rstrip("\r\n").split("\t"), f"{path}:{number}", number))
        if lengths is not None:
            require_inside(found[-1], lengths, f"{path}:{number}")
    if not found:
        raise UserError(f"{path} holds no interval")
    return found


def _interval(columns: list[str], where: str, line: int) -> Interval:
    if len(columns) < 3:
        raise UserError(
            f"{where} has {len(columns)} columns: wanted chromosome, start and end with tabs "
            "between them"
        )
    chrom, first, last, *more = columns
    try:
        start, end = int(first), int(last)
    except ValueError as error:
        raise UserError(f"{where} has no whole numbers in {first!r} and {last!r}") from error
    if not 0 <= start < end:
        raise UserError(f"{where} reaches from {start} to {end}: wanted 0 <= start < end")
    strand = more[2].strip() if len(more) > 2 else "+"
    if strand not in ("+", "-", "."):
        raise UserError(f"{where} has the strand {strand!r}: wanted +, - or .")
    name = more[0].strip() if more else ""
    return Interval(chrom, start, end, name, "-" if strand == "-" else "+", line)


def require_inside(interval: Interval, lengths: Mapping[str, int], where: str) -> None:
    """Refuse an interval that is not on one of the sequences; ``where`` begins the sentence.

    Raises:
        UserError: there is no such sequence, or it is shorter.
    """
    chrom, start, end = interval[:3]
    if chrom not in lengths:
        # Draft genomes have thousands of sequences.
        known = lengths if len(lengths) <= 20 else get_close_matches(chrom, lengths, 3, 0.6)
        raise UserError(f"{where} names the sequence {chrom!r}: {nearest(chrom, known)}")
    if not 0 <= start <= end <= lengths[chrom]:
        raise UserError(
            f"{where} reaches from {start} to {end}: {chrom} has {lengths[chrom]} bases"
        )
