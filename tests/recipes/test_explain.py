"""``tristate explain`` from a checkpoint to a page, in every domain; and what it refuses."""

import re
from pathlib import Path

import pytest
import torch

from tristate.core.checkpoint import save_weights
from tristate.recipes.builder import Experiment
from tristate.recipes.cli import main

# What shows of an item, beside the pictures that all pages have.
SHOWN = {"vision": "the class token reads", "audio": "<audio", "bio": "Letters above the line"}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def checkpoint(name, *settings) -> Path:
    """What a run of the recipe would leave before its first step."""
    experiment = Experiment("test", name, settings)
    experiment.discard_empty_folder()
    path = Path("run/checkpoints/best.ckpt")
    path.parent.mkdir(parents=True)
    torch.save({"state_dict": experiment.model.state_dict()}, path)
    save_weights("run/weights.safetensors", experiment.model.get_submodule("backbone"))
    return path


@pytest.mark.parametrize("domain", SHOWN)
def test_explains_an_item_and_its_layers(domain, capsys):
    recipe = f"smoke/{domain}"
    path = checkpoint(recipe)
    assert main(["explain", recipe, "--ckpt_path", str(path), "--items", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "explained run/explain.html"
    page = Path("run/explain.html").read_text(encoding="utf-8")
    for text in ("What the answers rest on", "How long layers remember", "Layer 0: BiMamba"):
        assert text in page
    assert SHOWN[domain] in page and "nan" not in re.sub(r'"data:[^"]*"', "", page)
    # Nothing from outside, and no run of its own.
    assert not re.search(r"url\(|@import|https?:|<script", page)
    assert all(uri.startswith("data:") for uri in re.findall(r'(?:href|src)="([^"]*)"', page))
    assert not Path("runs").exists() or not list(Path("runs").rglob("*.*"))
    # Shares sum up to the gain, whatever the model: to two digits of either, or nearly.
    total, gain = map(float, re.findall(r"up to (-?[\d.]+), the lead gains (-?[\d.]+)", page)[0])
    assert total == pytest.approx(gain, abs=0.02 + 0.05 * abs(gain))


def test_weights_one_layer_and_another_mixer_and_place(capsys):
    settings = [
        "--model.backbone_args.mixer=s4d",
        "--model.backbone_args.mixer_args={}",
        "--model.backbone_args.n_layers=2",
    ]
    checkpoint("smoke/vision", *settings)
    words = ["explain", "smoke/vision", "--ckpt_path=run/weights.safetensors", *settings]
    assert main([*words, "--items=1", "--layer=1", "--out=other.html"]) == 0
    page = Path("other.html").read_text(encoding="utf-8")
    assert "Layer 1: S4D" in page and "Layer 0" not in page
    assert "response by frequency" in page and not Path("run/explain.html").exists()
    capsys.readouterr()
    assert main([*words, "--layer=2"]) == 2
    error = capsys.readouterr().err
    assert error == "tristate: there is no layer 2: this model has the layers 0 to 1\n"
    # Without the settings it is another model.
    assert main(words[:3]) == 1
    assert "another architecture" in capsys.readouterr().err
    assert main([*words, "--out=absent/other.html"]) == 1
    assert "can't write absent/other.html" in capsys.readouterr().err


WRONG = {
    "no recipe": ([], "the following arguments are required: recipe"),
    "recipe": (["smoke/visoin", "--ckpt_path=x.ckpt"], "did you mean smoke/vision"),
    "no checkpoint": (["smoke/vision"], "name a checkpoint with --ckpt_path"),
    "checkpoint": (["smoke/vision", "--ckpt_path=absent.ckpt"], "no checkpoint absent.ckpt"),
    "items": (["smoke/vision", "--ckpt_path=x.ckpt", "--items=0"], "--items wants 1 at least"),
    "layer": (["smoke/vision", "--ckpt_path=x.ckpt", "--layer=last"], "invalid int value: 'last'"),
    "key": (["smoke/vision", "--ckpt_path=x.ckpt", "--model.lrr=1"], "did you mean lr"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_words_are_one_sentence(case, capsys):
    words, sentence = WRONG[case]
    Path("x.ckpt").write_bytes(b"")
    assert main(["explain", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("tristate: ") and error.count("\n") == 1 and sentence in error


def test_a_damaged_checkpoint_is_one_sentence(capsys):
    Path("x.ckpt").write_bytes(b"not one")
    assert main(["explain", "smoke/vision", "--ckpt_path=x.ckpt"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("tristate: x.ckpt") and error.count("\n") == 1
