"""What the initial values of RWKV's layers depend on: the place of a channel, and of the layer."""

from typing import NamedTuple

import torch
from torch import Tensor


class Depth(NamedTuple):
    """Where a layer stands: ``done`` from 0 in the first to 1 in the last, ``left`` from 1 down."""

    done: float
    left: float


def depth(layer: int, n_layers: int) -> Depth:
    """Where layer number ``layer``, from 0 on, stands among ``n_layers``.

    Raises:
        ValueError: there is no such layer.
    """
    if not 0 <= layer < n_layers:
        raise ValueError(f"layer must be from 0 to {n_layers - 1}, got {layer}")
    return Depth(layer / max(1, n_layers - 1), 1 - layer / n_layers)


def from_zero(d_model: int) -> Tensor:
    """Each channel's place, from 0 to just below 1."""
    return torch.arange(d_model) / d_model


def to_one(d_model: int) -> Tensor:
    """Each channel's place, from 0 to 1."""
    return torch.arange(d_model) / max(1, d_model - 1)


def zigzag(d_model: int) -> Tensor:
    """0, 1, -1 over and over, from channel to channel."""
    return ((torch.arange(d_model) + 1) % 3 - 1).float()
