"""``tristate bench``: this machine, measured against what a user would pick instead."""

import argparse
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from rich.table import Table
from torch import Tensor

from tristate.kernels.backend import available_backends
from tristate.kernels.registry import nearest
from tristate.recipes.bench import crossover, gpu, length, memory, models
from tristate.recipes.bench.cases import CASES, Case, cases
from tristate.recipes.bench.floors import memory_ms, scan_arithmetic
from tristate.recipes.bench.measure import interleaved, peak_bytes
from tristate.recipes.screen import screen
from tristate.recipes.usage import UsageError

KERNELS = """Times each kernel in one process, turn by turn with what it would replace: medians.

floor   the least time: the arithmetic of a scan from the first cache, or moving its inputs and
        outputs once, whichever is longer; measured in the same run
peers   how many times longer each takes; "whole mixer" ones do the projections around a scan too
"""

ABOUT = f"""tristate bench kernels
{KERNELS}
tristate bench models
{models.ABOUT}
Allocating fresh memory costs more than some kernels. To see the kernels alone, set
MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=4294967296 in the environment.
"""


PLOTS: dict[str, Callable[[Sequence[dict[str, Any]]], bytes]] = {
    crossover.OP: crossover.plot,
    length.OP: length.plot,
}


def main(words: Sequence[str]) -> int:
    """Measure, print a table, and write JSON where asked."""
    parser = argparse.ArgumentParser(
        prog="tristate bench",
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("what", choices=["kernels", "models"], help="what to measure")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help=f"of the kernels {', '.join(CASES)}; of the models {', '.join(models.names())}",
    )
    parser.add_argument("--quick", action="store_true", help="leave out the largest sizes")
    parser.add_argument("--threads", type=int, action="append", help="default: 1, and all cores")
    parser.add_argument("--device", default="cpu", help="default: cpu; kernels also on cuda, xpu")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there as well")
    parser.add_argument(
        "--plot",
        type=Path,
        metavar="FILE",
        help=f"draw {' or '.join(PLOTS)} as a PNG",
    )
    options = parser.parse_args(words)
    kernels = options.what == "kernels"
    if options.device != "cpu":
        if not kernels or options.plot or options.threads:
            raise UsageError("--device times kernels alone, without --plot and --threads")
        rows = gpu.run(options.only, options.quick, options.device)
        if options.json:
            options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        return 0
    for name in options.only if kernels else ():
        if name not in CASES:
            raise UsageError(f"no op {name!r} to measure; {nearest(name, CASES)}")
    drawn = [op for op in PLOTS if kernels and op in options.only]
    if options.plot and len(drawn) != 1:
        raise UsageError(f"--plot draws one of {', '.join(PLOTS)}: name it with --only")
    if "cpu" not in available_backends():
        raise UsageError("this processor has no fused multiply-add vectors: nothing fast to time")
    found = (cases if kernels else models.cases)(options.only, options.quick)
    rows = measure(found, options.threads)
    show(rows)
    for sentence in (*length.growth(rows), *memory.growth(rows)):
        print(sentence)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    if options.plot:
        options.plot.write_bytes(PLOTS[drawn[0]](rows))
    return 0


def measure(found: Iterable[Case], threads: Sequence[int] | None) -> list[dict[str, Any]]:
    """One row for each case, number of threads and direction."""
    before = torch.get_num_threads()
    counts = list(threads or dict.fromkeys((1, before)))
    rows = []
    with Progress(transient=True) as progress:
        for case in progress.track(list(found), description="measuring"):
            try:
                for count in counts:
                    torch.set_num_threads(count)
                    for direction in case.directions:
                        progress.console.log(f"{case.what}, {direction}, {count} threads")
                        rows.append(row(case, direction, count))
            finally:
                torch.set_num_threads(before)
    return rows


def row(case: Case, direction: str, threads: int) -> dict[str, Any]:
    """Time ours, the floor and the peers of one case."""
    if case.once:
        return _single(case, direction, threads)
    backward = direction != "forward"
    ours = _call(case, case.ours, backward)
    calls = {"ours": ours}
    if case.n_elements:
        calls["floor"] = scan_arithmetic(direction, case.n_elements)
    elif case.floor:
        calls["floor"] = case.floor
    calls |= {name: _call(case, peer, backward) for name, peer in case.peers.items()}
    ms = interleaved(calls, rounds=15, seconds=3)
    with torch.no_grad():
        out = case.ours(**case.inputs)
    n_bytes = case.input_bytes + out.numel() * out.element_size()
    # Back again: the inputs once more, the output's gradient, and a gradient for each input.
    n_bytes = 3 * n_bytes if backward else n_bytes
    return {
        "what": case.what,
        "shape": case.shape,
        "backend": "cpu",
        "direction": direction,
        "threads": threads,
        "ms": ms["ours"],
        "floor_ms": max(ms.get("floor", 0.0), memory_ms(n_bytes)),
        "peers": {name: ms[name] for name in case.peers},
        "peak_bytes": peak_bytes(ours),
    }


def _single(case: Case, direction: str, threads: int) -> dict[str, Any]:
    """Time and weigh one call."""
    began = time.perf_counter()
    peak = peak_bytes(lambda: case.ours(**case.inputs))
    return {
        "what": case.what,
        "shape": case.shape,
        "backend": "cpu",
        "direction": direction,
        "threads": threads,
        "ms": 1e3 * (time.perf_counter() - began),
        "floor_ms": memory_ms(case.shape["L"] * case.input_bytes),
        "peers": {},
        "peak_bytes": peak,
    }


def _call(case: Case, op: Callable[..., Tensor], backward: bool) -> Callable[[], object]:
    if not backward:

        def forward() -> object:
            with torch.no_grad():
                return op(**case.inputs)

        return forward
    leaves = {name: x.detach().requires_grad_() for name, x in case.inputs.items()}
    with torch.no_grad():
        ones = torch.ones_like(op(**case.inputs))

    def both() -> object:
        # Gradients that are there already would be added to: one more pass over each.
        for leaf in leaves.values():
            leaf.grad = None
        return op(**leaves).backward(ones)

    return both


def show(rows: Sequence[dict[str, Any]]) -> None:
    """The rows as a table: times, and ratios to the floor and to the peers.

    Of a prompt and of a step the time is that of a token.
    """
    table = Table(header_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("what", "direction"):
        table.add_column(column)
    generation = any("seen" in r["shape"] for r in rows)
    speed = "speed" if generation else "ms"
    for column in ("threads", speed, "x floor", "peak MB"):
        table.add_column(column, justify="right")
    table.add_column("peers, times slower")
    for r in rows:
        peers = ", ".join(f"{name} {ms / r['ms']:.3g}" for name, ms in r["peers"].items())
        peak = "" if r["peak_bytes"] is None else f"{r['peak_bytes'] / 1e6:.0f}"
        ratio = f"{r['ms'] / r['floor_ms']:.2f}"
        speed = _per_token(r) if generation else f"{r['ms']:.3g}"
        table.add_row(r["what"], r["direction"], str(r["threads"]), speed, ratio, peak, peers)
    screen().print(table)


def _per_token(row: Mapping[str, Any]) -> str:
    """Tokens a second of a prompt, microseconds of a step."""
    if "L" not in row["shape"]:
        return f"{1e3 * row['ms']:,.0f} us"
    return f"{1e3 * row['shape']['L'] / row['ms']:,.0f} tokens/s"
