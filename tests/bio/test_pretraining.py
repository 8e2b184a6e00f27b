"""What a model is pretrained on: the right letters, once each, the same after a restart."""

import numpy as np
import pytest
import torch

from tests.bio.conftest import wrap
from tristate.bio.data.complement import reverse_complement_ids
from tristate.bio.data.ecoli_windows import EcoliWindows
from tristate.bio.data.genome_windows import GenomeWindows
from tristate.core.errors import UserError


def clean(length: int, seed: int) -> str:
    return "".join(np.random.default_rng(seed).choice(list("ACGT"), length))


@pytest.fixture
def genome(write):
    return write(
        "genome.fa", wrap({"one": clean(3000, 1), "two": clean(700, 2), "x": clean(40, 3)})
    )


def ready(*args, **kwargs) -> GenomeWindows:
    data = GenomeWindows(*args, **{"length": 50, "seed": 5, "windows_per_epoch": 64, **kwargs})
    data.setup("fit")
    return data


def joined(loader) -> tuple[torch.Tensor, torch.Tensor]:
    batches = list(loader)
    return torch.cat([b[0] for b in batches]), torch.cat([b[1] for b in batches])


def test_next_letter(genome):
    inputs, labels = joined(ready(genome).train_dataloader())
    assert inputs.shape == labels.shape == (64, 50)
    assert labels[:, :-1].equal(inputs[:, 1:])
    assert set(inputs.flatten().tolist()) == {7, 8, 9, 10}


@pytest.mark.parametrize("both", [True, False])
def test_training_windows_come_from_their_part_and_strand(genome, both):
    data = ready(genome, both_strands=both, val_share=0.2, test_share=0.3)
    texts = {row: data.genome.fetch(row.chrom, row.start, row.end) for row in data.regions["train"]}
    tokenizer, plus = data.tokenizer, 0
    inputs, _ = joined(data.train_dataloader())
    for ids in inputs:
        other = reverse_complement_ids(ids, tokenizer.complement())
        found = [
            any(tokenizer.decode(strand) in text for text in texts.values())
            for strand in (ids, other)
        ]
        assert any(found)
        plus += found[0]
    assert 12 < plus < 52 if both else plus == 64


@pytest.mark.parametrize("mask_rate", [None, 0.15])
def test_evaluation_counts_every_base_once(genome, mask_rate):
    data = ready(genome, mask_rate=mask_rate, batch_size=7)
    regions = [row for row in data.regions["test"] if row.end - row.start > 50]
    inputs, labels = joined(data.test_dataloader())
    counted = int((labels != -100).sum())
    total = sum(row.end - row.start for row in regions)
    if mask_rate is None:
        assert counted == total - len(regions)
    else:
        assert 0.05 * total < counted < 0.25 * total
        places = labels != -100
        assert (inputs[places] == data.tokenizer.mask_id).float().mean() > 0.5
    again = joined(ready(genome, mask_rate=mask_rate, batch_size=3, seed=9).test_dataloader())
    assert inputs.equal(again[0]) and labels.equal(again[1])


def test_masked_letters(genome):
    data = ready(genome, mask_rate=0.3, windows_per_epoch=400)
    inputs, labels = joined(data.train_dataloader())
    places = labels != -100
    assert inputs.shape == (400, 50)
    assert abs(places.float().mean().item() - 0.3) < 0.02
    assert set(labels[places].tolist()) == {7, 8, 9, 10}


def test_letters_that_are_no_base_are_no_labels(write):
    path = write("n.fa", ">a\n" + "ACGTNNRYacgtnnry" * 40 + "\n")
    for loader in (ready(path).train_dataloader(), ready(path).test_dataloader()):
        inputs, labels = joined(loader)
        assert set(inputs.flatten().tolist()) == {6, 7, 8, 9, 10, 11}
        assert set(labels.flatten().tolist()) == {-100, 7, 8, 9, 10}


