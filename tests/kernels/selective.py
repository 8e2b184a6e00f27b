"""Problems for the selective scan: inputs of every kind that it takes, and cotangents."""

from functools import partial

import torch
from torch import Tensor

from tests.kernels.laws import stored

N_CHANNELS = 19  # a block of 16 and a rest


def problem(
    length: int,
    *,
    layout: str = "time-last",
    batch: int = 2,
    dim: int = N_CHANNELS,
    n_states: int = 4,
    groups: int | None = None,
    complex_A: bool = False,
    constant: str = "",
    absent: tuple[str, ...] = (),
) -> tuple[dict[str, Tensor | None], dict[str, Tensor]]:
    """Inputs in float32, and cotangents of the output and the last state.

    Args:
        length: positions.
        layout: of the sequences; see :data:`tests.kernels.laws.LAYOUTS`.
        batch: sequences.
        dim: channels.
        n_states: states of each.
        groups: groups of channels; None leaves out their axis.
        complex_A: a complex system.
        constant: which of ``"B"`` and ``"C"`` don't vary in time.
        absent: optional inputs to leave out.
    """
    generator = torch.Generator().manual_seed(1000 * length + 10 * dim + n_states)
    randn = partial(torch.randn, generator=generator)

    def parameter(*shape: int) -> Tensor:
        return torch.complex(randn(*shape), randn(*shape)) if complex_A else randn(*shape)

    def weight(name: str) -> Tensor:
        if name in constant:
            return parameter(dim, n_states)
        steps = 2 * length if complex_A else length
        shape = (batch, n_states, steps) if groups is None else (batch, groups, n_states, steps)
        return randn(shape)

    sequence = lambda: stored(randn(batch, dim, length), layout)  # noqa: E731
    A = -torch.rand(dim, n_states, generator=generator) - 0.2
    tensors = {
        "u": sequence(),
        "delta": sequence() * 0.5,
        "A": torch.complex(A, randn(dim, n_states)) if complex_A else A,
        "B": weight("B"),
        "C": weight("C"),
        "D": randn(dim),
        "z": sequence(),
        "delta_bias": randn(dim) - 1,
        "initial_state": parameter(batch, dim, n_states),
    }
    tensors |= dict.fromkeys(absent)
    return tensors, {"out": sequence(), "last": parameter(batch, dim, n_states)}


def segments(length: int, batch: int = 2) -> Tensor:
    """Segments of 1 to 40 positions, and padding in front, between and behind."""
    generator = torch.Generator().manual_seed(length)
    rows = []
    for _ in range(batch):
        lengths = torch.randint(1, 41, (length,), generator=generator)
        numbers = torch.arange(length).repeat_interleave(lengths)[:length]
        padded = torch.rand(length, generator=generator) < 0.2
        rows.append(torch.where(padded, -1, numbers))
    return torch.stack(rows).int()
