"""Timing on a machine that is never quiet: everything in one process, turn by turn, medians."""

import ctypes
import gc
import random
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

Call = Callable[[], object]


def interleaved(calls: Mapping[str, Call], *, rounds: int, seconds: float) -> dict[str, float]:
    """Median milliseconds of each call; they take turns, so that what disturbs one disturbs all.

    The order is another one in each round: who always came behind the same other would always find
    the caches as that one left them.

    Args:
        calls: what to time, by name; each is run once before, to compile and to warm up.
        rounds: how often each is timed, where time allows.
        seconds: a call that has used so much drops out; it was timed once at least.
    """
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    order, turns = list(calls), random.Random(0)
    for _ in range(rounds):
        turns.shuffle(order)
        for name in order:
            if sum(times[name]) < seconds:
                began = time.perf_counter()
                calls[name]()
                times[name].append(time.perf_counter() - began)
    return {name: 1e3 * statistics.median(found) for name, found in times.items()}


def peak_bytes(call: Call) -> int | None:
    """Most memory that the process held during a call, beyond what it held before, in bytes.

    The kernel counts the pages; None where it does not (outside of Linux).
    """
    gc.collect()
    # What was freed is given back first, or the call would find it lying there.
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
        call()
        return max(0, _status("VmHWM") - before)
    except OSError:
        return None


def _status(field: str) -> int:
    text = Path("/proc/self/status").read_text()
    return 1024 * int(text.partition(f"{field}:")[2].split()[0])
