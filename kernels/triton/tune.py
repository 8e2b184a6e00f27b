"""Chooses between a few ways to share out an op's work, by timing them on the GPU.

Each op has a small fixed set of plans, its default first. When it first meets sizes of a kind on a
GPU, all of them run a few times, and the fastest is taken from then on: by this process, and by the
next ones, which find it in a file. Sizes are rounded up to powers of four: few kinds arise.

Plans add up in different orders: their results differ by rounding. A kind's plan is chosen once, so
the same call gives the same bits again; where the choice isn't kept (no folder can be written to,
another GPU or version), another process may choose otherwise. The default is taken, and nothing
timed, with ``TRISTATE_AUTOTUNE=0`` in the environment, under
``torch.use_deterministic_algorithms(True)``, while a CUDA graph is captured, on a CPU, and once a
process has spent a minute on choosing, most of it in the compiler.

``triton.autotune`` chooses a kernel's constants alone. Here the grid, the room for partial sums and
the kernels that add these up change with them, keys are rounded, and time is bounded.
"""

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import suppress
from functools import partial, wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor

from tristate.kernels import cache
from tristate.kernels.triton.clock import Clock, clock_of, interleaved
from tristate.kernels.triton.launch import is_recording

Plan = TypeVar("Plan", bound=Hashable)
Inputs = ParamSpec("Inputs")
Result = TypeVar("Result")

Choice = dict[str, Any]
"""What was chosen, and for what.

``op``, ``device``, ``sizes`` of the first tensor, ``kind``, ``plans``, ``ms`` of each, and which
was ``chosen``. A plan without a time didn't fit the device.
"""

ROUNDS = 7
SECONDS = 60.0
"""That a process spends on choosing at most, but for the plan that it has begun."""

# By op, device and kind.
_places: dict[Hashable, int] = {}
_choices: dict[str, Choice] = {}
_spent = 0.0


def tuned(
    op: str, plans: Callable[..., Sequence[Plan]]
) -> Callable[[Callable[Concatenate[Plan, Inputs], Result]], Callable[Inputs, Result]]:
    """Turns ``run(plan, ...)`` into a function of the rest, which takes the fastest plan.

    All plans must give the same, but for rounding, and change nothing in place. Where launches are
    only recorded, every plan is run.

    Args:
        op: its name.
        plans: the default, and what may be faster, for these inputs.
    """

    def decorate(run: Callable[Concatenate[Plan, Inputs], Result]) -> Callable[Inputs, Result]:
        @wraps(run)
        def tuned(*args: Inputs.args, **named: Inputs.kwargs) -> Result:
            found = plans(*args, **named)
            if is_recording():
                return [run(plan, *args, **named) for plan in found][0]
            inputs = (*args, *named.values())
            first = next(x for x in inputs if isinstance(x, Tensor))
            if len(found) == 1 or not _may_choose(first.device):
                return run(found[0], *args, **named)
            kind = (*found, *map(_rounded, inputs))
            place = _places.get((op, first.device, kind))
            if place is None:
                place = 0
                # While a graph is captured nothing can be timed; what it does then is kept, too.
                if not (first.is_cuda and torch.cuda.is_current_stream_capturing()):
                    calls = [partial(run, plan, *args, **named) for plan in found]
                    place = fastest(op, found, calls, first, kind)
                _places[op, first.device, kind] = place
            return run(found[place], *args, **named)

        return tuned

    return decorate


def choices(device: torch.device) -> Iterator[Choice]:
    """What was chosen for a GPU, by this process or an earlier one with the same kernels."""
    found = dict(_choices)
    with suppress(OSError):
        found |= {path.stem: x for path in _folder().glob("*.json") if (x := _read(path))}
    for choice in sorted(found.values(), key=lambda x: (x["op"], x["sizes"])):
        if choice["device"] == device_name(device):
            yield choice


def device_name(device: torch.device) -> str:
    """As its maker calls it."""
    if device.type == "cpu":
        return "cpu"
    return getattr(torch, device.type).get_device_name(device)


