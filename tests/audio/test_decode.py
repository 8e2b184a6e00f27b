"""Decoding: formats, parts, members of archives, rates, and what is refused."""

import tarfile

import numpy as np
import pytest
import soundfile
import torch

from tests.audio.sounds import noise, pitch, tone, write
from tristate.audio.data.archive import members, open_member
from tristate.audio.data.decode import read_audio, resample
from tristate.core.errors import UserError

FORMATS = ["wav", "flac", "ogg"]


def packed(folder, *files, kind=".tar"):
    with tarfile.open(folder / f"clips{kind}", "w:gz" if kind == ".tar.gz" else "w") as tar:
        for file in files:
            tar.add(file, f"a/{file.name}")
    return folder / f"clips{kind}"


@pytest.mark.parametrize("kind", ["wav", "flac"])
def test_lossless_formats_give_back_what_was_written(tmp_path, kind):
    wave = noise(5000)
    read, rate = read_audio(write(tmp_path / f"clip.{kind}", wave))
    assert rate == 16_000 and read.dtype == torch.float32
    torch.testing.assert_close(read, wave, atol=1 / 2**15, rtol=0)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("inside", ["", ".tar", ".tar.gz"])
def test_a_part_equals_that_part_of_the_whole(tmp_path, kind, inside):
    path = write(tmp_path / f"clip.{kind}", noise(40_000))
    if inside:
        path = packed(tmp_path, path, kind=inside) / "a" / path.name
    whole, _ = read_audio(path)
    for first, last in [(0, 1), (1, 700), (12_345, 20_001), (39_999, 40_000)]:
        part, _ = read_audio(path, start=first / 16_000, end=last / 16_000)
        torch.testing.assert_close(part, whole[first:last], atol=1e-6, rtol=0)
    rest, _ = read_audio(path, start=2.0)
    torch.testing.assert_close(rest, whole[32_000:], atol=1e-6, rtol=0)


def test_a_part_is_read_without_the_rest(tmp_path, monkeypatch):
    path = write(tmp_path / "clip.wav", noise(400_000))
    archive = packed(tmp_path, path)
    counts, window = [], type(open_member(archive, "a/clip.wav").raw)
    readinto = window.readinto

    def counted(self, buffer):
        counts.append(readinto(self, buffer))
        return counts[-1]

    monkeypatch.setattr(window, "readinto", counted)
    part, _ = read_audio(archive / "a" / "clip.wav", start=20.0, end=20.1)
    assert len(part) == 1600 and 0 < sum(counts) < 100_000 < path.stat().st_size


def test_members_are_files(tmp_path):
    files = [write(tmp_path / name, noise(n)) for name, n in [("ㄅ.wav", 100), ("b.wav", 3000)]]
    archive = packed(tmp_path, *files)
    assert list(members(archive)) == ["a/ㄅ.wav", "a/b.wav"]
    for file in files:
        with open_member(archive, f"a/{file.name}") as member:
            assert member.read() == file.read_bytes()
            assert member.seek(-2, 2) == file.stat().st_size - 2
            assert member.read(10) == file.read_bytes()[-2:]


def test_channels_are_averaged(tmp_path):
    left, right = noise(800, 1), noise(800, 2)
    soundfile.write(tmp_path / "two.wav", np.stack([left, right], 1), 16_000, subtype="FLOAT")
    torch.testing.assert_close(read_audio(tmp_path / "two.wav")[0], (left + right) / 2)


@pytest.mark.parametrize(("orig", "new"), [(44_100, 16_000), (16_000, 44_100), (8000, 16_000)])
def test_resampling_keeps_a_tone(tmp_path, orig, new):
    path = write(tmp_path / "tone.wav", tone(1000, 1.0, orig), orig)
    wave, rate = read_audio(path, sample_rate=new)
    assert rate == new and len(wave) == new
    assert pitch(wave, new) == pytest.approx(1000, abs=1)
    middle = slice(new // 10, -new // 10)
    torch.testing.assert_close(wave[middle], tone(1000, 1.0, new)[middle], atol=5e-3, rtol=0)


def test_resampling_leaves_out_what_the_new_rate_cannot_hold():
    assert resample(tone(7000, 0.5, 44_100), 44_100, 8000).abs()[200:-200].max() < 1e-2


def refused(path, **how):
    with pytest.raises(UserError) as caught:
        read_audio(path, where="clips.csv, line 7", **how)
    sentence = str(caught.value)
    assert path.name in sentence and "\n" not in sentence
    return sentence


def test_a_file_that_is_none(tmp_path):
    assert "there is no file" in refused(tmp_path / "none.wav")
    (tmp_path / "text.wav").write_text("this is no sound")
    assert "cannot be decoded" in refused(tmp_path / "text.wav")
    (tmp_path / "empty.ogg").touch()
    assert "cannot be decoded" in refused(tmp_path / "empty.ogg")


@pytest.mark.parametrize("kind", ["flac", "ogg"])
def test_a_file_that_was_changed(tmp_path, kind):
    path = write(tmp_path / f"clip.{kind}", noise(60_000))
    content = bytearray(path.read_bytes())
    content[: len(content) // 2] = bytes(len(content) // 2)
    path.write_bytes(content)
    assert "clips.csv, line 7" in refused(path)


def test_a_flac_that_was_cut_short(tmp_path):
    path = write(tmp_path / "clip.flac", noise(60_000))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "damaged" in refused(path) or "decoded" in refused(path)


def test_a_clip_without_sound(tmp_path):
    write(tmp_path / "none.wav", torch.zeros(0))
    assert "holds no sound" in refused(tmp_path / "none.wav")


def test_a_part_beyond_the_end(tmp_path):
    path = write(tmp_path / "clip.wav", noise(8000))
    assert "0.5 seconds" in refused(path, start=0.2, end=0.7) and "0.7" in refused(path, end=0.7)
    refused(path, start=0.5)
    assert "no sample" in refused(path, start=0.1, end=0.10001)


def test_samples_that_are_no_numbers(tmp_path):
    wave = noise(100)
    wave[50] = float("nan")
    soundfile.write(tmp_path / "nan.wav", wave.numpy(), 16_000, subtype="FLOAT")
    assert "not finite" in refused(tmp_path / "nan.wav")


def test_archives_that_cannot_be_read(tmp_path):
    clip = write(tmp_path / "clip.wav", noise(100))
    for kind in (".tar", ".tar.gz"):
        archive = packed(tmp_path, clip, kind=kind)
        with pytest.raises(UserError, match=r"no file a/clp\.wav.*did you mean a/clip\.wav"):
            read_audio(archive / "a" / "clp.wav")
        archive.write_bytes(archive.read_bytes()[:150])
        with pytest.raises(UserError, match=f"clips{kind} is no tar that can be read"):
            read_audio(archive / "a" / "clip.wav")
    with tarfile.open(tmp_path / "zipped.tar", "w:gz") as tar:
        tar.add(clip, "clip.wav")
    with pytest.raises(UserError, match=r"only \*\.tar\.gz may be compressed"):
        read_audio(tmp_path / "zipped.tar" / "clip.wav")
