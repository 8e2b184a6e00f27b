"""Time as a device counts it."""

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, Protocol

import torch

# 128 MiB, a hundred times: 5 ms on an H100, in which a host starts some ten ops.
_FILLER, _FILLS = 1 << 27, 100


class Clock(Protocol):
    """Marks moments of a device's work, and tells the time between two of them."""

    def run_ahead(self) -> None:
        """Let the host start the next few calls before the device comes to them."""
        ...

    def mark(self) -> Any:
        """A moment after all that was started so far."""
        ...

    def wait(self) -> None:
        """Until the device has done all of it."""
        ...

    def milliseconds(self, begin: Any, end: Any) -> float:
        """Between two moments that are over."""
        ...


class HostClock:
    """A processor's: what was called is done."""

    def run_ahead(self) -> None:
        """Nothing: host and device are one."""

    def mark(self) -> float:
        """Now, in seconds."""
        return time.perf_counter()

    def wait(self) -> None:
        """For nothing."""

    def milliseconds(self, begin: float, end: float) -> float:
        """The difference."""
        return 1e3 * (end - begin)


class DeviceClock:
    """A GPU's events, which it times itself.

    Args:
        device: the GPU; its current stream is timed.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._module = getattr(torch, device.type)
        self._filler = torch.empty(_FILLER, dtype=torch.uint8, device=device)

    def run_ahead(self) -> None:
        """Some milliseconds of work, or a short kernel is timed with the host that starts it.

        Whatever lay in the device's caches is gone afterwards.
        """
        for _ in range(_FILLS):
            self._filler.zero_()

    def mark(self) -> Any:
        """An event in the current stream."""
        event = self._module.Event(enable_timing=True)
        event.record(self._module.current_stream(self._device))
        return event

    def wait(self) -> None:
        """Until the device has nothing left to do."""
        self._module.synchronize(self._device)

    def milliseconds(self, begin: Any, end: Any) -> float:
        """Between two events."""
        return begin.elapsed_time(end)


def clock_of(device: torch.device) -> Clock:
    """The clock that times work on ``device``."""
    return HostClock() if device.type == "cpu" else DeviceClock(device)


def interleaved(calls: Sequence[Callable[[], object]], clock: Clock, rounds: int) -> list[float]:
    """Median milliseconds of each call; they take turns, and must have run before."""
    marks: list[list[tuple[Any, Any]]] = [[] for _ in calls]
    for _ in range(rounds):
        clock.run_ahead()
        for call, found in zip(calls, marks, strict=True):
            begin = clock.mark()
            call()
            found.append((begin, clock.mark()))
        clock.wait()
    return [median(clock.milliseconds(*pair) for pair in found) for found in marks]
