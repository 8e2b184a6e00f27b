"""What is shipped: recipes, data and licences inside the package, nothing beside it."""

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest
from packaging.requirements import Requirement

from tristate.recipes import catalog

ROOT = Path(__file__).parents[2]
LEFT_OUT = ignore_patterns(".git", ".venv", "runs", "build", "dist", "*.egg-info", "__pycache__")


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with the wheel and the sdist, built without a network from a copy of the tree."""
    folder = tmp_path_factory.mktemp("package")
    copytree(ROOT, folder / "source", symlinks=True, ignore=LEFT_OUT)
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist"],
        cwd=folder / "source",
        check=True,
        capture_output=True,
        text=True,
    )
    return folder / "dist"


@pytest.fixture(scope="module")
def wheel(built) -> set[str]:
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as file:
        return set(file.namelist())


def test_nothing_leaks_to_the_top(wheel):
    tops = {name.partition("/")[0] for name in wheel}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"tristate"}
    assert not [name for name in wheel if name.startswith("tristate/tests")]


def test_every_module_is_inside(wheel):
    for layer in ("kernels", "core", "vision", "audio", "bio", "recipes"):
        for path in (ROOT / layer).rglob("*.py"):
            assert f"tristate/{path.relative_to(ROOT)}" in wheel
    assert {"tristate/compat.py", "tristate/py.typed"} <= wheel


def test_recipes_data_and_licences_are_inside(wheel):
    assert {f"tristate/recipes/{name}.yaml" for name in catalog.names()} <= wheel
    assert "tristate/core/training/report.css" in wheel
    data = {str(p.relative_to(ROOT)) for p in ROOT.glob("*/data/**/*.gz")}
    assert data and {f"tristate/{path}" for path in data} <= wheel
    # Every folder of embedded data says where it is from and under which licence.
    for folder in {Path(path).parent for path in data}:
        assert f"tristate/{folder}/README.md" in wheel
        assert "licen" in (ROOT / folder / "README.md").read_text().lower()
    assert any(name.endswith("licenses/LICENSE") for name in wheel)


def test_the_sdist_builds_the_same(built, wheel):
    # `build` made the wheel from the sdist: what is in the one came through the other.
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE"} <= names
    assert "tristate/__init__.py" in wheel


def test_the_console_script_is_there(built):
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as file:
        (entry,) = [name for name in file.namelist() if name.endswith("entry_points.txt")]
        assert "tristate = tristate.recipes.cli:main" in file.read(entry).decode()


def test_each_lower_bound_is_at_most_what_was_tried():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for line in project["dependencies"]:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        assert requirement.specifier.contains(version(requirement.name), prereleases=True), line
        # A cap would need a reason.
        assert {spec.operator for spec in requirement.specifier} == {">="}, line