def _may_choose(device: torch.device) -> bool:
    asked = os.environ.get("TRISTATE_AUTOTUNE", "1").lower() not in ("0", "false", "no", "off")
    return asked and device.type != "cpu" and not torch.are_deterministic_algorithms_enabled()


def _rounded(x: Any) -> Any:
    """A tensor as its dtype, its sizes rounded, and along which axes its numbers are neighbours.

    Whole numbers are sizes, too.
    """
    if isinstance(x, int) and not isinstance(x, bool):
        return _power_of_four(x)
    if not isinstance(x, Tensor):
        return x
    sizes = tuple(_power_of_four(n) for n in x.shape)
    return x.dtype, sizes, tuple(stride == 1 for stride in x.stride())


def _power_of_four(n: int) -> int:
    """The least one that isn't below ``n``."""
    return 1 << 2 * -(-max(0, n - 1).bit_length() // 2)


def _sizes(x: Tensor) -> str:
    sizes = " x ".join(str(n) for n in _rounded(x)[1])
    return f"{str(x.dtype).removeprefix('torch.')}, up to {sizes}"


def fastest(
    op: str,
    plans: Sequence[Hashable],
    calls: Sequence[Callable[[], object]],
    first: Tensor,
    kind: Hashable,
) -> int:
    """The place of the fastest call, each by one plan: from an earlier process or by timing.

    Args:
        op: its name.
        plans: by which each call runs.
        calls: of the op.
        first: a tensor of theirs, whose device is timed.
        kind: all that the choice depends on.
    """
    name = device_name(first.device)
    words = hashlib.sha256(repr((op, name, kind)).encode()).hexdigest()[:32]
    path = None
    with suppress(OSError):
        path = _folder() / f"{words}.json"
        earlier = _read(path)
        if earlier:
            return earlier["chosen"]
    if _spent >= SECONDS:
        return 0
    try:
        ms = timed(calls, clock_of(first.device))
    except torch.OutOfMemoryError:
        # To time takes room of its own, which the op may do without.
        return 0
    fit = [x for x in ms if x is not None]
    choice = {
        "op": op,
        "device": name,
        "sizes": _sizes(first),
        "kind": repr(kind),
        "plans": [str(plan) for plan in plans],
        "ms": ms,
        "chosen": ms.index(min(fit)) if fit else 0,
    }
    _choices[words] = choice
    # What was cut short is done again by the next process.
    if path and _spent < SECONDS:
        _write(path, choice)
    return choice["chosen"]


def timed(calls: Sequence[Callable[[], object]], clock: Clock) -> list[float | None]:
    """Median milliseconds of each call; None of what doesn't fit the device, or the time."""
    global _spent
    # Triton is there where a kernel runs, and not elsewhere.
    from triton.runtime.errors import OutOfResources, PTXASError

    began, before = time.monotonic(), _spent
    fit: list[int] = []
    for place, call in enumerate(calls):
        if place and _spent >= SECONDS:
            break
        with suppress(OutOfResources, PTXASError):
            call()
            clock.wait()
            fit.append(place)
        _spent = before + time.monotonic() - began
    found: list[float | None] = [None] * len(calls)
    for place, ms in zip(fit, interleaved([calls[k] for k in fit], clock, ROUNDS), strict=True):
        found[place] = ms
    _spent = before + time.monotonic() - began
    return found


def _folder() -> Path:
    import triton

    return cache.folder("plans", cache.sources(triton.__version__))


def _read(path: Path) -> Choice | None:
    """A choice that was kept; None where there is none, or the file is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if 0 <= found["chosen"] < len(found["plans"]) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(path: Path, choice: Choice) -> None:
    """At once or not at all: other processes may read or write the same file."""
    with suppress(OSError), tempfile.TemporaryDirectory(dir=path.parent) as folder:
        whole = Path(folder) / path.name
        whole.write_text(json.dumps(choice), encoding="utf-8")
        whole.replace(path)
