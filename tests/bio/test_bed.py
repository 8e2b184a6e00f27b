"""Intervals are those of the file; a line that is none is told by its number."""

import gzip

import pytest

from tristate.bio.data.bed import Interval, read_bed
from tristate.core.errors import UserError

LENGTHS = {"chr1": 100, "chr2": 50}


def test_columns(write):
    text = (
        "# comment\ntrack name=x\n\nchr1\t0\t100\nchr2\t5\t9\tpeak\t0\t-\r\nchr2\t5\t9\tp\t0\t.\n"
    )
    wanted = [
        Interval("chr1", 0, 100, line=4),
        Interval("chr2", 5, 9, "peak", "-", line=5),
        Interval("chr2", 5, 9, "p", "+", line=6),
    ]
    assert read_bed(write("a.bed", text), LENGTHS) == wanted
    assert read_bed(write("a.bed.gz", gzip.compress(text.encode())), LENGTHS) == wanted


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("chr1\t90\t101", r"a\.bed:2 reaches from 90 to 101: chr1 has 100 bases"),
        ("chr3\t0\t1", r"a\.bed:2 names the sequence 'chr3': did you mean chr"),
        ("chr1\t5\t5", r"a\.bed:2 reaches from 5 to 5: wanted 0 <= start < end"),
        ("chr1\t-1\t5", r"a\.bed:2 reaches from -1 to 5"),
        ("chr1\tx\t5", r"a\.bed:2 has no whole numbers in 'x' and '5'"),
        ("chr1 0 5", r"a\.bed:2 has 1 columns"),
        ("chr1\t0\t5\tn\t0\tplus", r"a\.bed:2 has the strand 'plus'"),
    ],
)
def test_line_that_is_no_interval(write, line, sentence):
    with pytest.raises(UserError, match=sentence):
        read_bed(write("a.bed", f"chr1\t0\t1\n{line}\n"), LENGTHS)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("", "is empty"), ("#\n", "holds no interval"), (b"chr1\t0\t1\n\xff\n", ":2 is no text")],
)
def test_file_without_intervals(write, text, sentence):
    with pytest.raises(UserError, match=sentence):
        read_bed(write("a.bed", text))


def test_draft_genome_names_few(write):
    lengths = {f"scaffold_{i}": 9 for i in range(5000)}
    with pytest.raises(UserError) as caught:
        read_bed(write("a.bed", "scafold_77\t0\t1\n"), lengths)
    assert "scaffold_77" in str(caught.value)
    assert len(str(caught.value)) < 300
