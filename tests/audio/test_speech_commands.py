"""Speech Commands: the published pipelines number by number, and the set as torchaudio has it."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

from tests.audio.sounds import noise, write
from tristate.audio.data.decode import read_audio
from tristate.audio.data.speech_commands import (
    ALL,
    TEN,
    VERSION,
    Published,
    SpeechCommands,
    list_clips,
    original_statistics,
    row_statistics,
)
from tristate.audio.data.transforms import LogMel
from tristate.core.errors import UserError

CLASSES = ["yes", "no", "up"]
PARTS = ("train", "val", "test")


@pytest.fixture(scope="module")
def root(golden, tmp_path_factory):
    folder = tmp_path_factory.mktemp("root")
    wanted = golden / "audio" / "pipelines" / "sc"
    shutil.copytree(wanted, folder / "SpeechCommands" / VERSION)
    return str(folder)


@pytest.fixture(scope="module")
def expected(golden):
    tensors = load_file(golden / "audio" / "pipelines" / "speech_commands.safetensors")
    return {name.removeprefix("output."): value for name, value in tensors.items()}


def whole_part(data, part):
    loader = getattr(data, f"{part}_dataloader")()
    loader.shuffle = False
    clips, labels = next(iter(loader))
    return clips.values, labels


def compare(kind, part, values, expected, tolerance):
    """``values``, ``(M, 16000)`` or ``(M, 20, 161)``, with what is kept of the original's."""
    if kind == "mfcc":
        ours = {f"mfcc.{part}.X": values.mT}
    else:
        ours = {
            f"raw_every10.{part}.X": values[:, ::10, None],
            f"raw_half_first800.{part}.X": values[:, ::2, None][:, :800],
        }
    for name, value in ours.items():
        allowed = tolerance * expected[name].abs().max().item()
        torch.testing.assert_close(value, expected[name], atol=allowed, rtol=0)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("kind", ["raw", "mfcc"])
def test_the_published_features_number_by_number(root, expected, kind, part):
    waves = {p: [read_audio(c.path)[0] for c in list_clips(root, p, CLASSES)] for p in PARTS}
    made = Published(kind)
    rows = torch.stack([made.rows(wave) for wave in waves["train"]])
    made.mean, made.std = original_statistics(rows)
    compare(kind, part, torch.stack([made(wave) for wave in waves[part]]), expected, 1e-5)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("kind", ["raw", "mfcc"])
def test_the_data_module_feeds_them(root, expected, kind, part):
    data = SpeechCommands(root, CLASSES, published=kind)
    data.setup("fit")
    values, labels = whole_part(data, part)
    assert labels.equal(expected[f"{kind}.{part}.y"])
    assert data.facts["in_chans"] == (20 if kind == "mfcc" else 1)
    # The original's mean of -110 is rounded to 8e-6, and then divided by a deviation of 0.02.
    compare(kind, part, values, expected, 2e-4 if kind == "mfcc" else 1e-5)


def test_the_published_mfcc_before_it_is_normalised(root, expected):
    (clip,) = (c for c in list_clips(root, "val", ["yes"]))
    made = Published("mfcc").rows(read_audio(clip.path)[0])
    wanted = expected["mfcc_unnormalised_one"][0]
    torch.testing.assert_close(made, wanted, atol=1e-5 * wanted.abs().max().item(), rtol=0)


def test_statistics_of_parts_are_those_of_the_whole():
    clips = [3 + torch.randn(4, length) for length in (1, 50, 7)]
    whole = torch.cat(clips, 1)
    torch.testing.assert_close(row_statistics(iter(clips)), (whole.mean(1), whole.std(1)))
    with pytest.raises(ValueError):
        row_statistics([])


def test_statistics_are_kept_in_a_file(root, tmp_path, monkeypatch):
    file = tmp_path / "new" / "statistics.safetensors"
    first = SpeechCommands(root, CLASSES, "mfcc", str(file))
    first.setup("fit")
    monkeypatch.setattr(Published, "measure", None)
    second = SpeechCommands(root, CLASSES, "mfcc", str(file))
    second.setup("test")
    for ours, theirs in zip(whole_part(second, "val"), whole_part(first, "val"), strict=True):
        assert ours.equal(theirs)
    with pytest.raises(UserError, match="16000"):
        SpeechCommands(root, CLASSES, "raw", str(file)).setup("fit")
    file.write_bytes(b"no tensors")
    with pytest.raises(UserError, match="cannot be read"):
        SpeechCommands(root, CLASSES, "mfcc", str(file)).setup("fit")
    with pytest.raises(RuntimeError, match="measure"):
        Published("raw")(torch.zeros(9))


def test_clips_as_they_are(root):
    data = SpeechCommands(root, CLASSES, published=None, features=LogMel(n_mels=20))
    clips, labels = next(iter(data.test_dataloader()))
    assert clips.values.shape[1] == 20 and clips.lengths.tolist() == [101, 76, 101]
    assert labels.tolist() == [0, 1, 2]


def test_the_classes():
    assert len(ALL) == len(set(ALL)) == 35 and set(TEN) < set(ALL) and len(TEN) == 10
    assert SpeechCommands("nowhere", "ten").facts["class_names"] == TEN


def test_a_set_that_is_not_there(tmp_path, root):
    with pytest.raises(UserError, match=r"data\.root"):
        SpeechCommands(str(tmp_path)).train_dataloader()
    with pytest.raises(UserError, match=r"no train clip of 'yess'.*did you mean yes\?"):
        list_clips(root, "train", ["yess"])
    (tmp_path / "SpeechCommands" / VERSION / "yes").mkdir(parents=True)
    write(tmp_path / "SpeechCommands" / VERSION / "yes" / "a_nohash_0.wav", noise(10))
    with pytest.raises(UserError, match=r"validation_list\.txt"):
        list_clips(tmp_path, "train")


def test_a_clip_that_is_too_long_is_named(root, tmp_path):
    write(tmp_path / "long.wav", noise(16_001))
    data = SpeechCommands(root, CLASSES, predict_path=str(tmp_path))
    data.setup("predict")
    with pytest.raises(UserError, match=r"long\.wav does not fit: .* 16000 samples, got 16001"):
        list(data.predict_dataloader())


def test_two_ways_to_one_thing(root):
    with pytest.raises(ValueError):
        SpeechCommands(root, features=LogMel())
    with pytest.raises(ValueError):
        Published("raw").rows(torch.zeros(16_001))
