"""``tristate bench kernels --device``: the kernels on a GPU, against what a user would take.

Times are the device's own, between events; each call has inputs that lie in no cache.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from tristate.kernels.backend import available_backends, use_backend
from tristate.kernels.registry import nearest
from tristate.kernels.triton.clock import Clock, clock_of, interleaved
from tristate.kernels.triton.tune import device_name
from tristate.recipes.bench.cases import Case
from tristate.recipes.bench.gpu import limits, peers
from tristate.recipes.bench.gpu.cases import OPS, selected
from tristate.recipes.bench.gpu.rotation import rotating
from tristate.recipes.screen import screen
from tristate.recipes.usage import UsageError

ROUNDS = 20

Row = dict[str, Any]


def gpu(words: str) -> torch.device:
    """The GPU of a name such as ``cuda`` or ``cuda:1``.

    Raises:
        UsageError: it isn't here, or Triton isn't.
    """
    try:
        device = torch.device(words)
    except RuntimeError as error:
        raise UsageError(f"no device {words!r}: cpu, cuda, cuda:1, xpu, ...") from error
    kind, index = device.type, device.index or 0
    count = getattr(torch, kind).device_count() if kind in ("cuda", "xpu") else 0
    if index >= count:
        raise UsageError(f"no device {words!r} here: kernels run on the cpu, or a GPU with Triton")
    if "triton" not in available_backends():
        raise UsageError("the package triton isn't installed: there is nothing to time on a GPU")
    return torch.device(kind, index)


def run(only: Collection[str], quick: bool, device: str) -> list[Row]:
    """Measure the named ops, or all, on a GPU and print the table."""
    for name in only:
        if name not in OPS:
            raise UsageError(f"no op {name!r} to measure on a GPU; {nearest(name, OPS)}")
    rows = measure(only, quick, gpu(device))
    show(rows)
    for sentence in sentences(rows):
        print(sentence)
    return rows


def measure(only: Collection[str], quick: bool, device: torch.device) -> list[Row]:
    """A row a case and direction; ops and packages that aren't there are told."""
    clock, console = clock_of(device), Console(stderr=True, markup=False, highlight=False)
    bandwidth = limits.copied(device, clock)
    found = []
    for case in selected(only, quick, device):
        for direction in case.directions:
            console.print(f"{case.what}, {direction}")
            try:
                found.append(row(case, direction, device, clock, bandwidth))
            except ValueError as error:
                # An op for which there is no kernel yet is told; what is wrong is not hidden.
                if "has no triton backend" not in str(error):
                    raise
                console.print(str(error))
                break
    for sentence in peers.absent():
        console.print(sentence)
    return found


def row(case: Case, direction: str, device: torch.device, clock: Clock, bandwidth: float) -> Row:
    """Time ours and the peers, in turn, by the contract of ``tristate bench``, and ``gb_per_s``.

    Args:
        case: an op with inputs on the device.
        direction: ``"forward"`` or ``"forward+backward"``.
        device: where it runs.
        clock: that times it.
        bandwidth: bytes a second that a copy moves there.
    """
    backward = direction != "forward"
    with use_backend("triton"):
        with torch.no_grad():
            out = case.ours(**case.inputs)
        calls = {"ours": rotating(case.ours, case.inputs, backward)}
        calls |= {name: rotating(op, case.inputs, backward) for name, op in case.peers.items()}
        for call in calls.values():
            call()  # compiles, and chooses its plan
        peak = peak_bytes(calls["ours"], device)
        times = interleaved([*calls.values()], clock, ROUNDS)
    ms = dict(zip(calls, times, strict=True))
    least = least_bytes(case, out, backward)
    rate = limits.exponentials(device)
    # Backward makes the states again, and their gradients.
    arithmetic = case.n_elements * (3 if backward else 1) / rate if rate else 0.0
    return {
        "what": case.what,
        "shape": case.shape,
        "backend": "triton",
        "direction": direction,
        "threads": 1,
        "ms": ms["ours"],
        "floor_ms": 1e3 * max(least / bandwidth, arithmetic),
        "peers": {name: ms[name] for name in case.peers},
        "peak_bytes": peak,
        "device": device_name(device),
        "gb_per_s": 1e-6 * least / ms["ours"],
    }


def least_bytes(case: Case, out: Tensor | tuple[Tensor, ...], backward: bool) -> int:
    """What must be moved: inputs and outputs once; back again, both and the inputs' gradients."""
    outputs = out if isinstance(out, tuple) else (out,)
    n_out = sum(x.numel() * x.element_size() for x in outputs)
    return (3 * case.input_bytes + 2 * n_out) if backward else case.input_bytes + n_out


def peak_bytes(call: Any, device: torch.device) -> int | None:
    """Most memory that the device held during a call beyond what it held before."""
    if device.type == "cpu":
        return None
    module = getattr(torch, device.type)
    module.synchronize(device)
    before = module.memory_allocated(device)
    module.reset_peak_memory_stats(device)
    call()
    module.synchronize(device)
    return module.max_memory_allocated(device) - before


def show(rows: Sequence[Row]) -> None:
    """The rows as a table: times, bytes a second, ratios to the floor and to the peers."""
    table = Table(header_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("what", "direction"):
        table.add_column(column)
    for column in ("ms", "x floor", "GB/s", "peak MB"):
        table.add_column(column, justify="right")
    table.add_column("peers, times slower")
    for r in rows:
        others = ", ".join(f"{name} {ms / r['ms']:.3g}" for name, ms in r["peers"].items())
        peak = "" if r["peak_bytes"] is None else f"{r['peak_bytes'] / 1e6:.0f}"
        table.add_row(
            r["what"],
            r["direction"],
            f"{r['ms']:.3g}",
            f"{r['ms'] / r['floor_ms']:.2f}",
            f"{r['gb_per_s']:.0f}",
            peak,
            others,
        )
    screen().print(table)


def sentences(rows: Sequence[Row]) -> Iterator[str]:
    """What the memory of each device could move, as its maker states it."""
    for name in dict.fromkeys(r["device"] for r in rows):
        rate = limits.published(name)
        stated = (
            "no bandwidth is stated here" if rate is None else f"stated {1e-9 * rate:,.0f} GB/s"
        )
        yield f"{name}: {stated}; GB/s count what an op must move, once"
