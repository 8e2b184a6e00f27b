"""Clips of a manifest as a data module, and as a recipe names it."""

import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningDataModule

from tests.audio.sounds import noise, write
from tristate.audio.data.clips import Clips
from tristate.audio.data.transforms import Chain, Fit, LogMel, Shift
from tristate.core.errors import UserError


@pytest.fixture
def manifests(tmp_path):
    paths = {}
    for part, count in {"train": 8, "val": 2, "test": 4}.items():
        rows = ["path,start,end,label"]
        for index in range(count):
            name = f"{part}{index}.wav"
            write(tmp_path / name, noise(8000 + 1000 * index, index), 16_000)
            rows.append(f"{name},0.1,,{'yes' if index % 2 else 'no'}")
        (tmp_path / f"{part}.csv").write_text("\n".join(rows))
        paths[part] = str(tmp_path / f"{part}.csv")
    return paths


def test_parts_are_those_of_the_manifests(manifests):
    data = Clips(**manifests, sample_rate=8000, batch_size=4)
    assert data.facts["class_names"] == ["no", "yes"] and data.facts["sample_rate"] == 8000
    for loader, batches in ((data.train_dataloader(), 2), (data.test_dataloader(), 1)):
        drawn = list(loader)
        assert len(drawn) == batches
        clips, labels = drawn[0]
        assert labels.sort().values.tolist() == [0, 0, 1, 1] or batches == 2
        assert len(clips) == len(labels) == 4
    assert clips.lengths.tolist() == [3200, 3700, 4200, 4700], "0.1 s cut off, then halved"


def test_worker_processes_give_the_same_batches(manifests):
    def batches(workers):
        data = Clips(**manifests, augment=[Shift(50)], batch_size=2, workers=workers, seed=4)
        return [(clips.values, labels) for clips, labels in data.train_dataloader()]

    for (a, b), (c, d) in zip(batches(0), batches(1), strict=True):
        torch.testing.assert_close((a, b), (c, d), rtol=0, atol=0)


def test_the_classes_may_be_given_and_ordered(manifests):
    data = Clips(test=manifests["test"], classes=["yes", "no", "maybe"])
    assert data.facts["class_names"] == ["yes", "no", "maybe"]
    assert list(data.labelled("test")[1]) == [1, 0, 1, 0]


def test_a_label_that_is_no_class(manifests):
    data = Clips(**manifests, classes=["yes", "now"])
    with pytest.raises(UserError, match=r"line 2: the label 'no' is none .* did you mean now\?"):
        data.train_dataloader()


def test_a_part_without_manifest(manifests):
    with pytest.raises(UserError, match=r"data\.train"):
        Clips(test=manifests["test"])
    with pytest.raises(UserError, match=r"data\.val"):
        Clips(train=manifests["train"]).val_dataloader()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_clip_that_was_damaged_is_named_with_its_line(manifests, tmp_path, workers):
    (tmp_path / "test2.wav").write_bytes(b"RIFF")
    data = Clips(**manifests, workers=workers)
    with pytest.raises(UserError, match=r"test2\.wav \(.*test\.csv, line 4\) cannot be decoded"):
        list(data.test_dataloader())


def test_a_recipe_names_transforms_by_their_class(manifests):
    where = "tristate.audio.data.transforms"
    parser = ArgumentParser()
    parser.add_subclass_arguments(LightningDataModule, "data")
    config = {
        "class_path": "tristate.audio.data.clips.Clips",
        "init_args": {
            **manifests,
            "augment": [{"class_path": f"{where}.Shift", "init_args": {"most": 10}}],
            "features": {
                "class_path": f"{where}.Chain",
                "init_args": {
                    "transforms": [
                        {"class_path": f"{where}.Fit", "init_args": {"length": 4000}},
                        {"class_path": f"{where}.LogMel", "init_args": {"n_mels": 20}},
                    ]
                },
            },
        },
    }
    data = parser.instantiate(parser.parse_object({"data": config})).data
    by_hand = Clips(
        **manifests, augment=[Shift(10)], features=Chain([Fit(4000), LogMel(n_mels=20)]), seed=0
    )
    data.seed = 0
    ours, theirs = (next(iter(d.train_dataloader()))[0] for d in (data, by_hand))
    assert ours.values.shape == (8, 20, 26) and ours.values.equal(theirs.values)
