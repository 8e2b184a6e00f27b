"""One run in a process of its own, and what came of it."""

import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path
from typing import Any

import tristate

_MAIN = "import sys; from tristate.recipes.cli import main; sys.exit(main())"
_RESULT = re.compile(r"test (?P<metric>.+) \S+  report (?P<page>.+)")


def run(
    recipe: str,
    settings: Sequence[str],
    *,
    threads: int | None = None,
    tell: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Run the recipe in a process of its own, so that its memory is its own; what came of it.

    Args:
        recipe: as of ``tristate run``.
        settings: the words behind it.
        threads: of the process; as many as this one would take when absent.
        tell: is given each line that the run prints.

    Returns:
        A row with ``seconds`` and, where the run failed, its last words as ``error``; else with
        ``folder`` and what :func:`results` finds there.
    """
    began = time.monotonic()
    # The package that runs here need not be an installed one.
    paths = [str(Path(tristate.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    last, found = "", None
    with subprocess.Popen(
        [sys.executable, "-c", _MAIN, "run", recipe, *settings],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    ) as process:
        for line in process.stdout or ():
            tell(line.rstrip("\n"))
            last = line.strip() or last
            found = _RESULT.fullmatch(line.strip()) or found
    row: dict[str, Any] = {"seconds": time.monotonic() - began}
    if process.returncode or not found:
        return {**row, "error": last.removeprefix("tristate: ")}
    folder = Path(found["page"]).parent
    try:
        return {**row, "folder": str(folder), **results(folder, found["metric"].replace(" ", "_"))}
    except KeyError:
        return {**row, "error": f"the test's {found['metric']} is not finite: see {found['page']}"}


def results(folder: Path, metric: str) -> dict[str, Any]:
    """Parameters, test result, items per second and peak memory of a run, from its folder.

    ``lengths`` holds the results by the length of a sequence where several were tested.

    Raises:
        KeyError: the test's result is not among the metrics, where only finite ones are read.
    """
    from safetensors import safe_open

    from tristate.core.training.curves import read_curves

    curves = read_curves(folder / "metrics.csv")
    with safe_open(folder / "weights.safetensors", "pt") as weights:
        shapes = [weights.get_slice(name).get_shape() for name in weights.keys()]  # noqa: SIM118
    row: dict[str, Any] = {
        "parameters": sum(map(prod, shapes)),
        "metric": metric,
        "result": curves[metric]["test"][-1][1],
        "lengths": {
            name.removeprefix(f"{metric}_"): stages["test"][-1][1]
            for name, stages in curves.items()
            if re.fullmatch(rf"{re.escape(metric)}_\d+", name) and "test" in stages
        },
    }
    for name, stages in curves.items():
        if "_per_" in name and "train" in stages:
            row["rate"] = statistics.median(value for _, value in stages["train"])
            row["unit"] = name.replace("_per_second", "/s")
    memory = curves.get("memory_mb", {}).get("train", [])
    row["memory_mb"] = max((value for _, value in memory), default=None)
    return row
