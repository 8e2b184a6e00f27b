"""Windows to learn from and to be tested on have no base in common, and cover what they should."""

import pytest
import torch

from tristate.bio.data.bed import Interval
from tristate.bio.data.windows import (
    RandomWindows,
    covered,
    intersect,
    require_disjoint,
    split_by_chromosome,
    split_by_position,
    tile,
)
from tristate.core.errors import UserError

LENGTHS = {"a": 1000, "b": 77, "c": 3}


def bases(intervals) -> list[tuple[str, int]]:
    return [(row.chrom, at) for row in intervals for at in range(row.start, row.end)]


def test_split_by_position_covers_everything_once():
    parts = split_by_position(LENGTHS, val_share=0.1, test_share=0.2)
    found = sorted(base for rows in parts.values() for base in bases(rows))
    assert found == [(name, at) for name, length in LENGTHS.items() for at in range(length)]
    require_disjoint(parts, "x")
    assert parts["test"][0] == Interval("a", 800, 1000)
    assert parts["val"][0] == Interval("a", 700, 800)


def test_split_by_chromosome():
    parts = split_by_chromosome(LENGTHS, val=["b"], test=["c"])
    assert [row.chrom for rows in parts.values() for row in rows] == ["a", "b", "c"]
    require_disjoint(parts, "x")
    with pytest.raises(UserError, match="there is no sequence 'd'"):
        split_by_chromosome(LENGTHS, val=["d"], test=[])
    with pytest.raises(UserError, match="'b' is both"):
        split_by_chromosome(LENGTHS, val=["b"], test=["b"])


@pytest.mark.parametrize("shares", [(-0.1, 0.1), (0.5, 0.5)])
def test_shares_leave_some(shares):
    with pytest.raises(ValueError, match="shares that leave some"):
        split_by_position(LENGTHS, val_share=shares[0], test_share=shares[1])


def test_intersect():
    rows = [Interval("a", 10, 30, "n", "-", 7), Interval("b", 0, 5), Interval("d", 0, 5)]
    found = intersect(rows, [Interval("a", 0, 20), Interval("a", 25, 28), Interval("b", 5, 9)])
    assert found == [Interval("a", 10, 20, "n", "-", 7), Interval("a", 25, 28, "n", "-", 7)]


@pytest.mark.parametrize(
    "other", [Interval("a", 0, 11), Interval("a", 19, 30), Interval("a", 12, 13)]
)
def test_overlap_is_refused(other):
    parts = {"train": [Interval("a", 10, 20, line=1), Interval("b", 0, 9)], "test": [other]}
    with pytest.raises(UserError, match="must not be trained on"):
        require_disjoint(parts, "x.bed")


def test_neighbours_and_overlaps_within_a_part_are_fine():
    train = [Interval("a", 10, 20), Interval("a", 0, 15), Interval("b", 0, 30)]
    require_disjoint({"train": train, "test": [Interval("a", 20, 30), Interval("c", 0, 3)]}, "x")


def test_random_windows_lie_inside_and_reach_every_place():
    regions = [Interval("a", 10, 16), Interval("b", 0, 3), Interval("b", 20, 24)]
    windows = RandomWindows(regions, 4).draw(4000, torch.Generator().manual_seed(0))
    starts = [(w.chrom, w.start) for w in windows]
    assert all(w.end - w.start == 4 for w in windows)
    wanted = [("a", 10), ("a", 11), ("a", 12), ("b", 20)]
    assert sorted(set(starts)) == wanted
    # Each of four places, within five standard deviations.
    assert all(abs(starts.count(place) - 1000) < 137 for place in wanted)


def test_windows_that_do_not_fit():
    with pytest.raises(UserError, match="the longest of 1 intervals has 3 bases: windows of 4"):
        RandomWindows([Interval("b", 0, 3)], 4)


@pytest.mark.parametrize("overlap", [0, 1, 3])
@pytest.mark.parametrize("end", [8, 9, 15, 16, 17, 40])
def test_tiles_count_every_base_once(end, overlap):
    tiles = tile([Interval("a", 0, end), Interval("a", 50, 57)], 8, overlap)
    seen = [at for t in tiles for at in range(t.interval.start + t.seen, t.interval.end)]
    assert seen == list(range(end))
    assert all(t.interval.start >= 0 and t.interval.end <= end for t in tiles)
    assert all(t.seen >= overlap for t in tiles[1:])


def test_labels_of_tiles():
    tiles = tile([Interval("a", 0, 6)], 4)
    ids = torch.tensor([[7, 8, 9, 10], [9, 10, 7, 8]])
    assert covered(tiles, ids, -1).tolist() == [[7, 8, 9, 10], [-1, -1, 7, 8]]
