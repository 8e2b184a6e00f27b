"""``tristate compare``: a recipe run for several values of settings, and what came of each."""

import argparse
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Any

from tristate.recipes.compare import table
from tristate.recipes.compare.axes import Axis, grid
from tristate.recipes.compare.outcome import run
from tristate.recipes.compare.width import WIDTH, nearest_width

ABOUT = """Runs a recipe once for each value of a setting and prints a table: parameters, the test's
main metric, training speed, time, and the largest memory of the process.

  tristate compare vision/pixels_fashion --vary model.backbone_args.mixer=s4d,lru --parameters 50000

Any other --key value goes to each run. With --parameters every run gets the width (the setting
model.backbone_args.d_model) at which its model comes nearest to so many parameters.

With several --vary every combination is run. --plot draws results over the setting that was varied
last, a line for each value of the others; where runs are tested at several lengths
(data.test_lengths), it draws them over the length.

  tristate compare RECIPE --vary model.backbone_args.mixer=mamba2,attention \\
    --vary model.backbone_args.d_model=16,32,64 --plot width.png

Where a value needs further settings, they stand behind it, each after a semicolon; a key that
begins with a dot stands beside the first one. A setting may also be `config`, whose values are YAML
files that are laid over the recipe.

  --vary 'model.backbone_args.mixer=s4d,attention;.mixer_args.n_heads=1;model.lr=1e-3'
  --vary config=small.yaml,large.yaml

Runs that fail are named at the end, and the others go on. --json keeps the rows as they come in;
`tristate compare --from FILE.json ...` shows, joins and draws what was kept.
"""


def main(words: Sequence[str]) -> int:
    """Run, print the tables, write and draw where asked; 1 where a run failed."""
    parser = argparse.ArgumentParser(
        prog="tristate compare",
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("recipe", nargs="?", help="a name from `tristate list`, or a YAML file")
    add("--vary", action="append", default=[], metavar="KEY=A,B,...", help="setting and values")
    add("--parameters", type=int, metavar="N", help="choose each run's width")
    add("--jobs", type=int, default=1, metavar="N", help="runs at a time; they share the threads")
    add("--from", dest="files", type=Path, nargs="+", metavar="FILE", help="show runs of earlier")
    add("--json", type=Path, metavar="FILE", help="write the rows there as well")
    add("--plot", type=Path, metavar="FILE", help="draw the results as FILE.png or FILE.svg")
    options, settings = parser.parse_known_args(words)
    if options.plot and options.plot.suffix not in (".png", ".svg"):
        parser.error(f"--plot draws a .png or an .svg, got {options.plot}")
    if options.files:
        if options.recipe or options.vary or settings:
            parser.error("--from shows runs of earlier: it takes no recipe and no settings")
        rows = table.read(options.files)
        if options.json:
            table.write(options.json, rows)
    elif not options.recipe or not options.vary:
        parser.error("name a RECIPE and at least one --vary KEY=A,B,..., or files with --from")
    elif options.jobs < 1:
        parser.error(f"--jobs wants at least 1, got {options.jobs}")
    else:
        rows = compare(options, settings)
    table.show(rows)
    if options.plot:
        table.draw(options.plot, rows)
    return 0 if all("folder" in row for row in rows) else 1


def compare(options: argparse.Namespace, settings: Sequence[str]) -> list[dict[str, Any]]:
    """Run every combination; the rows in their order, kept as JSON as they come in."""
    plans = []
    for varied, own in grid([Axis.read(text) for text in options.vary]):
        given = [*own, *settings]
        if options.parameters:
            width = nearest_width(options.recipe, given, options.parameters)
            given.append(f"--{WIDTH}={width}")
        plans.append({"recipe": options.recipe, "varied": varied, "settings": given})
    threads = _share(options.jobs) if options.jobs > 1 else None
    rows: list[dict[str, Any]] = [{} for _ in plans]
    with ThreadPoolExecutor(options.jobs) as pool:
        waiting = {
            pool.submit(_carry_out, plan, threads): index for index, plan in enumerate(plans)
        }
        try:
            for future in as_completed(waiting):
                rows[waiting[future]] = future.result()
                if options.json:
                    table.write(options.json, [row for row in rows if row])
        except BaseException:
            # What runs was interrupted as well; the rest must not begin.
            pool.shutdown(cancel_futures=True)
            raise
    return rows


def _carry_out(plan: dict[str, Any], threads: int | None) -> dict[str, Any]:
    label = ", ".join(plan["varied"].values())
    if threads is None:
        print("\n" + ", ".join(f"{key} {name}" for key, name in plan["varied"].items()), flush=True)
    tell = partial(print, flush=True) if threads is None else partial(_tell, label)
    return {**plan, **run(plan["recipe"], plan["settings"], threads=threads, tell=tell)}


_TELLING = threading.Lock()


def _tell(label: str, line: str) -> None:
    """Print a line of one of several runs that go on at the same time."""
    with _TELLING:
        print(f"[{label}] {line}", flush=True)


def _share(jobs: int) -> int:
    """Threads of each of ``jobs`` processes."""
    import torch

    return max(1, torch.get_num_threads() // jobs)
