"""Which windows of a genome to learn from and which to be tested on, without a base in common."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tristate.bio.data.bed import Interval
from tristate.core.errors import UserError
from tristate.kernels.registry import nearest

PARTS = ("train", "val", "test")


def split_by_position(
    lengths: Mapping[str, int], *, val_share: float = 0.02, test_share: float = 0.1
) -> dict[str, list[Interval]]:
    """Each sequence cut in three: its end to test on, before it a part to validate on.

    Args:
        lengths: bases of each sequence.
        val_share: share of a sequence that validates.
        test_share: share that tests.

    Returns:
        Part to intervals; what came out empty is left out.
    """
    if min(val_share, test_share) < 0 or val_share + test_share >= 1:
        raise ValueError(
            f"val_share and test_share are shares that leave some, got {val_share} and {test_share}"
        )
    parts: dict[str, list[Interval]] = {part: [] for part in PARTS}
    for chrom, length in lengths.items():
        val = int(length * (1 - test_share - val_share))
        test = int(length * (1 - test_share))
        for part, start, end in zip(PARTS, (0, val, test), (val, test, length), strict=True):
            if start < end:
                parts[part].append(Interval(chrom, start, end))
    return parts


def split_by_chromosome(
    lengths: Mapping[str, int], *, val: Sequence[str], test: Sequence[str]
) -> dict[str, list[Interval]]:
    """Whole sequences to each part: those named to validate and to test on, the others to train.

    Raises:
        UserError: a name is none, or stands in both lists.
    """
    for name in [*val, *test]:
        if name not in lengths:
            raise UserError(f"there is no sequence {name!r}: {nearest(name, lengths)}")
    both = sorted(set(val) & set(test))
    if both:
        raise UserError(f"the sequence {both[0]!r} is both to validate and to test on: choose one")
    parts: dict[str, list[Interval]] = {part: [] for part in PARTS}
    for chrom, length in lengths.items():
        part = "val" if chrom in val else "test" if chrom in test else "train"
        parts[part].append(Interval(chrom, 0, length))
    return parts


def intersect(intervals: Iterable[Interval], regions: Iterable[Interval]) -> list[Interval]:
    """What of each interval lies in ``regions``, which do not overlap."""
    by_chrom: dict[str, list[Interval]] = {}
    for region in regions:
        by_chrom.setdefault(region.chrom, []).append(region)
    found = []
    for interval in intervals:
        for region in by_chrom.get(interval.chrom, []):
            start, end = max(interval.start, region.start), min(interval.end, region.end)
            if start < end:
                found.append(interval._replace(start=start, end=end))
    return found


def require_disjoint(parts: Mapping[str, Sequence[Interval]], where: str) -> None:
    """Refuse a base that lies in two parts.

    Raises:
        UserError: some does; ``where`` begins the sentence.
    """
    rows = [(row.chrom, row.start, row.end, part, row) for part in parts for row in parts[part]]
    # The interval that reaches farthest so far, for each part.
    reach: dict[str, Interval] = {}
    for chrom, start, _, part, row in sorted(rows):
        for other, last in reach.items():
            if other != part and last.chrom == chrom and last.end > start:
                raise UserError(
                    f"{where}:{row.line} ({row}, {part}) overlaps with line {last.line} ({last}, "
                    f"{other}): what is tested on must not be trained on"
                )
        last = reach.get(part)
        if last is None or last.chrom != chrom or last.end < row.end:
            reach[part] = row


class RandomWindows:
    """Windows of one length anywhere in some intervals, every place as likely as any other.

    Args:
        regions: where to draw; those shorter than ``length`` are passed over.
        length: in bases.

    Raises:
        UserError: all of them are shorter.
    """

    def __init__(self, regions: Sequence[Interval], length: int) -> None:
        self.regions = [region for region in regions if region.end - region.start >= length]
        if not self.regions:
            longest = max((region.end - region.start for region in regions), default=0)
            raise UserError(
                f"the longest of {len(regions)} intervals has {longest} bases: windows of {length} "
                "do not fit"
            )
        self.length = length
        places = torch.tensor([row.end - row.start - length + 1 for row in self.regions])
        self._ends = places.cumsum(0)

    def draw(self, count: int, generator: torch.Generator) -> list[Interval]:
        """``count`` windows."""
        places = torch.randint(int(self._ends[-1]), (count,), generator=generator)
        rows = torch.searchsorted(self._ends, places, right=True)
        before = torch.cat([self._ends.new_zeros(1), self._ends])[rows]
        found = []
        for row, offset in zip(rows.tolist(), (places - before).tolist(), strict=True):
            region = self.regions[row]
            start = region.start + offset
            found.append(Interval(region.chrom, start, start + self.length))
        return found


class Tile(NamedTuple):
    """A window of which the first ``seen`` bases belong to the tile before it."""

    interval: Interval
    seen: int


def tile(regions: Iterable[Interval], length: int, overlap: int = 0) -> list[Tile]:
    """Windows side by side that cover the intervals, so that every base counts once.

    The last window of an interval ends where that ends, and has more ``seen`` bases; an interval
    shorter than ``length`` is passed over.

    Args:
        regions: what to cover.
        length: of a window, in bases.
        overlap: bases that a window has in common with the one before.
    """
    found = []
    for region in regions:
        done = region.start
        while done < region.end and region.end - region.start >= length:
            start = min(max(done - overlap, region.start), region.end - length)
            window = Interval(region.chrom, start, start + length)
            found.append(Tile(window, done - start))
            done = window.end
    return found


def covered(tiles: Iterable[Tile], ids: Tensor, ignore: int) -> Tensor:
    """Labels ``(B, L)`` for the letters of ``tiles``: ``ids``, or ``ignore`` where seen before."""
    seen = torch.tensor([t.seen for t in tiles])[:, None]
    return ids.masked_fill(torch.arange(ids.shape[1]) < seen, ignore)
