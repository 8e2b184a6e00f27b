"""The README's Python runs as it stands, and its commands are understood."""

import re
import shlex
from pathlib import Path

import pytest

import tristate.compat
from tristate.recipes import catalog
from tristate.recipes.cli import VERBS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture(autouse=True)
def alone():
    """What the README enables is not left enabled."""
    yield
    tristate.compat.disable()


@pytest.mark.parametrize("code", blocks("python"), ids=range(len(blocks("python"))))
def test_python_runs(code):
    exec(compile(code, "README.md", "exec"), {})


def test_commands_name_verbs_and_recipes():
    lines = "\n".join(blocks("sh")).replace("\\\n", " ").splitlines()
    commands = [shlex.split(line, comments=True) for line in lines if line.startswith("tristate")]
    assert commands
    for _, verb, *words in commands:
        assert verb in VERBS
        if words and re.fullmatch(r"[a-z]+/[a-z_]+", words[0]):
            assert words[0] in catalog.names()


def test_targets_of_make_are_there():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"\bmake ((?:[a-z-]+ ?)+)", README):
        for word in target.split():
            assert re.search(rf"^{word}:", makefile, re.MULTILINE), word
