"""Problems for Mamba-2's scan: inputs of every kind that it takes, and cotangents."""

from functools import partial

import torch
from torch import Tensor

KINDS = {
    "all": {},
    "bare": {"absent": ("D", "z", "dt_bias", "initial_states")},
    "D per head": {"skip_per_head": True},
    "groups": {"heads": 6, "groups": 3, "width": 5, "n_states": 3},
    "whole blocks": {"heads": 2, "width": 32, "n_states": 16},
    "odd": {"heads": 1, "width": 17, "n_states": 33},
    "1 state": {"n_states": 1, "width": 1},
}


def stored(x: Tensor, layout: str) -> Tensor:
    """The values of ``x (B, L, ...)`` in another order of storage; ``"slice"`` leaves gaps."""
    if layout == "time-last":
        return x.movedim(1, -1).contiguous().movedim(-1, 1)
    return torch.cat([x, x], -1)[..., : x.shape[-1]] if layout == "slice" else x.contiguous()


def problem(
    length: int,
    *,
    layout: str = "channel-last",
    batch: int = 2,
    heads: int = 3,
    width: int = 4,
    groups: int = 1,
    n_states: int = 5,
    skip_per_head: bool = False,
    absent: tuple[str, ...] = (),
) -> tuple[dict[str, Tensor | None], dict[str, Tensor]]:
    """Inputs in float32, and cotangents of the output and the last states.

    Args:
        length: positions.
        layout: of the sequences; see :func:`stored`.
        batch: sequences.
        heads: heads of each.
        width: channels of each head.
        groups: of heads, which share B and C.
        n_states: states of each channel.
        skip_per_head: D is ``(H,)``, not ``(H, P)``.
        absent: optional inputs to leave out.
    """
    generator = torch.Generator().manual_seed(1000 * length + 10 * width + n_states)
    randn = partial(torch.randn, generator=generator)
    sequence = lambda *axes: stored(randn(batch, length, *axes), layout)  # noqa: E731
    states = (batch, heads, width, n_states)
    tensors: dict[str, Tensor | None] = {
        "x": sequence(heads, width),
        "dt": sequence(heads) * 0.5,
        "A": -2 * torch.rand(heads, generator=generator) - 0.1,
        "B": sequence(groups, n_states),
        "C": sequence(groups, n_states),
        "D": randn(heads) if skip_per_head else randn(heads, width),
        "z": sequence(heads, width),
        "dt_bias": randn(heads) - 1,
        "initial_states": randn(*states),
    }
    tensors |= dict.fromkeys(absent)
    return tensors, {"out": sequence(heads, width), "last": randn(*states)}
