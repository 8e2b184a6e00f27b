"""The plans that were chosen for a GPU's kernels, as ``tristate doctor`` tells them."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from tristate.kernels.backend import available_backends
from tristate.kernels.triton.tune import choices


def lines(gpus: Sequence[torch.device]) -> Iterator[str]:
    """A line for each op and kind of sizes; one in all where there is none."""
    if not gpus or "triton" not in available_backends():
        yield "no plans are chosen: there is no GPU with Triton here"
        return
    for device in gpus:
        found = [*choices(device)]
        if not found:
            yield f"{device}: no plans were chosen, all kernels run by their default"
        for choice in found:
            yield f"{device}: {_sentence(choice)}"


def _sentence(choice: dict[str, Any]) -> str:
    times = [
        f"{plan}: {'does not fit' if ms is None else f'{ms:.3f} ms'}"
        for plan, ms in zip(choice["plans"], choice["ms"], strict=True)
    ]
    taken = times.pop(choice["chosen"])
    return f"{choice['op']} ({choice['sizes']}) by {taken} (not {'; '.join(times)})"
