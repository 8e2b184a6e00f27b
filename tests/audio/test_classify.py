"""Classification of clips from files to predictions and report."""

import csv
import re

import pytest
import torch
from lightning.pytorch import Trainer

from tests.audio.sounds import noise, tone, write
from tests.core.toy import LIGHTNING
from tristate.audio.data.clips import Clips
from tristate.audio.data.transforms import LogMel
from tristate.audio.tasks.classify import AudioClassification
from tristate.audio.tasks.sounds import SECONDS, sound

pytestmark = [pytest.mark.filterwarnings(line) for line in LIGHTNING]

RATE = 8000
PITCHES = {"low": 300.0, "middle": 900.0, "<high>": 2500.0}
SMALL = {
    "audio_mamba_micro_wave": {"n_bands": 16, "window": 129, "stride": 40, "pool": 2},
    "audio_mamba_micro_mel": {"kernel_size": 3},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Sines of three pitches and many lengths, and their manifests."""
    folder = tmp_path_factory.mktemp("tones")
    for part, count in (("train", 48), ("test", 15)):
        rows = ["path,label"]
        for i in range(count):
            label = list(PITCHES)[i % 3]
            wave = tone(PITCHES[label] * (1 + 0.01 * (i % 7)), 0.05 + 0.01 * (i % 11), RATE)
            write(folder / f"{part}{i}.wav", wave + 0.05 * noise(len(wave), i), RATE)
            rows.append(f"{part}{i}.wav,{label}")
        (folder / f"{part}.csv").write_text("\n".join(rows))
    return folder


def data(folder, **options):
    train, test = (str(folder / f"{part}.csv") for part in ("train", "test"))
    settings = {"classes": list(PITCHES), "sample_rate": RATE, "batch_size": 8, "keep": True}
    return Clips(train, test, test, **settings, **options)


def make(clips, backbone, **options):
    args = {"d_model": 16, "n_layers": 1, "front_args": SMALL[backbone]}
    return AudioClassification(backbone, backbone_args=args, facts=clips.facts, **options)


def trainer(folder, **options):
    return Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
        **options,
    )


@pytest.fixture(scope="module", params=SMALL)
def tested(request, folder, tmp_path_factory):
    """A task that has learnt and was tested, its data, trainer and result."""
    torch.manual_seed(0)
    mel = LogMel(RATE, n_fft=256, hop_length=80, n_mels=20) if "mel" in request.param else None
    clips = data(folder, features=mel)
    task = make(clips, request.param, lr=1e-2)
    runs = trainer(tmp_path_factory.mktemp("run"), max_epochs=8)
    runs.fit(task, clips)
    (result,) = runs.test(task, clips, verbose=False)
    return task, clips, runs, result


def test_learns_from_clips_of_unequal_length(tested):
    assert tested[3]["test/accuracy"] > 0.9
    assert tested[0].confusions.sum() == 15


def test_predictions_are_a_table_of_file_label_and_probability(tested, folder, tmp_path):
    task, clips, runs, _ = tested
    task.backbone.eval()
    wave = tone(PITCHES["middle"], 0.2, 2 * RATE)
    mine = write(tmp_path / "mine.wav", wave, 2 * RATE)
    other = data(folder, features=clips.features, predict_path=[str(mine), str(folder)])
    runs.predict(task, other, return_predictions=False)
    with open(f"{runs.default_root_dir}/predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["file", "label", "probability"] and len(rows) == 64
    assert (rows[0]["file"], rows[0]["label"]) == (str(mine), "middle")
    assert all(1 / 3 <= float(row["probability"]) <= 1 for row in rows)
    # A clip's prediction does not depend on those beside it.
    with torch.no_grad():
        one = task(next(iter(data(folder, features=clips.features).test_dataloader()))[0])
    alone = data(folder, features=clips.features, predict_path=str(folder / "test0.wav"))
    runs.predict(task, alone, return_predictions=False)
    with open(f"{runs.default_root_dir}/predictions.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["probability"]) == pytest.approx(float(one.softmax(1)[0].max()), abs=1e-4)


def test_the_report_shows_and_plays_what_was_tested(tested):
    task, clips, _, _ = tested
    sections = {section.title: section.html for section in task.report_sections()}
    assert {"Confusions", "Classes", "Right ones"} <= set(sections)
    shown = sections["Right ones"]
    assert shown.count("<img") == len(task.right) > 10
    played = len(task.right) if clips.features is None else 0
    assert shown.count("<audio") == shown.count("data:audio/wav;base64,") == played
    assert "&lt;high&gt;" in shown
    for html in sections.values():
        assert "<high>" not in html and "<script" not in html
        assert all(s.startswith("data:") for s in re.findall(r'(?:src|href)="([^"]*)"', html))


def test_a_played_clip_is_the_clip():
    import base64
    import io

    import soundfile

    wave = 1e-3 * noise(6 * RATE)
    html = sound(wave, RATE, 'a "tone"')
    assert "&quot;tone&quot;" in html
    found = re.search(r"audio/wav;base64,([^\"]*)", html)
    assert found
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(found[1])), dtype="float32")
    assert rate == RATE and len(samples) == SECONDS * RATE
    # To its peak, so that a whisper can be heard; 16 bits.
    wanted = 0.9 * wave[: len(samples)] / wave.abs().max()
    torch.testing.assert_close(torch.from_numpy(samples), wanted, atol=1e-4, rtol=0)
    assert "<img" in sound(torch.zeros(100), RATE, "silence")


def test_comes_back_from_its_checkpoint(tested, tmp_path):
    task, clips, runs, _ = tested
    runs.save_checkpoint(tmp_path / "a.ckpt")
    again = AudioClassification.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    batch, _ = next(iter(clips.test_dataloader()))
    with torch.no_grad():
        assert again.eval()(batch).equal(task.eval()(batch))


def test_a_model_of_other_inputs_is_refused(folder):
    mel = LogMel(RATE, n_fft=256, hop_length=80, n_mels=20)
    with pytest.raises(ValueError, match="takes waveforms, not features of 20 rows"):
        make(data(folder, features=mel), "audio_mamba_micro_wave")
