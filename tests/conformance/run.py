"""Checks this package against golden vectors: what the original implementations compute, as files.

    python tests/conformance/run.py --golden DIR [--only GLOB] [--json FILE]
                                    [--backend reference|cpu|triton] [--dtype float64|float32]

Prints one line a file and a sum at the end. Exit status 1 where a file fails that must pass: those
with scope "must" in ``DIR/index.json``, or all of them where there is no such index.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType

import torch

if __name__ == "__main__":
    # Run from a bare clone, find the package and the files beside this one. The root itself stays
    # off the path: `kernels` would be found there under a second name.
    ROOT = Path(__file__).resolve().parents[2]
    sys.path[0] = str(ROOT / ".pkg")
    tests = ModuleType("tests")
    tests.__path__ = [str(ROOT / "tests")]
    sys.modules["tests"] = tests

from tests.conformance.execute import Result, check


def golden_files(folder: Path) -> Iterator[Path]:
    """Every file of results: not the index, and not layouts, which hold only names and shapes."""
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".safetensors":
            yield path
        elif path.suffix == ".json" and path != folder / "index.json":
            table = json.loads(path.read_text())
            if not (isinstance(table, dict) and isinstance(table.get("keys"), dict)):
                yield path


def may_fail(folder: Path) -> set[str]:
    """Files that may fail: those that the index lists with another scope than "must"."""
    index = folder / "index.json"
    if not index.exists():
        return set()
    return {row["file"] for row in json.loads(index.read_text()) if row.get("scope") != "must"}


def line(result: Result) -> str:
    """One result as text."""
    errors = (("output", result.output_error), ("gradient", result.grad_error))
    parts = [f"{what} {error:.1e}" for what, error in errors if error is not None]
    return "  ".join([result.status, result.file, *parts, *filter(None, [result.reason])])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the files and report; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--golden", type=Path, required=True, help="folder of golden vectors")
    parser.add_argument("--only", default="*", help="run only files whose path matches")
    parser.add_argument("--json", type=Path, help="write the results there")
    parser.add_argument("--backend", choices=["reference", "cpu", "triton"])
    parser.add_argument(
        "--dtype",
        choices=["float64", "float32"],
        help="default: float32 for the fast backends, else float64",
    )
    options = parser.parse_args(arguments)
    if not options.golden.is_dir():
        parser.error(f"no folder {options.golden}")
    fast = options.backend in ("cpu", "triton")
    dtype = getattr(torch, options.dtype or ("float32" if fast else "float64"))

    results = []
    for path in golden_files(options.golden):
        name = path.relative_to(options.golden).as_posix()
        if fnmatch(name, options.only):
            results.append(check(path, name, options.backend, dtype))
            sys.stdout.write(line(results[-1]) + "\n")
    if not results:
        parser.error(f"no golden file matches {options.only!r} in {options.golden}")
    counts = Counter(result.status for result in results)
    sys.stdout.write(
        f"{counts['PASS']} passed, {counts['FAIL']} failed, {counts['UNSUPPORTED']} unsupported\n"
    )
    if options.json:
        options.json.write_text(json.dumps([asdict(result) for result in results], indent=1))
    welcome = may_fail(options.golden)
    return int(any(r.status == "FAIL" and r.file not in welcome for r in results))


if __name__ == "__main__":
    sys.exit(main())
