"""Tokens and windows are those of the originals, id for id."""

import json

import pytest
import torch

from tristate.bio.data.bed import Interval, read_bed
from tristate.bio.data.complement import reverse_complement
from tristate.bio.data.fasta import Genome
from tristate.bio.data.hg38 import (
    CaduceusWindows,
    HyenaDNAWindows,
    caduceus_window,
    hyenadna_window,
)
from tristate.bio.data.tokenize import caduceus_tokenizer, hyenadna_tokenizer


@pytest.fixture(scope="module")
def pipelines(golden):
    return golden / "bio" / "pipelines"


@pytest.fixture(scope="module")
def table(pipelines):
    return lambda name: json.loads((pipelines / f"{name}.json").read_text())


@pytest.fixture(scope="module")
def genome(pipelines, tmp_path_factory):
    path = tmp_path_factory.mktemp("genome") / "tiny.fa"
    path.write_bytes((pipelines / "tiny.fa").read_bytes())
    return Genome(path)


@pytest.fixture(scope="module")
def part(pipelines, genome):
    rows = read_bed(pipelines / "tiny.bed", genome.lengths)
    return lambda name: [row for row in rows if row.name == name]


@pytest.mark.parametrize("flavour", ["repo", "standalone"])
def test_hyenadna_tokens(table, flavour):
    tokenizer = hyenadna_tokenizer(standalone=flavour == "standalone")
    wanted = table("hyenadna_tokenizer")[flavour]
    assert tokenizer.vocabulary == wanted["vocab"]
    assert tokenizer.vocab_size == wanted["vocab_size"]
    length = wanted["max_length"]
    for case in wanted["cases"]:
        text = case["text"]
        padded = tokenizer.encode(text, max_length=length)
        assert tokenizer.encode(text).tolist() == case["ids_special"]
        assert tokenizer.encode(text, special=False).tolist() == case["ids_no_special"]
        plain = tokenizer.encode(text, special=False, max_length=length)
        assert plain.tolist() == case["padded"]
        assert padded.tolist() == case["padded_special"]
        assert (padded != tokenizer.pad_id).long().tolist() == case["attention_mask"]
    named = wanted["special_in_text"]
    assert tokenizer.encode(named["text"], special=False).tolist() == named["ids"]


def test_caduceus_tokens(table):
    tokenizer, wanted = caduceus_tokenizer(), table("caduceus_tokenizer")
    assert tokenizer.vocabulary == wanted["vocab"]
    assert tokenizer.vocab_size == wanted["vocab_size"]
    assert tokenizer.complement().tolist() == list(wanted["complement_map"].values())
    assert tokenizer.complement(16).tolist() == wanted["complement_map_padded_to_16"]
    for name in ("bos", "sep", "cls", "pad", "mask", "unk"):
        assert getattr(tokenizer, f"{name}_id") == wanted["special"][name]
    for case in wanted["cases"]:
        text, ids = case["text"], tokenizer.encode(case["text"])
        assert tokenizer.tokens(text) == case["tokens"]
        assert ids.tolist() == case["ids_special"]
        assert tokenizer.encode(text, special=False).tolist() == case["ids_no_special"]
        for key, special in (("padded", False), ("padded_special", True)):
            length = case[key]["max_length"]
            padded = tokenizer.encode(text, special=special, max_length=length)
            assert padded.tolist() == case[key]["input_ids"]
        assert tokenizer.decode(ids) == case["decode"]
        assert tokenizer.decode(ids, skip_special=True) == case["decode_skip"]
    named = wanted["special_in_text"]
    assert tokenizer.tokens(named["text"]) == named["tokens"]
    assert tokenizer.encode(named["text"], special=False).tolist() == named["ids"]
    batch = wanted["batch_longest"]
    assert tokenizer.encode_batch(batch["texts"]).tolist() == batch["input_ids"]


def test_reverse_complement_of_text(table):
    cases = [(case["text"], case["rc_string"]) for case in table("caduceus_tokenizer")["cases"]]
    cases += [(case["text"], case["rc"]) for case in table("hyenadna_tokenizer")["rc_string"]]
    for text, wanted in cases:
        assert reverse_complement(text, iupac=False) == wanted


def test_genomic_benchmarks_sequences(table, genome):
    wanted = table("genomic_benchmarks_loc2seq")
    assert genome.lengths == wanted["regions"]
    for row in wanted["rows"]:
        found = genome.fetch(row["region"], row["start"], row["end"], row["strand"])
        assert found == row["seq"]
    for case in wanted["rev"]:
        assert case["plus"] == case["text"]
        assert reverse_complement(case["text"]) == case["minus"]


def test_hyenadna_windows(table, genome, part):
    wanted = table("hyenadna_hg38")
    for row in wanted["interval"]:
        interval = Interval(row["chr"], row["start"], row["end"])
        assert hyenadna_window(genome, interval, row["max_length"]) == row["seq"]
        padded = hyenadna_window(genome, interval, row["max_length"], pad=True)
        assert padded == row["seq_pad_interval"]
    for item in wanted["dataset"]:
        windows = HyenaDNAWindows(
            genome,
            part(item["split"]),
            item["max_length"],
            eos=item["add_eos"],
            ignore_n=item["replace_N_token"],
            pad=item["pad_interval"],
        )
        inputs, labels = windows[item["idx"]]
        assert inputs.tolist() == item["data"]
        assert labels.tolist() == item["target"]


def test_caduceus_windows(table, genome, part):
    wanted = table("caduceus_hg38")
    for row in wanted["interval"]:
        interval = Interval(row["chr"], row["start"], row["start"] + 1)
        found = caduceus_window(genome, interval, row["max_length"], row["i_shift"])
        assert found == row["seq"]
    for item in wanted["dataset"]:
        windows = CaduceusWindows(
            genome,
            part(item["split"]),
            item["max_length"],
            eos=item["add_eos"],
            mask_rate=0.15 if item["mlm"] else None,
        )
        assert len(windows) == item["len"]
        torch.manual_seed(item["torch_seed"])
        inputs, labels = windows[item["idx"]]
        assert inputs.tolist() == item["data"]
        assert labels.tolist() == item["target"]
