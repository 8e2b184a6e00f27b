"""Problems for scans along several routes: inputs of every kind that they take, and cotangents."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from tests.kernels.laws import stored
from tristate.kernels.cross import bidirectional_selective_scan

Problem = tuple[dict[str, Tensor], dict[str, Tensor]]


def sequence_problem(
    length: int,
    *,
    layout: str = "time-last",
    batch: int = 2,
    dim: int = 19,
    n_states: int = 4,
    groups: int | None = None,
    constant: str = "",
    shared: str = "z",
    absent: str = "",
) -> Problem:
    """Inputs of two branches, the second one's under names that end in ``_back``.

    Args:
        length: positions.
        layout: of the sequences; see :data:`tests.kernels.laws.LAYOUTS`.
        batch: sequences.
        dim: channels.
        n_states: states of each.
        groups: groups of channels; None leaves out their axis.
        constant: which of ``B`` and ``C`` don't vary in time.
        shared: inputs that the branches share.
        absent: optional inputs to leave out.
    """
    generator = torch.Generator().manual_seed(1000 * length + dim)
    randn = partial(torch.randn, generator=generator)
    weight = (batch, n_states, length) if groups is None else (batch, groups, n_states, length)
    inputs: dict[str, Tensor] = {}
    for end in ("", "_back"):
        branch = {
            "u": stored(randn(batch, dim, length), layout),
            "delta": stored(randn(batch, dim, length), layout) * 0.5,
            "A": -torch.rand(dim, n_states, generator=generator) - 0.2,
            "B": randn(dim, n_states) if "B" in constant else randn(weight),
            "C": randn(dim, n_states) if "C" in constant else randn(weight),
            "D": randn(dim),
            "delta_bias": randn(dim) - 1,
            "z": stored(randn(batch, dim, length), layout),
        }
        fitting = {k: x for k, x in branch.items() if k not in absent.split()}
        inputs |= {
            k + end: x for k, x in fitting.items() if not end or k not in ("z", *shared.split())
        }
    return inputs, {"out": stored(randn(batch, dim, length), layout)}


def both(**inputs: Any) -> Tensor:
    """The op on the inputs of a :func:`sequence_problem`."""
    ahead = {k: x for k, x in inputs.items() if not k.endswith("_back")}
    pairs = {k: (x, inputs[f"{k}_back"]) for k, x in ahead.items() if f"{k}_back" in inputs}
    return bidirectional_selective_scan(**{**ahead, **pairs})


def branches(inputs: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """Each branch's inputs by their own names, without the gate."""
    ahead = {k: x for k, x in inputs.items() if not k.endswith("_back") and k != "z"}
    return [ahead, {k: inputs.get(f"{k}_back", x) for k, x in ahead.items()}]


def map_problem(
    height: int,
    width: int,
    *,
    layout: str = "channel-last",
    batch: int = 2,
    dim: int = 19,
    n_states: int = 4,
    n_routes: int = 4,
    one_map: bool = True,
    absent: str = "",
) -> Problem:
    """Inputs of ``selective_scan_2d``; maps with the channels or the places side by side."""
    generator = torch.Generator().manual_seed(1000 * height + width + dim)
    randn = partial(torch.randn, generator=generator)

    def by_place(*channels: int) -> Tensor:
        if layout == "time-last":
            return randn(batch, *channels, height, width)
        x = randn(batch, height, width, *channels)
        return x.permute(0, *range(3, x.dim()), 1, 2)

    inputs = {
        "u": by_place(dim) if one_map else by_place(n_routes, dim),
        "delta": by_place(n_routes, dim) * 0.5,
        "A": -torch.rand(n_routes, dim, n_states, generator=generator) - 0.2,
        "B": by_place(n_routes, n_states),
        "C": by_place(n_routes, n_states),
        "D": randn(n_routes, dim),
        "delta_bias": randn(n_routes, dim) - 1,
    }
    return {k: x for k, x in inputs.items() if k not in absent.split()}, {"out": by_place(dim)}
