"""``tristate compare``: one recipe run for several values of a setting, and what came of each."""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tristate

ABOUT = """Runs a recipe once for each value of a setting, one after another, and prints a table:
parameters, the test's main metric, training speed, time, and the largest memory of the process.

  tristate compare vision/pixels_fashion --vary model.backbone_args.mixer=s4d,lru --parameters 50000

Any other --key value goes to each run. With --parameters every run gets the width (the setting
model.backbone_args.d_model) at which its model comes nearest to so many parameters.
"""
WIDTH = "model.backbone_args.d_model"
# Widths that --parameters chooses among.
WIDTHS = range(8, 1025, 2)
_MAIN = "import sys; from tristate.recipes.cli import main; sys.exit(main())"
_RESULT = re.compile(r"test (?P<metric>.+) \S+  report (?P<page>.+)")


def main(words: Sequence[str]) -> int:
    """Run, print the table, and write JSON where asked; 1 where a run failed."""
    parser = argparse.ArgumentParser(
        prog="tristate compare",
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("recipe", help="a name from `tristate list`, or a YAML file")
    parser.add_argument("--vary", required=True, metavar="KEY=A,B,...", help="setting and values")
    parser.add_argument("--parameters", type=int, metavar="N", help="choose each run's width")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there as well")
    options, settings = parser.parse_known_args(words)
    key, _, listed = options.vary.partition("=")
    values = [value for value in listed.split(",") if value]
    if not key or not values:
        parser.error(f"--vary wants KEY=A,B,..., got {options.vary!r}")
    rows = []
    for value in values:
        given = [f"--{key}={value}", *settings]
        if options.parameters:
            width = nearest_width(options.recipe, given, options.parameters)
            given.append(f"--{WIDTH}={width}")
        print(f"\n{key} {value}", flush=True)
        rows.append({"value": value, "settings": given, **run(options.recipe, given)})
        if options.json:
            options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    show(key, rows)
    return 0 if all("folder" in row for row in rows) else 1


def nearest_width(recipe: str, settings: Sequence[str], target: int) -> int:
    """The width in ``WIDTHS`` at which the recipe's model has nearest to ``target`` parameters.

    Widths that the model refuses, because its heads don't divide them say, are passed over.

    Raises:
        UsageError: the recipe or a setting is not understood, or its model has no such width.
    """
    from tristate.recipes.builder import Experiment
    from tristate.recipes.session import hush
    from tristate.recipes.usage import UsageError

    hush()
    experiment = Experiment("validate", recipe, settings)
    experiment.discard_empty_folder()
    task = experiment.model
    arguments: dict[str, Any] = dict(task.hparams)
    if "backbone_args" not in arguments:
        raise UsageError(f"--parameters sets {WIDTH}: {type(task).__name__} has no backbone_args")

    def count(width: int) -> int | None:
        changed = {**(arguments["backbone_args"] or {}), "d_model": width}
        try:
            model = type(task)(**{**arguments, "backbone_args": changed})
        except ValueError:
            return None
        return sum(p.numel() for p in model.parameters())

    return nearest(count, target)


def nearest(count: Callable[[int], int | None], target: int) -> int:
    """The width whose ``count`` comes nearest to ``target``; counts grow with the width."""
    found: dict[int, int] = {}
    low, high = 0, len(WIDTHS)
    while low < high:
        middle = (low + high) // 2
        # A refused width is judged by the next one that isn't.
        index, n = next(
            ((i, n) for i in range(middle, high) if (n := count(WIDTHS[i])) is not None),
            (high, None),
        )
        if n is not None:
            found[WIDTHS[index]] = n
        if n is None or n >= target:
            high = middle
        else:
            low = index + 1
    if not found:
        raise ValueError(f"the model refuses every width of {WIDTHS}")
    return min(found, key=lambda width: abs(found[width] - target))


def run(recipe: str, settings: Sequence[str]) -> dict[str, Any]:
    """Run the recipe in a process of its own, so that its memory is its own; what came of it.

    Returns:
        A row without ``folder`` where the run failed; its own message says why.
    """
    began = time.monotonic()
    # The package that runs here need not be an installed one.
    paths = [str(Path(tristate.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    with subprocess.Popen(
        [sys.executable, "-c", _MAIN, "run", recipe, *settings],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
    ) as process:
        last = ""
        for line in process.stdout or ():
            print(line, end="", flush=True)
            last = line.strip() or last
    found = _RESULT.fullmatch(last)
    if process.returncode or not found:
        return {"seconds": time.monotonic() - began}
    folder = Path(found["page"]).parent
    return {
        "seconds": time.monotonic() - began,
        "folder": str(folder),
        **results(folder, found["metric"].replace(" ", "_")),
    }


def results(folder: Path, metric: str) -> dict[str, Any]:
    """Parameters, test result, items per second and peak memory of a run, from its folder."""
    from safetensors import safe_open

    from tristate.core.training.curves import read_curves

    curves = read_curves(folder / "metrics.csv")
    with safe_open(folder / "weights.safetensors", "pt") as weights:
        shapes = [weights.get_slice(name).get_shape() for name in weights.keys()]  # noqa: SIM118
    row: dict[str, Any] = {
        "parameters": sum(_product(shape) for shape in shapes),
        "metric": metric,
        "result": curves[metric]["test"][-1][1],
    }
    for name, stages in curves.items():
        if "_per_" in name and "train" in stages:
            row["rate"] = statistics.median(value for _, value in stages["train"])
            row["unit"] = name.replace("_per_second", "/s")
    memory = curves.get("memory_mb", {}).get("train", [])
    row["memory_mb"] = max((value for _, value in memory), default=None)
    return row


def _product(shape: Sequence[int]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total


def show(key: str, rows: Sequence[dict[str, Any]]) -> None:
    """The rows as a table."""
    from rich.console import Console
    from rich.table import Table

    done = [row for row in rows if "folder" in row]
    metric = done[0]["metric"].replace("_", " ") if done else "result"
    unit = next((row["unit"] for row in done if "unit" in row), "items/s")
    table = Table(header_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(key.rpartition(".")[2])
    for column in ("parameters", f"test {metric}", unit, "minutes", "MB"):
        table.add_column(column, justify="right")
    for row in rows:
        cells = ["", "failed", "", f"{row['seconds'] / 60:.1f}", ""]
        if "folder" in row:
            cells[:2] = [f"{row['parameters']:,}", f"{row['result']:.3f}"]
            cells[2] = f"{row['rate']:.3g}" if "rate" in row else ""
            cells[4] = f"{row['memory_mb']:.0f}" if row["memory_mb"] is not None else ""
        table.add_row(row["value"], *cells)
    console = Console(markup=False, highlight=False)
    console.print()
    console.print(table)
