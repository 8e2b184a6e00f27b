"""Where a transform beats a direct sum: convolutions as long as their input, both ways, and a plot.

The second experiment of surveys of state-space models. Forwards only: which way is taken for the
gradients follows from the same sizes.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tristate.core.training import figures
from tristate.kernels.longconv import cpu_direct, cpu_fft, long_conv
from tristate.recipes.bench.cases import Case
from tristate.recipes.bench.longconv import by_transforms, summed

OP = "fft_or_direct"
BATCH, DIM = 1, 16
LENGTHS = [1 << n for n in range(8, 15)]
# PyTorch's own convolution takes seconds beyond.
LONGEST_IN_PYTORCH = 4096


def cases(quick: bool) -> Iterator[Case]:
    """One case a length, 256 to 16,384; up to 4,096 where it must be quick."""
    for length in LENGTHS:
        if quick and length > LONGEST_IN_PYTORCH:
            return
        inputs = {"x": torch.randn(BATCH, DIM, length), "kernel": torch.randn(DIM, length)}
        D = torch.zeros(DIM)
        peers = {
            "FFT": _by_fft,
            "direct sum": _directly,
            "PyTorch, FFT": partial(by_transforms, D=D),
        }
        if length <= LONGEST_IN_PYTORCH:
            peers["PyTorch, convolution"] = partial(summed, D=D)
        shape = {"B": BATCH, "D": DIM, "L": length}
        what = f"{OP}, {length:,} steps"
        yield Case(what, shape, inputs, _ours, peers, directions=("forward",))


def _ours(x: Tensor, kernel: Tensor) -> Any:
    return long_conv(x, kernel, backend="cpu")


def _by_fft(x: Tensor, kernel: Tensor) -> Tensor:
    return cpu_fft.forward(x, kernel[None], 0)[:, 0]


def _directly(x: Tensor, kernel: Tensor) -> Tensor:
    return cpu_direct.forward(x, kernel[None], [0])[:, 0]


def plot(rows: Sequence[dict[str, Any]]) -> bytes:
    """The rows of these cases, milliseconds over length, as a PNG.

    Args:
        rows: of the bench; those of one number of threads, the first that is found, are drawn.
    """
    ours = "long_conv, as it chooses"
    rows = [row for row in rows if row["what"].startswith(OP)]
    threads = rows[0]["threads"]
    series: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if row["threads"] == threads:
            for name, ms in {ours: row["ms"], **row["peers"]}.items():
                series.setdefault(name, []).append((row["shape"]["L"], ms))
    return figures.lines(
        series,
        x="length of sequence and kernel",
        y=f"milliseconds, {BATCH} x {DIM} channels, {threads} thread{'s' if threads > 1 else ''}",
        title="Long convolution: transform or direct sum, forward, float32",
        broad=ours,
    )
