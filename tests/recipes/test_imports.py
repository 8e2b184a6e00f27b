"""What is imported when: help in a moment, nothing heavy behind ``import tristate``."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = str(Path(__file__).parents[2] / ".pkg")
HEAVY = {"numba", "timm", "lightning", "triton", "matplotlib", "torchvision", "jsonargparse"}


def imported(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter has after ``statement``; warnings fail."""
    code = f"import sys; sys.path.insert(0, {PACKAGE!r})\n{statement}\n"
    code += (
        "import json; print(); print(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error::Warning:tristate", "-c", code],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not done.stderr, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "module", ["tristate", "tristate.compat", "tristate.kernels", "tristate.kernels.registry"]
)
def test_the_package_brings_nothing_heavy(module):
    assert not imported(f"import {module}") & (HEAVY | {"torch"})


def test_the_kernels_bring_only_torch():
    beside = imported("import torch")
    new = imported(
        "import tristate.kernels.selective, tristate.kernels.conv, tristate.kernels.norm"
    )
    assert not (new - beside) & HEAVY


@pytest.mark.parametrize("words", [[], ["--help"], ["--version"], ["run", "--help"], ["list"]])
def test_help_does_not_wait_for_torch(words):
    found = imported(f"from tristate.recipes.cli import main; assert main({words!r}) == 0")
    assert not found & (HEAVY | {"torch", "numpy"})


@pytest.mark.parametrize("module", ["tristate", "tristate.vision", "tristate.recipes.cli"])
def test_an_import_prints_and_warns_nothing(module):
    code = f"import sys; sys.path.insert(0, {PACKAGE!r}); import {module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == done.stderr == ""
