"""GenBank files, and the coding and intergenic windows that are cut from one."""

from pathlib import Path

import pytest
import torch

from tests.bio.records import annotated, genbank, letters
from tristate.bio.data.coding import CodingWindows, intergenic_windows
from tristate.bio.data.coding_baseline import counts
from tristate.bio.data.genbank import Feature, Record, read_genbank
from tristate.core.errors import UserError


@pytest.fixture
def path(tmp_path) -> Path:
    return annotated(tmp_path / "genome.gbk", 200)


def test_a_record_reads_as_it_was_written(tmp_path):
    path, sequence = tmp_path / "a.gb", letters(100, 0)
    places = [("CDS", "complement(join(71..90,\n                     11..>30))"), ("misc", "5")]
    path.write_text(genbank("x", sequence, places))
    (record,) = read_genbank(path)
    assert record == Record(
        "x",
        sequence,
        [Feature("CDS", [(10, 30), (70, 90)], True), Feature("misc", [(4, 5)], False)],
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (">x\nACGT\n", r"a\.gb:1 must begin with LOCUS, got '>x'"),
        (genbank("x", "ACGT", [("CDS", "1..9")]), r"a\.gb:4 has a CDS at '1\.\.9', but x has 4"),
        (genbank("x", "ACGT", [("CDS", "1..y")]), r"a\.gb:4 has a CDS at '1\.\.y': wanted START"),
        (genbank("x", "", []), r"a\.gb:6 ends the record x, which has no letters"),
        (genbank("x", "ACGT", [])[:-3], r"a\.gb:5 ends inside of the record x"),
        (genbank("x", "ACGT", [])[:-3] + genbank("y", "A", []), r"a\.gb:6 begins a record inside"),
    ],
)
def test_a_bad_file_is_one_sentence(text, message, tmp_path):
    path = tmp_path / "a.gb"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        list(read_genbank(path))


def test_no_window_lies_where_another_class_is(path):
    data = CodingWindows(str(path), length=20, seed=0)
    for part, wanted in (("train", 9), ("test", 2)):
        rows, records = data.read(part), {r.name: r for r in read_genbank(path)}
        coding = [row for row in rows if row.label == "coding"]
        # Four windows code in each contig, and 1 + 2 + 1 + 1 lie between its genes.
        assert len(coding) == len(rows) - len(coding) == 4 * wanted
        assert len({row.group for row in rows}) == wanted
        for row in rows:
            at = records[row.group].sequence.index(row.sequence)
            genes = [(20, 60), (100, 140), (170, 171)]
            inside = any(start <= at and at + 20 <= end for start, end in genes)
            outside = all(at + 20 <= start or end <= at for start, end in genes)
            assert (inside, outside) == ((True, False) if row.label == "coding" else (False, True))


def test_contigs_are_not_shared(path):
    data = CodingWindows(str(path), length=20, seed=0)
    train, test = ({row.group for row in data.read(part)} for part in ("train", "test"))
    assert test == {"c5", "c10"} and not train & test


def test_too_long_windows_are_refused(path):
    with pytest.raises(UserError, match=r"has 0 coding windows of 150 bases .* may fit"):
        CodingWindows(str(path), length=150)


def test_overlapping_features_leave_no_gap():
    record = Record("x", "A" * 50, [Feature("CDS", [(0, 30)], False), Feature("x", [(5, 9)], True)])
    assert len(intergenic_windows(record, 20)) == 1


def test_counts_of_four_letters():
    codes = torch.tensor([[0, 0, 0, 0, 0, 1], [0, 1, 2, 3, -1, 0]])
    found = counts(codes)
    assert found.shape == (2, 256)
    assert found[0, 0] == 2 and found[0, 1] == 1 and found[0].sum() == 3
    assert found[1, 0b00011011] == 1 and found[1].sum() == 1
