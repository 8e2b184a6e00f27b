"""The recipes for sound: each builds, the smoke recipe learns and predicts."""

import csv
from pathlib import Path

import pytest
import torch

from tests.audio.sounds import noise, write
from tristate.audio.data.collate import collate
from tristate.recipes import catalog
from tristate.recipes.builder import Experiment
from tristate.recipes.cli import main

SMOKE = "smoke/audio"
# Where a recipe's machine is not here, another stands in.
STANDINS = {"audio/mamba_speech_commands": ["--trainer.accelerator=cpu"]}
NAMES = [n for n in catalog.names() if catalog.about(catalog.find(n)).domain == "audio"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_builds(name):
    built = Experiment("fit", name, STANDINS.get(name, []))
    facts = built.model.facts
    clips = collate([noise(400), noise(3000)])
    with torch.no_grad():
        logits = built.model.eval()(clips)
    assert logits.shape == (2, len(facts["class_names"])) and logits.isfinite().all()


def test_smoke_learns_and_predicts(capsys):
    assert main(["run", SMOKE]) == 0
    words = capsys.readouterr().out.splitlines()[-1].split()
    assert words[:2] == ["test", "accuracy"]
    folder = Path(words[4]).parent
    with (folder / "metrics.csv").open(newline="") as file:
        losses = [float(r["train/loss"]) for r in csv.DictReader(file) if r["train/loss"]]
    assert sum(losses[-4:]) < sum(losses[:4]), losses
    page = (folder / "report.html").read_text()
    assert "data:audio/wav;base64," in page and "confusion matrix of 4 classes" in page

    write(Path("mine/a.wav"), noise(4000))
    write(Path("mine/b.flac"), noise(8000), 8000)
    checkpoint = str(folder / "checkpoints/best.ckpt")
    told = ["--ckpt_path", checkpoint, "--data.predict_path=mine"]
    assert main(["predict", SMOKE, *told]) == 0
    with next(Path().glob("runs/*/*/*/predictions.csv")).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == ["mine/a.wav", "mine/b.flac"]
    assert {row["label"] for row in rows} <= {f"tone {i}" for i in range(1, 5)}


def test_a_clip_that_cannot_be_decoded_is_one_sentence(capsys):
    Path("bad.wav").write_text("no sound")
    Path("clips.csv").write_text("path,label\nbad.wav,a\nbad.wav,b\n")
    words = [
        "--data.class_path=tristate.audio.data.clips.Clips",
        *(f"--data.init_args.{part}=clips.csv" for part in ("train", "val", "test")),
    ]
    assert main(["fit", SMOKE, *words]) == 1
    err = capsys.readouterr().err
    assert "bad.wav (clips.csv, line 2) cannot be decoded" in err or "line 3) cannot be" in err
