"""The comparisons in the heads of recipes: each model of them is built and has a loss."""

import re
import shlex

import pytest
import torch

from tristate.recipes import catalog
from tristate.recipes.builder import Experiment
from tristate.recipes.compare.axes import Axis, grid


def commands(name):
    """The words behind ``tristate compare RECIPE`` in the comments of a recipe."""
    text = catalog.find(name).read_text(encoding="utf-8")
    plain = re.sub(r"^#", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    lines = [line.strip() for line in plain.splitlines()]
    return [shlex.split(line)[2:] for line in lines if line.startswith("tristate compare")]


def axes(words):
    return [
        Axis.read(value) for word, value in zip(words, words[1:], strict=False) if word == "--vary"
    ]


COMPARED = [name for name in catalog.names() if commands(name)]


@pytest.mark.parametrize("name", COMPARED)
def test_the_commands_are_understood(name):
    for recipe, *words in commands(name):
        assert recipe == name and list(grid(axes(words)))


# Where a second setting varies, it is a number: its first value stands for all.
@pytest.mark.parametrize("name", ["synthetic/recall", "synthetic/stability"])
def test_every_model_is_built_and_has_a_loss(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ((_, *words),) = commands(name)
    first, *others = axes(words)
    numbers = [word for axis in others for word in next(iter(axis.values.values()))]
    for own in first.values.values():
        given = [*own, *numbers, "--data.batch_size=2"]
        built = Experiment("fit", name, given)
        assert torch.isfinite(built.model.loss(next(iter(built.datamodule.train_dataloader()))))
