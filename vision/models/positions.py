"""Learnt positions of patches and of a class token that may stand anywhere among them."""

from collections.abc import Callable

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor

Place = Callable[[int], int]
"""Where the class token stands, given the number of patches."""


def insert_token(patches: Tensor, token: Tensor, place: Place) -> Tensor:
    """``patches (B, M, D)`` with ``token (B, 1, D)`` put in its place."""
    at = place(patches.shape[1])
    return torch.cat([patches[:, :at], token, patches[:, at:]], dim=1)


def split_token(x: Tensor, place: Place) -> tuple[Tensor, Tensor]:
    """The token ``(B, 1, D)`` and the patches ``(B, M, D)`` of ``x (B, M + 1, D)``."""
    at = place(x.shape[1] - 1)
    return x[:, at : at + 1], torch.cat([x[:, :at], x[:, at + 1 :]], dim=1)


def resample_positions(
    positions: Tensor, old: tuple[int, int], new: tuple[int, int], place: Place | None
) -> Tensor:
    """Positions for a grid of ``new`` (rows, columns) from those of an ``old`` grid, bicubic.

    Args:
        positions: ``(1, M, D)``, or ``(1, M + 1, D)`` with a class token.
        old: their grid.
        new: the wanted grid.
        place: where the class token stands; None without one. It keeps its own position.
    """
    if place is None:
        return resample_abs_pos_embed(positions, list(new), list(old), num_prefix_tokens=0)
    token, patches = split_token(positions, place)
    patches = resample_abs_pos_embed(patches, list(new), list(old), num_prefix_tokens=0)
    return insert_token(patches, token, place)