def test_epochs_follow_seed_and_epoch(genome):
    def epochs(**kwargs):
        loader = ready(genome, **kwargs).train_dataloader()
        found = []
        for epoch in range(2):
            loader.set_epoch(epoch)
            found.append(joined(loader)[0])
        return found

    first, second = epochs()
    assert not first.equal(second)
    again = epochs(workers=2)
    assert first.equal(again[0]) and second.equal(again[1])
    assert not first.equal(epochs(seed=6)[0])


def test_parts_of_the_bed_file(genome, write):
    rows = "one\t0\t900\ttrain\none\t900\t1000\tvalid\none\t1000\t1100\ttest\n"
    data = ready(genome, bed=write("parts.bed", rows))
    assert [len(data.regions[part]) for part in ("train", "val", "test")] == [1, 1, 1]
    wrong = write("leak.bed", rows + "one\t1050\t1200\ttrain\n")
    with pytest.raises(UserError, match=r"leak\.bed:4 .* overlaps with line 3 .*not be trained on"):
        ready(genome, bed=wrong)
    with pytest.raises(UserError, match=r"odd\.bed:4 names the part 'tests'"):
        ready(genome, bed=write("odd.bed", rows + "one\t1200\t1300\ttests\n"))


def test_bed_file_chooses_what_is_used(genome, write):
    bed = write("genes.bed", "one\t100\t200\tgeneA\none\t2650\t2750\tgeneB\ntwo\t0\t99\tgeneC\n")
    data = ready(genome, bed=bed, test_chroms=["two"])
    assert [(r.chrom, r.start, r.end) for r in data.regions["test"]] == [("two", 0, 99)]
    assert [(r.start, r.end) for r in data.regions["train"]] == [(100, 200), (2650, 2750)]
    cut = ready(genome, bed=bed)
    assert [(r.chrom, r.start, r.end) for r in cut.regions["test"]] == [("one", 2700, 2750)]
    with pytest.raises(UserError, match="no interval of the part 'test' .* holds a window of 51"):
        cut.test_dataloader()
    with pytest.raises(UserError, match="nothing of .* is in the part 'val'"):
        data.val_dataloader()


def test_predict(genome, write):
    data = ready(genome, predict_bed=write("p.bed", "two\t3\t9\tn\t0\t-\none\t0\t4\n"))
    ids, names = next(iter(data.predict_dataloader()))
    assert names == ["two:3-9(-)", "one:0-4(+)"]
    assert data.tokenizer.decode(ids[0]) == data.genome.fetch("two", 3, 9, "-")
    assert data.tokenizer.decode(ids[1]) == "[PAD][PAD]" + data.genome.fetch("one", 0, 4)
    ids, names = next(iter(ready(genome).predict_dataloader()))
    assert ids.shape == (8, 50) and names[0] == "one:2700-2750(+)"
    outside = ready(genome, predict_bed=write("o.bed", "two\t3\t701\n"))
    with pytest.raises(UserError, match=r"o\.bed:1 reaches from 3 to 701: two has 700 bases"):
        outside.predict_dataloader()


def test_numbers_out_of_range(genome):
    for wrong in ({"length": 0}, {"windows_per_epoch": 0}, {"mask_rate": 0.0}, {"batch_size": 0}):
        with pytest.raises(ValueError, match="must be|is a share"):
            ready(genome, **wrong)


def test_ecoli():
    data = EcoliWindows(length=512, batch_size=4, windows_per_epoch=8, seed=0)
    assert data.facts["vocab_size"] == 12 and data.facts["max_length"] == 512
    assert not data.facts["masked"] and EcoliWindows(mask_rate=0.15).facts["masked"]
    data.setup("fit")
    assert data.genome.lengths == {"K-12-MG1655": 4639675}
    test = data.regions["test"][0]
    assert (test.start, test.end) == (4175707, 4639675)
    assert data.regions["val"][0].end == test.start
    counted = sum(int((labels != -100).sum()) for _, labels in data.test_dataloader())
    assert counted == test.end - test.start - 1
    assert len(list(data.train_dataloader())) == 2
