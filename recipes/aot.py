"""``tristate aot``: compiles the Triton kernels for GPUs that aren't here."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tristate
from tristate.core.errors import UserError
from tristate.kernels.registry import nearest
from tristate.kernels.triton.cases import CASES
from tristate.kernels.triton.interpreter import is_installed
from tristate.kernels.triton.targets import TARGETS
from tristate.recipes.usage import UsageError

ABOUT = """Compiles every Triton kernel in its default configurations, by every plan that may be
chosen, and shows what it takes: registers a thread, bytes spilled for want of registers, and shared
memory a program.

No GPU is needed; it takes some ten minutes a target on one core."""


def main(words: Sequence[str]) -> int:
    """Compile, print a table, write JSON where asked; 1 where a kernel spills or doesn't fit."""
    parser = argparse.ArgumentParser(
        prog="tristate aot",
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    targets = ", ".join(f"{name} ({target.about})" for name, target in TARGETS.items())
    parser.add_argument("--target", action="append", metavar="GPU", help=f"of {targets}")
    parser.add_argument("--only", action="append", metavar="OP", help=f"of {', '.join(CASES)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there as well")
    parser.add_argument(
        "--markdown",
        type=Path,
        metavar="FILE",
        help="write a table there: the most that each takes",
    )
    options = parser.parse_args(words)
    for name in options.target or ():
        if name not in TARGETS:
            raise UsageError(f"no target {name!r}; {nearest(name, TARGETS)}")
    for name in options.only or ():
        if name not in CASES:
            raise UsageError(f"no op {name!r} with Triton kernels; {nearest(name, CASES)}")
    if not is_installed():
        raise UserError("the package triton isn't installed: there is nothing to compile with")
    rows = measure(options.target or list(TARGETS), options.only or list(CASES))
    show(rows)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    if options.markdown:
        options.markdown.write_text(markdown(rows), encoding="utf-8")
    return int(any(not fits(row) for row in rows))


def fits(row: dict[str, Any]) -> bool:
    """Whether a kernel spills nothing and finds the shared memory that it needs."""
    return not row["spill_bytes"] and row["shared_bytes"] <= TARGETS[row["target"]].shared_bytes


def measure(targets: Sequence[str], ops: Sequence[str]) -> list[dict[str, Any]]:
    """A row a kernel, configuration and target; a process a target and op, one for each core."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        parts = pool.map(lambda job: _compiled(*job), [(t, op) for op in ops for t in targets])
    return [row for part in parts for row in part]


def _compiled(target: str, op: str) -> list[dict[str, Any]]:
    # Interpreted kernels can't be compiled, and the variable counts when Triton is imported.
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    package = str(Path(tristate.__file__).parents[1])
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, [package, environment.get("PYTHONPATH")])
    )
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "tristate.kernels.triton.compile", target, op],
            env=environment | {"TRITON_CACHE_DIR": cache},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise UserError(f"{op} doesn't compile for {target}:\n{done.stderr.strip()[-4000:]}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """A page with a line a kernel: the most that it takes of each target, of all configurations."""
    targets = list(dict.fromkeys(row["target"] for row in rows))
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for row in rows:
        found.setdefault(row["kernel"], {}).setdefault(row["target"], []).append(row)
    head = ("kernel", "configurations", *(f"{x} ({TARGETS[x].about})" for x in targets))
    lines = [
        "# What the GPU kernels take",
        "",
        f"Made by `tristate aot --markdown FILE` with Triton {version('triton')}: the most that",
        "any configuration takes, registers a thread / bytes spilled / KiB of shared memory.",
        "",
        " | ".join(head).join(("| ", " |")),
        "| --- " * len(head) + "|",
    ]
    for kernel in sorted(found):
        cells = [_most(found[kernel].get(target, [])) for target in targets]
        count = max(map(len, found[kernel].values()))
        lines.append(" | ".join((f"`{kernel}`", str(count), *cells)).join(("| ", " |")))
    bad = [row for row in rows if not fits(row)]
    lines += ["", f"{len(rows)} compiled, {len(bad)} of them spill or do not fit."]
    return "\n".join(lines) + "\n"


def _most(rows: Sequence[dict[str, Any]]) -> str:
    if not rows:
        return ""
    numbers = [max(row[name] for row in rows) for name in ("registers", "spill_bytes")]
    shared = max(row["shared_bytes"] for row in rows) / 1024
    return " / ".join((*map(str, numbers), f"{shared:.3g}"))


def show(rows: Sequence[dict[str, Any]]) -> None:
    """The rows as plain text; what spills or doesn't fit is marked."""
    head = ("kernel", "target", "registers", "spilled", "shared", "configuration")
    lines: list[tuple[str, ...]] = [head]
    for row in rows:
        numbers = (row[name] for name in ("registers", "spill_bytes", "shared_bytes"))
        mark = "" if fits(row) else " <-- doesn't fit"
        lines.append((row["kernel"], row["target"], *map(str, numbers), row["config"] + mark))
    widths = [max(len(line[k]) for line in lines) for k in range(len(head))]
    for line in lines:
        print("  ".join(text.ljust(n) for text, n in zip(line, widths, strict=True)).rstrip())
