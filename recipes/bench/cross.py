"""Scans along several routes against one scan a route, with the copies and sums that takes."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tristate.kernels.cross import (
    bidirectional_selective_scan,
    cross_merge,
    cross_scan,
    selective_scan_2d,
)
from tristate.kernels.selective import selective_scan
from tristate.recipes.bench.cases import Case
from tristate.recipes.bench.selective import parallel_scan

_SCAN: Any = partial(selective_scan, delta_softplus=True, backend="cpu")

# name: batch, channels, height, width, states.
MAPS = {
    "VMamba stage 1": (4, 192, 56, 56, 1),
    "VMamba stage 3": (4, 768, 14, 14, 1),
    "16 states": (2, 192, 28, 28, 16),
}
# name: batch, channels, steps, states.
SEQUENCES = {"Vim-tiny layer": (8, 384, 197, 16), "AuM-tiny layer": (4, 384, 513, 16)}


MOST_IN_PYTORCH = 5_000_000


def maps(quick: bool) -> Iterator[Case]:
    """The four routes of a map; one case a size."""
    for name, (batch, dim, height, width, n_states) in MAPS.items():
        n_elements = 4 * batch * dim * height * width * n_states
        peers = {"copies, one scan, their sum": scan_copies}
        # It keeps some forty numbers for each one of these until its backward.
        if n_elements < MOST_IN_PYTORCH:
            peers["PyTorch, parallel scan"] = parallel_copies
        yield Case(
            f"selective_scan_2d, {name}",
            {"B": batch, "D": dim, "H": height, "W": width, "N": n_states},
            _map(batch, dim, height, width, n_states),
            partial(selective_scan_2d, delta_softplus=True, backend="cpu"),
            peers,
            n_elements,
        )


def sequences(quick: bool) -> Iterator[Case]:
    """Two directions; one case a size, Vim's with branches of their own, AuM's with one A each."""
    for name, (batch, dim, length, n_states) in SEQUENCES.items():
        shared = "AuM" in name
        yield Case(
            f"bidirectional_selective_scan, {name}",
            {"B": batch, "D": dim, "L": length, "N": n_states},
            _sequence(batch, dim, length, n_states, shared),
            both_at_once,
            {"two scans and their sum": both_in_turn, "PyTorch, parallel scan": both_in_parallel},
            2 * batch * dim * length * n_states,
        )


def _map(batch: int, dim: int, height: int, width: int, n_states: int) -> dict[str, Tensor]:
    """Channel-last maps, as the models here hand them in."""
    generator = torch.Generator().manual_seed(0)

    def by_place(*channels: int) -> Tensor:
        x = torch.randn(batch, height, width, *channels, generator=generator)
        return x.permute(0, *range(3, x.dim()), 1, 2)

    return {
        "u": by_place(dim),
        "delta": by_place(4, dim),
        "A": -torch.arange(1.0, n_states + 1).expand(4, dim, -1).contiguous(),
        "B": by_place(4, n_states),
        "C": by_place(4, n_states),
        "D": torch.ones(4, dim),
        "delta_bias": torch.full((4, dim), -4.0),
    }


def _copied(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each route's sequence, as VMamba hands them to one scan with four groups."""
    by_route = {k: cross_scan(inputs[k]) for k in ("u", "delta", "B", "C")}
    flat = {k: by_route[k].flatten(1, 2) for k in ("u", "delta")}
    parameters = {k: inputs[k].flatten(0, 1) for k in ("A", "D", "delta_bias")}
    return flat | {k: by_route[k] for k in "BC"} | parameters


def scan_copies(**inputs: Tensor) -> Tensor:
    """Four sequences in memory, the fast scan over them, and the sum."""
    return _merge(_SCAN(**_copied(inputs)), inputs["u"])


def parallel_copies(**inputs: Tensor) -> Tensor:
    """The same with a scan in PyTorch, all states at once."""
    x = _copied(inputs)
    # A gate is no part of this: silu(30) is 30.
    ungated = torch.full_like(x["u"], 30)
    return _merge(parallel_scan(**x, z=ungated) / 30, inputs["u"])


def _merge(y: Tensor, u: Tensor) -> Tensor:
    height, width = u.shape[2:]
    return cross_merge(y.unflatten(1, (4, -1)), height, width)


def _sequence(batch: int, dim: int, length: int, n_states: int, shared: bool) -> dict[str, Tensor]:
    """Channel-last sequences; the second branch's inputs end in ``_back``."""
    generator = torch.Generator().manual_seed(0)

    def sequence(channels: int) -> Tensor:
        return torch.randn(batch, length, channels, generator=generator).transpose(1, 2)

    rates = -torch.arange(1.0, n_states + 1).expand(dim, -1).contiguous()
    inputs = {"u": sequence(dim), "delta": sequence(dim), "A": rates}
    inputs |= {"B": sequence(n_states), "C": sequence(n_states), "z": sequence(dim)}
    inputs |= {"D": torch.ones(dim), "delta_bias": torch.full((dim,), -4.0)}
    own = ("A",) if shared else tuple(k for k in inputs if k != "z")
    return inputs | {f"{k}_back": inputs[k].clone() for k in own}


def _pairs(inputs: dict[str, Tensor]) -> dict[str, Any]:
    ahead = {k: x for k, x in inputs.items() if not k.endswith("_back")}
    return {k: (x, inputs[f"{k}_back"]) if f"{k}_back" in inputs else x for k, x in ahead.items()}


def both_at_once(**inputs: Tensor) -> Tensor:
    """The op."""
    return bidirectional_selective_scan(**_pairs(inputs), delta_softplus=True, backend="cpu")


def _branches(inputs: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    pairs = _pairs(inputs)
    return [{k: x[i] if isinstance(x, tuple) else x for k, x in pairs.items()} for i in (0, 1)]


def both_in_turn(**inputs: Tensor) -> Tensor:
    """A scan each way, by the fast kernels, and the sum."""
    ahead, back = _branches(inputs)
    return _SCAN(**ahead) + _SCAN(**back, reverse=True)


def both_in_parallel(**inputs: Tensor) -> Tensor:
    """Scans in PyTorch, all states at once, the second one over flipped copies."""
    ahead, back = (
        {k: x[:, None] if k in "BC" else x for k, x in branch.items()}
        for branch in _branches(inputs)
    )
    back = {k: x.flip(-1) if k in ("u", "delta", "B", "C", "z") else x for k, x in back.items()}
    return parallel_scan(**ahead) + parallel_scan(**back).flip(-1)
