"""``tristate doctor``: checks every op on this machine's own devices."""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tristate.kernels.backend import available_backends, use_backend
from tristate.recipes.doctor import plans
from tristate.recipes.doctor.cases import CASES, STEPS
from tristate.recipes.machine import processor, versions

ABOUT = """Runs every op on every device here, by each backend that the device has, against the
reference in float64 on the CPU. Prints a table that can be pasted into a bug report.

error      of outputs and gradients: largest difference, over the largest value of the tensor
reference  the op in plain PyTorch: taken where a device has nothing faster for it
plans      how GPU kernels share out their work; the fastest is chosen when an op first meets sizes
           of a kind, and kept in the user's cache; TRISTATE_AUTOTUNE=0 takes the default"""

# In float32, of a few hundred terms.
LIMITS = {"output_error": 2e-5, "grad_error": 1e-4}


def main(words: Sequence[str]) -> int:
    """Check, print, write JSON where asked; 1 where an op is further off than float32 explains."""
    parser = argparse.ArgumentParser(
        prog="tristate doctor",
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there as well")
    options = parser.parse_args(words)
    for line in about():
        print(line)
    rows = list(examine())
    show(rows)
    bad = [row for row in rows if not is_well(row)]
    for row in bad:
        print(f"{row['op']} is wrong on {row['device']} by {row['backend']}: {row['reason']}")
    print(f"{len(rows) - len(bad)} of {len(rows)} are right")
    for line in plans.lines(devices()[1:]):
        print(line)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return int(bool(bad))


def about() -> Iterator[str]:
    """The machine, a line each."""
    yield ", ".join(f"{name} {version}" for name, version in versions().items())
    yield platform.platform()
    yield f"cpu: {processor()}, vectors {torch.backends.cpu.get_cpu_capability()}"
    for device in devices()[1:]:
        yield f"{device}: {getattr(torch, device.type).get_device_name(device)}"
    if torch.version.cuda or torch.version.hip:
        kind, number = (
            ("HIP", torch.version.hip) if torch.version.hip else ("CUDA", torch.version.cuda)
        )
        yield f"PyTorch is built for {kind} {number}"
    yield f"backends: {', '.join(available_backends())}"


def devices() -> list[torch.device]:
    """The CPU, and every GPU."""
    found = [torch.device("cpu")]
    for kind in ("cuda", "xpu"):
        found += [torch.device(kind, k) for k in range(getattr(torch, kind).device_count())]
    return found


def examine() -> Iterator[dict[str, Any]]:
    """A row for each op, device and backend."""
    for name in CASES:
        torch.manual_seed(0)
        op, tensors, options = CASES[name]()
        run = partial(_results, op, options, name not in STEPS)
        exact = run("reference", {k: _widened(x) for k, x in tensors.items()})
        for device in devices():
            here = {k: x.to(device) for k, x in tensors.items()}
            for backend in _backends(name, device, run, here):
                row = {"op": name, "device": str(device), "backend": backend}
                yield row | _compare(partial(run, backend, here), device, exact)


def _widened(x: Tensor) -> Tensor:
    return x.to(torch.complex128 if x.is_complex() else torch.float64)


def _backends(name: str, device: torch.device, run: Any, tensors: Any) -> list[str]:
    """Those to examine on a device: the fast ones that have the op, else the reference."""
    fast = ("triton",) if device.type != "cpu" or name in STEPS else ("cpu", "triton")
    here = available_backends()
    return [x for x in fast if x in here and _has(x, run, tensors)] or ["reference"]


def _has(backend: str, run: Any, tensors: Any) -> bool:
    try:
        run(backend, tensors)
    except ValueError as error:
        return f"has no {backend} backend" not in str(error)
    except Exception:
        # Broken is not absent: it fails again where that is written down.
        return True
    return True


def _compare(
    run: Callable[[], Mapping[str, Tensor]], device: torch.device, exact: Mapping[str, Tensor]
) -> dict[str, Any]:
    try:
        got = run()
        ms = _milliseconds(run, device)
    except Exception as error:  # the report goes on to the next op whatever this one does
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        return {"output_error": None, "grad_error": None, "ms": None, "reason": reason}
    errors = {name: _error(x, exact[name]) for name, x in got.items()}
    grads = [x for name, x in errors.items() if name.startswith("grad.")]
    found = {
        "output_error": max(x for name, x in errors.items() if not name.startswith("grad.")),
        "grad_error": max(grads, default=0.0),
    }
    worst = max(errors, key=lambda name: errors[name])
    off = any(not found[name] <= limit for name, limit in LIMITS.items())
    return {**found, "ms": ms, "reason": f"{worst} is off by {errors[worst]:.1e}" if off else ""}


def _results(
    op: Any, options: Any, differentiable: bool, backend: str, tensors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Outputs by number, and the gradient of their sum of squares for each input."""
    leaves = {name: x.detach().requires_grad_(differentiable) for name, x in tensors.items()}
    with use_backend(backend):
        outputs = op(**leaves, **options)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        named = {f"output {k}": x.detach() for k, x in enumerate(outputs)}
        if not differentiable:
            return named
        loss = torch.stack([(x * x.conj()).real.sum() for x in outputs]).sum()
        grads = torch.autograd.grad(loss, list(leaves.values()))
    return named | {f"grad.{name}": x for name, x in zip(leaves, grads, strict=True)}


def _error(got: Tensor, exact: Tensor) -> float:
    """``max|difference| / max|exact|``; infinite where something isn't a number."""
    difference = (got.to(exact.device, exact.dtype) - exact).abs().max().item()
    return difference / (exact.abs().max().item() or 1.0) if difference == difference else torch.inf


def _milliseconds(run: Callable[[], object], device: torch.device) -> float:
    """Median time of both directions, of what ran before."""
    wait = getattr(torch, device.type).synchronize if device.type != "cpu" else nullcontext
    times = []
    for _ in range(5):
        wait()
        began = time.perf_counter()
        run()
        wait()
        times.append(time.perf_counter() - began)
    return 1e3 * statistics.median(times)


def is_well(row: Mapping[str, Any]) -> bool:
    """Whether an op ran, and is as near to the truth as float32 lets it be."""
    return not row["reason"]


def show(rows: Sequence[Mapping[str, Any]]) -> None:
    """The rows as plain text."""
    head = ("op", "device", "backend", "error", "of gradients", "ms")
    lines: list[tuple[str, ...]] = [head]
    for row in rows:
        errors = (row["output_error"], row["grad_error"])
        numbers = ["failed" if x is None else f"{x:.1e}" for x in errors]
        ms = "" if row["ms"] is None else f"{row['ms']:.2f}"
        lines.append((row["op"], row["device"], row["backend"], *numbers, ms))
    widths = [max(len(line[k]) for line in lines) for k in range(len(head))]
    for line in lines:
        print(
            "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        )
