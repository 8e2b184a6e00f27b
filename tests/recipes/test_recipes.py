"""Every recipe parses and builds; the smoke recipe of each domain learns."""

import csv
import json
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import Trainer
from PIL import Image
from safetensors.torch import load_file

from tristate.recipes import catalog
from tristate.recipes.builder import Experiment
from tristate.recipes.callbacks import Checkpoint
from tristate.recipes.cli import main

SMOKE = "smoke/vision"
# The recipes of the other domains are built in files of their own.
VISION = [n for n in catalog.names() if catalog.about(catalog.find(n)).domain == "vision"]
# Where a recipe's data or machine are not here, something small stands in.
STANDINS = {
    "vision/vim_tiny_imagenet": [
        "--data.root=images",
        "--trainer.accelerator=cpu",
        "--trainer.devices=1",
    ]
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def images(tmp_path):
    for part in ("train", "val"):
        for label in ("cat", "dog"):
            folder = tmp_path / "images" / part / label
            folder.mkdir(parents=True)
            Image.new("RGB", (32, 32)).save(folder / "0.png")


def read_metrics(folder: Path, column: str) -> list[float]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [float(row[column]) for row in csv.DictReader(file) if row.get(column)]


@pytest.mark.parametrize("name", VISION)
def test_builds(name, images):
    built = Experiment("fit", name, STANDINS.get(name, []))
    facts = built.model.facts
    # Any backbone here takes images of 64 pixels where it takes larger ones.
    sides = [min(side, 64) for side in facts["input_size"]]
    items = torch.zeros(2, facts["in_chans"], *sides)
    assert built.model.eval()(items).shape == (2, len(facts["class_names"]))
    again = yaml.safe_load(built.resolved)
    assert again["model"]["init_args"]["lr"] == built.model.lr
    assert again["recipe"] == name


def test_smoke_learns_and_leaves_what_a_run_leaves(capsys):
    assert main(["run", SMOKE]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    words = last.split()
    assert words[:2] == ["test", "accuracy"] and words[3] == "report"
    folder = Path(words[4]).parent
    assert folder.parent == Path("runs/smoke/vision")
    losses = read_metrics(folder, "train/loss")
    assert sum(losses[-4:]) < sum(losses[:4]), losses
    assert words[2] == f"{read_metrics(folder, 'test/accuracy')[-1]:.3f}"

    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found >= {
        "config.yaml",
        "versions.json",
        "metrics.csv",
        "report.html",
        "weights.safetensors",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
    }
    record = json.loads((folder / "versions.json").read_text())
    assert record["command"] == f"tristate run {SMOKE}" and record["seed"] == 0
    assert record["versions"]["torch"] == torch.__version__.split("+")[0]

    # The best weights alone rebuild what was tested.
    best = torch.load(folder / "checkpoints/best.ckpt", weights_only=True)["state_dict"]
    weights = load_file(folder / "weights.safetensors")
    assert weights and all(torch.equal(best[f"backbone.{k}"], v) for k, v in weights.items())

    # Its configuration is a recipe that gives the same run, in a folder of its own.
    assert main(["run", str(folder / "config.yaml")]) == 0
    again = Path(capsys.readouterr().out.split()[-1]).parent
    assert again != folder and again.parent == folder.parent
    assert read_metrics(again, "train/loss") == losses

    # The checkpoint gives the same figure; prediction writes one row for each test image.
    checkpoint = str(folder / "checkpoints/best.ckpt")
    assert main(["test", SMOKE, "--ckpt_path", checkpoint]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[2] == words[2]
    assert main(["predict", SMOKE, "--ckpt_path", checkpoint, "--data.batch_size=500"]) == 0
    text = next(Path().glob("runs/*/*/*/predictions.csv")).read_text()
    predicted = list(csv.DictReader(text.splitlines()))
    assert len(predicted) == 2000 and set(predicted[0]) == {"file", "label", "probability"}


def test_a_resumed_run_keeps_the_best_and_writes_beside(capsys):
    short = [SMOKE, "--trainer.limit_test_batches=1", "--trainer.limit_train_batches=4"]
    assert main(["fit", *short, "--trainer.max_epochs=1"]) == 0
    first = next(Path().glob("runs/smoke/vision/*"))
    before = {path: path.read_bytes() for path in first.rglob("*") if path.is_file()}
    best = torch.load(first / "checkpoints/best.ckpt", weights_only=True)
    # A score that no later epoch can beat.
    last = torch.load(first / "checkpoints/last.ckpt", weights_only=True)
    for name, state in last["callbacks"].items():
        if "val/accuracy" in name:
            state["best_model_score"] = torch.tensor(2.0)
            state["best_k_models"] = {state["best_model_path"]: torch.tensor(2.0)}
    torch.save(last, "last.ckpt")

    assert main(["fit", *short, "--trainer.max_epochs=2", "--ckpt_path=last.ckpt"]) == 0
    (second,) = set(Path().glob("runs/smoke/vision/*")) - {first}
    kept = torch.load(second / "checkpoints/best.ckpt", weights_only=True)
    assert kept["global_step"] == best["global_step"] == 4
    assert torch.load(second / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 8
    assert {p: p.read_bytes() for p in first.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("damage", ["cut", "other"])
def test_a_wrong_checkpoint_is_one_sentence(damage, capsys):
    other = {"state_dict": {"backbone.w": torch.zeros(2)}}
    torch.save(other, "x.ckpt")
    if damage == "cut":
        Path("x.ckpt").write_bytes(Path("x.ckpt").read_bytes()[:200])
    assert main(["test", SMOKE, "--ckpt_path=x.ckpt"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("tristate: x.ckpt") and err.count("\n") == 1
    assert ("cut short" if damage == "cut" else "another architecture") in err
    assert not list(Path().glob("runs/*/*/*"))


def test_weights_are_no_checkpoint(capsys):
    Path("x.safetensors").write_bytes(b"")
    assert main(["test", SMOKE, "--ckpt_path=x.safetensors"]) == 2
    assert "--model.pretrained x.safetensors" in capsys.readouterr().err


def test_of_equal_scores_the_later_is_kept(tmp_path):
    kept = Checkpoint(dirpath=tmp_path, filename="best", monitor="val/accuracy", mode="max")
    kept.best_k_models = {"best": torch.tensor(0.5)}
    kept.kth_best_model_path = "best"
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    taken = [kept.check_monitor_top_k(trainer, torch.tensor(score)) for score in (0.4, 0.5, 0.6)]
    assert taken == [False, True, True]
