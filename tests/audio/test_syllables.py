"""The embedded syllables: counts, splits without leaks, batches, and how they are rebuilt."""

import csv
import gzip
import io
import os
import tarfile
from collections import Counter
from itertools import combinations
from pathlib import Path
from zlib import crc32

import pytest
import soundfile
import torch

import tristate.audio.data.mandarin as mandarin
from tests.audio.sounds import noise, write
from tristate.audio.data.mandarin.build import ARCHIVE, MANIFEST, build, describe
from tristate.audio.data.syllables import MandarinSyllables
from tristate.audio.data.transforms import Gain, LogMel, Shift, SpecAugment

FOLDER = Path(mandarin.__file__).parent
PARTS = ("train", "val", "test")


@pytest.fixture(scope="module")
def rows():
    with gzip.open(FOLDER / MANIFEST, "rt", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_manifest_lists_the_archive(rows):
    with tarfile.open(FOLDER / ARCHIVE, "r:gz") as tar:
        assert [row["path"] for row in rows] == [f"{ARCHIVE}/{name}" for name in tar.getnames()]
    assert Counter(row["tone"] for row in rows) == {"1": 303, "2": 236, "3": 288, "4": 320}
    assert len(rows) == 1147 and len({row["base"] for row in rows}) == 386
    assert all(row["base"] == row["initial"] + row["final"] for row in rows)


def test_every_clip_can_be_decoded(rows):
    seconds = []
    with tarfile.open(FOLDER / ARCHIVE, "r:gz") as tar:
        for member in tar:
            content = tar.extractfile(member)
            assert content is not None
            info = soundfile.info(io.BytesIO(content.read()))
            assert (info.samplerate, info.channels, info.subtype) == (44_100, 1, "VORBIS")
            seconds.append(info.duration)
    assert min(seconds) > 0.29 and max(seconds) < 0.43
    assert sum(seconds) == pytest.approx(350.8, abs=0.1)


def test_the_licence_stands_beside_them():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert "CC-BY-3.0" in text and "ChionMeilin" in text and "gcin-voice" in text


def test_rebuilt_byte_for_byte_from_what_it_holds(tmp_path):
    original = tmp_path / "ogg"
    with tarfile.open(FOLDER / ARCHIVE, "r:gz") as tar:
        tar.extractall(original, filter="data")
    for extra in ("ㄚ1/5.ogg", "ㄚ/3.ogg"):  # a neutral tone and the other voice
        (original / extra).parent.mkdir(exist_ok=True)
        (original / extra).write_bytes(b"other")
    for file in original.rglob("*"):
        os.utime(file, (1, 1))
    build(original, tmp_path)
    for name in (ARCHIVE, MANIFEST):
        built, kept = (folder / name for folder in (tmp_path, FOLDER))
        # Compressed as this machine's zlib does it.
        assert gzip.decompress(built.read_bytes()) == gzip.decompress(kept.read_bytes())


def test_names_are_read_as_syllables():
    assert describe("ㄓㄨㄥ4") == ("ㄓㄨㄥ", 4, "ㄓ", "ㄨㄥ")
    assert describe("ㄚ") == ("ㄚ", 1, "", "ㄚ")
    assert describe("ㄕ2") == ("ㄕ", 2, "ㄕ", "")
    assert describe("ㄇㄚ1") is None


COUNTS = {"tone": (4, 1147), "initial": (22, 1147), "final": (33, 1130)}


@pytest.mark.parametrize("target", COUNTS)
@pytest.mark.parametrize("split", ["base", "base+tone"])
def test_parts_share_no_key_and_leave_nothing_out(target, split):
    tested: list[str] = []
    for fold in range(5):
        data = MandarinSyllables(target, split, fold)
        parts = {part: data.labelled(part) for part in PARTS}
        keys = {part: {data.key(clip) for clip in clips} for part, (clips, _) in parts.items()}
        assert not any(keys[a] & keys[b] for a, b in combinations(PARTS, 2))
        assert {crc32(key.encode()) % 5 for key in keys["test"]} == {fold}
        assert (len(data.class_names), sum(len(c) for c, _ in parts.values())) == COUNTS[target]
        assert len(parts["val"][0]) >= 60
        assert set(parts["train"][1]) == set(range(len(data.class_names)))
        tested += [str(clip) for clip in parts["test"][0]]
    assert len(tested) == len(set(tested)) == COUNTS[target][1]


@pytest.mark.parametrize("target", COUNTS)
def test_labels_are_what_was_spoken(target):
    data = MandarinSyllables(target)
    assert len(set(data.class_names)) == len(data.class_names)
    for part in PARTS:
        for clip, label in zip(*data.labelled(part), strict=True):
            assert data.values[label] == clip.more[target]
    spelt = dict(zip(data.values, data.class_names, strict=True))
    wanted = {"tone": ("3", "tone 3"), "initial": ("ㄓ", "zh"), "final": ("ㄨㄥ", "ong")}[target]
    assert spelt[wanted[0]] == wanted[1]


def test_batches_of_waveforms():
    data = MandarinSyllables(batch_size=16, seed=1)
    assert data.facts == {
        "class_names": ["tone 1", "tone 2", "tone 3", "tone 4"],
        "sample_rate": 16_000,
        "in_chans": 1,
        "kind": "waveform",
        "steps_per_second": 16_000,
    }
    waves, labels = next(iter(data.val_dataloader()))
    assert waves.values.ndim == 2 and waves.values.dtype == torch.float32 and len(labels) == 16
    assert waves.lengths.max() == waves.values.shape[1] and 4600 < waves.lengths.min() < 7000
    assert waves.values.abs().amax(1).min() > 0.05 and labels.dtype == torch.int64
    assert data.part("val").waveform(3) is data.part("val").waveform(3), "decoded twice"


def first_batch(seed):
    data = MandarinSyllables(
        augment=[Shift(400), Gain(6.0)],
        features=LogMel(n_mels=40),
        after=[SpecAugment()],
        batch_size=8,
        seed=seed,
    )
    return data, *next(iter(data.train_dataloader()))


def test_augmented_features_follow_from_the_seed():
    data, clips, labels = first_batch(5)
    _, again, same = first_batch(5)
    _, other, _ = first_batch(6)
    assert clips.values.equal(again.values) and labels.equal(same)
    assert clips.values.shape != other.values.shape or not clips.values.equal(other.values)
    assert clips.values.shape[:2] == (8, 40) and data.facts["in_chans"] == 40
    assert data.facts["kind"] == "features" and data.facts["steps_per_second"] == 100
    plain = next(iter(data.test_dataloader()))[0]
    assert plain.values.equal(next(iter(data.test_dataloader()))[0].values)


def test_predictions_are_of_the_test_clips_or_of_files(tmp_path):
    data = MandarinSyllables(batch_size=4)
    waves, names = next(iter(data.predict_dataloader()))
    assert names[0].endswith("/5.ogg") and len(waves) == 4
    path = write(tmp_path / "mine.wav", noise(44_100), 44_100)
    data = MandarinSyllables(predict_path=str(tmp_path))
    waves, names = next(iter(data.predict_dataloader()))
    assert names == [str(path)] and waves.lengths.tolist() == [16_000]


@pytest.mark.parametrize(
    "wrong",
    [
        {"fold": 5},
        {"target": "vowel"},
        {"split": "tone"},
        {"min_clips": 400},
        {"features": LogMel(8000)},
        {"augment": [LogMel(8000)]},
        {"after": [SpecAugment()]},
        {"batch_size": 0},
    ],
)
def test_what_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValueError):
        MandarinSyllables(**wrong)
