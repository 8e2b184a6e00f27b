"""A genome is what its letters are, in whatever form the file comes."""

import gzip
import os
import pickle

import numpy as np
import pytest

from tristate.bio.data import fasta as module
from tristate.bio.data.complement import reverse_complement
from tristate.bio.data.fasta import Genome, write_fasta
from tristate.core.errors import UserError


def test_fetch_is_slicing(fasta, records):
    genome = Genome(fasta)
    assert genome.lengths == {name: len(sequence) for name, sequence in records.items()}
    draw = np.random.default_rng(0)
    for name, sequence in records.items():
        assert genome.fetch(name) == sequence
        assert genome.fetch(name, 0, 0) == ""
        for _ in range(50):
            start, end = sorted(draw.integers(0, len(sequence) + 1, 2).tolist())
            assert genome.fetch(name, start, end) == sequence[start:end]
            other = genome.fetch(name, start, end, "-")
            assert other == reverse_complement(sequence[start:end])


def test_folding(fasta, records):
    folded = Genome(fasta, fold_case=True, fold_iupac=True).fetch("chr1")
    assert folded == "".join(c if c in "ACGTN" else "N" for c in records["chr1"].upper())
    assert Genome(fasta, fold_case=True).fetch("chr1") == records["chr1"].upper()
    kept = Genome(fasta, fold_iupac=True).fetch("chr1")
    assert kept == "".join(
        c if c in "ACGTNacgtn" else "n" if c.islower() else "N" for c in records["chr1"]
    )


def test_travels_to_another_process(fasta, records):
    genome = pickle.loads(pickle.dumps(Genome(fasta, fold_case=True)))
    assert genome.fetch("chr3", 5, 80) == records["chr3"][5:80].upper()


def test_write_and_read(records, write):
    assert Genome(write("a.fa", write_fasta(records))).fetch("chr1") == records["chr1"]


def test_index_is_kept_and_follows_the_file(write, tmp_path):
    path = write("a.fa", ">x\nACGT\n")
    assert Genome(path).lengths == {"x": 4}
    index = tmp_path / "a.fa.fai"
    assert index.read_text().split() == ["x", "4", "3", "4", "5"]
    os.utime(path, (1, 1))
    before = index.stat().st_mtime_ns
    assert Genome(path).fetch("x") == "ACGT"
    assert index.stat().st_mtime_ns == before
    write("a.fa", ">y\nACGTA\nCC\n")
    os.utime(index, (1, 1))
    assert Genome(path).fetch("y") == "ACGTACC"


def test_the_name_does_not_decide(write):
    assert Genome(write("a.fa.gz", ">x\nACGT\n")).fetch("x") == "ACGT"
    assert Genome(write("a.txt", gzip.compress(b">x\nACGT\n", mtime=0))).fetch("x") == "ACGT"


def test_index_of_another_file(write):
    write("a.fa.fai", "x\t6\t3\t6\t7\n")
    path = write("a.fa", ">x\nAC\n>y\nGGG\n")
    os.utime(path, (1, 1))
    genome = Genome(path)
    assert genome.lengths == {"x": 2, "y": 3} and genome.fetch("y") == "GGG"


def test_folder_that_cannot_be_written(write, tmp_path, monkeypatch):
    path = write("a.fa", ">x\nACGT\n")
    monkeypatch.setattr(module.os, "access", lambda *_: False)
    assert Genome(path).fetch("x", 1, 3) == "CG"
    assert [p.name for p in tmp_path.iterdir()] == ["a.fa"]


@pytest.mark.parametrize("chunk", [7, 1 << 24])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_letter_that_is_no_base(write, monkeypatch, chunk, pack):
    monkeypatch.setattr(module, "_CHUNK", chunk)
    path = write("a.fa", pack(b">x\nACGTAC\nACGTAC\n>y\nACGTAC\nACGTEC\nAC\n"))
    with pytest.raises(UserError, match=r"a\.fa:6 holds 'E', which is no base"):
        Genome(path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        ("ACGT\n", r":1 begins with 'ACGT': FASTA begins with >"),
        ("\n\nx>\n", r":3 begins with 'x>'"),
        (">a\nAC\n>b\n", r":3 has no bases for 'b'"),
        (">a\n>b\nAC\n", r":1 has no bases for 'a'"),
        (">a\nAC\n>a more\nAC\n", r":3 names 'a'"),
        (">\nAC\n", r":1 names nothing"),
        (gzip.compress(b">a\nAC\n", mtime=0)[:-9], "is damaged"),
        (b">a\nAC\xff\n", r":2 holds '\xff'"),
        (b">a", r":1 has no bases"),
    ],
)
def test_what_is_no_fasta(write, text, sentence):
    with pytest.raises(UserError, match=sentence):
        Genome(write("a.fa", text))


def test_missing_and_folder(tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        Genome(tmp_path / "none.fa")
    with pytest.raises(UserError, match="is a folder"):
        Genome(tmp_path)


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        (("chr", 0, 1), "names the sequence 'chr': did you mean chr"),
        (("chr2", 50, 61), "reaches from 50 to 61: chr2 has 60 bases"),
        (("chr2", -1, 4), "reaches from -1 to 4"),
        (("chr2", 5, 4), "reaches from 5 to 4"),
    ],
)
def test_beyond_the_sequence(fasta, place, sentence):
    with pytest.raises(UserError, match=sentence):
        Genome(fasta).fetch(*place)


def test_strand_is_plus_or_minus(fasta):
    with pytest.raises(ValueError, match="strand must be"):
        Genome(fasta).fetch("chr2", 0, 4, ".")
