"""Routes over a map: the orders in which its positions are read as a sequence.

Source: VMamba's cross scan and cross merge, https://github.com/MzeroMiko/VMamba.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from tristate.kernels.registry import nearest

Route = Literal["rows", "columns", "rows_back", "columns_back"]

CROSS: tuple[Route, ...] = ("rows", "columns", "rows_back", "columns_back")
"""VMamba's four: along the rows, down the columns, and both from the end."""


def cross_scan(x: Tensor, routes: Sequence[Route] = CROSS) -> Tensor:
    """A map as one sequence a route, ``(B, K, D, L)`` with ``L = H W``.

    Args:
        x: the map ``(B, D, H, W)``, or one for each of the ``K`` routes, ``(B, K, D, H, W)``.
        routes: in which order each sequence reads: ``"rows"``, ``"columns"``, ``"rows_back"`` or
            ``"columns_back"``; one may occur several times.

    Raises:
        ValueError: a route is unknown, or there are not as many maps.
    """
    codes = route_codes(routes)
    if x.dim() not in (4, 5) or (x.dim() == 5 and x.shape[1] != len(codes)):
        raise ValueError(
            f"x must be (B, D, H, W) or (B, {len(codes)}, D, H, W), got {tuple(x.shape)}"
        )
    maps = [x] * len(codes) if x.dim() == 4 else x.unbind(1)
    return torch.stack([_read(one, code) for one, code in zip(maps, codes, strict=True)], 1)


def cross_restore(y: Tensor, height: int, width: int, routes: Sequence[Route] = CROSS) -> Tensor:
    """The sequences of :func:`cross_scan` as maps again, ``(B, K, D, H, W)``.

    Args:
        y: a sequence for each route, ``(B, K, D, L)``.
        height: rows ``H`` of the map.
        width: its columns ``W``.
        routes: the order of each sequence.

    Raises:
        ValueError: a route is unknown, or ``y`` has not as many sequences of ``H W`` positions.
    """
    codes = route_codes(routes)
    if y.dim() != 4 or y.shape[1] != len(codes) or y.shape[3] != height * width:
        raise ValueError(f"y must be (B, {len(codes)}, D, {height * width}), got {tuple(y.shape)}")
    maps = [_back(one, code, height) for one, code in zip(y.unbind(1), codes, strict=True)]
    return torch.stack(maps, 1)


def cross_merge(y: Tensor, height: int, width: int, routes: Sequence[Route] = CROSS) -> Tensor:
    """The sum of :func:`cross_restore` over the routes, ``(B, D, H, W)``."""
    return cross_restore(y, height, width, routes).sum(1)


def route_codes(routes: Sequence[Route]) -> list[int]:
    """Routes as numbers: 1 is set where one goes down columns, 2 where it starts from the end.

    Raises:
        ValueError: there are none, or one is unknown.
    """
    if not routes:
        raise ValueError("wanted at least one route, got none")
    for route in routes:
        if route not in CROSS:
            raise ValueError(f"unknown route {route!r}; {nearest(str(route), CROSS)}")
    return [CROSS.index(route) for route in routes]


def _read(x: Tensor, code: int) -> Tensor:
    """A map ``(..., H, W)`` in the order of a route, ``(..., L)``."""
    x = (x.transpose(-1, -2) if code & 1 else x).flatten(-2)
    return x.flip(-1) if code & 2 else x


def _back(x: Tensor, code: int, height: int) -> Tensor:
    """A sequence ``(..., L)`` in the order of a route as a map ``(..., H, W)``."""
    x = x.flip(-1) if code & 2 else x
    if code & 1:
        return x.unflatten(-1, (-1, height)).transpose(-1, -2)
    return x.unflatten(-1, (height, -1))
