"""A new mixer, model, data set and recipe are a file and a line each, added here at run time."""

import importlib
from pathlib import Path

import pytest

from tristate.core.mixers import MIXERS
from tristate.core.variants import Variant
from tristate.recipes.cli import main

HERE = "tests.recipes.extension"
DOMAINS = {
    "vision": ("tristate.vision.tasks.classify.ImageClassification", "flat_pixels", "Brightness"),
    "audio": ("tristate.audio.tasks.classify.AudioClassification", "flat_samples", "Loudness"),
    "bio": ("tristate.bio.tasks.classify.SequenceClassification", "flat_letters", "Content"),
}
RECIPE = """
about: {{domain: {domain}, model: a mean, data: made up, cost: seconds, result: all right,
  source: measured in this test}}
model:
  class_path: {task}
  init_args: {{backbone: {model}, lr: 0.1}}
data:
  class_path: {here}.{data}
trainer: {{accelerator: cpu, max_epochs: 8, log_every_n_steps: 1}}
"""


@pytest.mark.parametrize("domain", DOMAINS)
def test_one_of_each_is_a_file_and_a_line(domain, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    task, model, data = DOMAINS[domain]
    monkeypatch.setitem(MIXERS._table, "running_mean", f"{HERE}:RunningMean")
    if domain == "vision":
        importlib.import_module(HERE)  # timm's own decorator enters the model
    else:
        zoo = importlib.import_module(f"tristate.{domain}.zoo").ZOO
        monkeypatch.setitem(zoo.models._table, "tokens", f"{HERE}:Tokens")
        monkeypatch.setitem(zoo.table, model, Variant("tokens", {}, {}))
    recipe = RECIPE.format(domain=domain, task=task, model=model, here=HERE, data=data)
    Path("mine.yaml").write_text(recipe)

    assert main(["run", "mine.yaml"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("test accuracy 1.000  report runs/mine/"), last
    assert Path(last.split()[-1]).is_file()
