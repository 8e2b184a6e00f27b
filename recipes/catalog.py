"""Where the recipes are: by name in this package, or as a file; ``tristate list`` and ``copy``."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import yaml

from tristate.core.errors import UserError
from tristate.kernels.registry import nearest
from tristate.recipes.usage import UsageError

ROOT = Path(__file__).parent


@dataclass(frozen=True)
class About:
    """The ``about`` block that opens a recipe.

    Attributes:
        domain: ``vision``, ``audio`` or ``bio``; ``any`` for what is made up.
        model: the model, in a few words.
        data: the data, in a few words.
        cost: time and machine.
        result: what to expect of the main metric.
        source: where the result comes from: ``measured ...`` here, or ``published: ...`` elsewhere.
    """

    domain: str
    model: str
    data: str
    cost: str
    result: str
    source: str

    @property
    def published(self) -> bool:
        """Whether the result is somebody else's figure, not one measured with this code."""
        return self.source.startswith("published")


def names() -> list[str]:
    """Names of the recipes of this package, such as ``vision/vim_micro_fashion``."""
    return sorted(str(path.relative_to(ROOT).with_suffix("")) for path in ROOT.glob("*/*.yaml"))


def find(recipe: str) -> Path:
    """The file of a recipe, given by name or as a path.

    Raises:
        UsageError: there is no such recipe; the nearest names are in the message.
    """
    if recipe.endswith((".yaml", ".yml")):
        if not Path(recipe).is_file():
            raise UsageError(f"there is no recipe file {recipe}")
        return Path(recipe)
    if recipe not in names():
        short = {name.rpartition("/")[2]: name for name in names()}
        hint = f"did you mean {short[recipe]}?" if recipe in short else nearest(recipe, names())
        raise UsageError(f"unknown recipe {recipe!r}; {hint}")
    return ROOT / f"{recipe}.yaml"


def about(path: Path) -> About:
    """The ``about`` block of a recipe file.

    Raises:
        UserError: it is missing, or not as :class:`About` says.
    """
    block = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("about")
    wanted = [field.name for field in fields(About)]
    if not isinstance(block, dict) or sorted(block) != sorted(wanted):
        found = sorted(block) if isinstance(block, dict) else block
        raise UserError(f"{path}: about needs the keys {', '.join(wanted)}, got {found}")
    entry = About(**{key: str(value) for key, value in block.items()})
    if not entry.source.startswith(("measured", "published")):
        raise UserError(
            f"{path}: about.source must begin with measured or published, got {entry.source!r}"
        )
    return entry


def show(words: Sequence[str]) -> int:
    """``tristate list [--json]``: every recipe with model, data, cost and expected result."""
    if unknown := [word for word in words if word != "--json"]:
        raise UsageError(f"tristate list takes only --json, got {' '.join(unknown)}")
    entries = {name: about(ROOT / f"{name}.yaml") for name in names()}
    if words:
        rows = [
            {"name": name, **asdict(entry), "published": entry.published}
            for name, entry in entries.items()
        ]
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return 0

    from rich.table import Table

    from tristate.recipes.screen import screen

    table = Table(box=None, pad_edge=False, show_edge=False, padding=(0, 2, 1, 0))
    table.add_column("recipe", style="bold", no_wrap=True)
    table.add_column("model and data")
    table.add_column("cost and expected result")
    for name, entry in entries.items():
        result = f"{entry.cost}\n{entry.result}\n({entry.source})"
        table.add_row(name, f"{entry.model}\n{entry.data}", result)
    screen().print(table)
    return 0


def copy(words: Sequence[str]) -> int:
    """``tristate copy RECIPE [FILE]``: write a recipe's YAML to ``FILE``, never over another."""
    if not 1 <= len(words) <= 2 or words[0].startswith("-"):
        raise UsageError("tristate copy takes RECIPE and, if you like, FILE")
    source = find(words[0])
    target = Path(words[1]) if len(words) == 2 else Path(source.name)
    if target.suffix not in (".yaml", ".yml"):
        raise UsageError(f"a recipe's file ends in .yaml, got {target}")
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(source.read_text(encoding="utf-8"))
    except FileExistsError:
        raise UserError(f"{target} is already there; give another FILE") from None
    except OSError as error:
        raise UserError(f"can't write {target}: {error.strerror}") from None
    print(f"wrote {target}; edit it, then: tristate run {target}")
    return 0
