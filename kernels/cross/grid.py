"""Selective scans over a map along several routes, summed."""

from collections.abc import Sequence

from torch import Tensor

from tristate.kernels.checks import expect_floating, expect_one_device, expect_shape
from tristate.kernels.cross.branches import Branches
from tristate.kernels.cross.choice import run
from tristate.kernels.cross.routes import CROSS, Route, route_codes


def selective_scan_2d(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    *,
    routes: Sequence[Route] = CROSS,
    backend: str = "auto",
) -> Tensor:
    """Selective scans that read a map along ``K`` routes, each put back in place, and their sum.

    Equals ``cross_merge(selective_scan(cross_scan(u), ...))``, but the map is read where it lies:
    step sizes and weights are given by place, not in the order of a route. Columns are read where
    channels lie side by side in memory: maps that are stored otherwise are brought into that order
    once. Forward and backward hold at most four times the inputs beyond them.

    Args:
        u: the map ``(B, D, H, W)``, or one for each route, ``(B, K, D, H, W)``.
        delta: step sizes, ``(B, K, D, H, W)``.
        A: decay rates, ``(K, D, N)``, real; below 0 for a stable recurrence.
        B: input weights, ``(B, K, N, H, W)``.
        C: output weights, like ``B``.
        D: weight of the input in the output, ``(K, D)``.
        delta_bias: added to ``delta``, ``(K, D)``.
        delta_softplus: apply softplus to the step sizes, after the bias.
        routes: in which order each scan reads; see :func:`tristate.kernels.cross_scan`.
        backend: ``"auto"``, or one of :func:`tristate.kernels.backend.available_backends`.

    Returns:
        The output, ``(B, D, H, W)`` in the dtype of ``u``, summed in float32 at least; with its
        channels side by side in memory where a route goes down columns.

    Raises:
        ValueError: shapes, dtypes or devices disagree, a route is unknown, or the backend can't run
            this.

    Source: Liu et al. 2024, https://arxiv.org/abs/2401.10166, section 4.2 (VMamba's SS2D).
    """
    codes = route_codes(routes)
    n_routes = len(codes)
    if u.dim() not in (4, 5) or 0 in u.shape:
        raise ValueError(f"u must be (B, D, H, W) or (B, K, D, H, W), got {tuple(u.shape)}")
    batch, (dim, height, width) = u.shape[0], u.shape[-3:]
    if u.dim() == 5:
        expect_shape("u", u, (batch, n_routes, dim, height, width), "(B, K, D, H, W)")
    if A.dim() != 3 or A.shape[:2] != (n_routes, dim) or A.shape[2] < 1:
        raise ValueError(f"A must be (K, D, N) = ({n_routes}, {dim}, N), got {tuple(A.shape)}")
    n_states = A.shape[2]
    expect_shape("delta", delta, (batch, n_routes, dim, height, width), "(B, K, D, H, W)")
    for name, weight in (("B", B), ("C", C)):
        expect_shape(name, weight, (batch, n_routes, n_states, height, width), "(B, K, N, H, W)")
    for name, parameter in (("D", D), ("delta_bias", delta_bias)):
        expect_shape(name, parameter, (n_routes, dim), "(K, D)")
    tensors = {"u": u, "delta": delta, "A": A, "B": B, "C": C, "D": D, "delta_bias": delta_bias}
    expect_floating(tensors)
    expect_one_device(tensors)

    if any(code & 1 for code in codes):
        u, delta = _channels_last(u), _channels_last(delta)
    inputs = Branches(
        [u.flatten(2)] if u.dim() == 4 else _by_route(u),
        _by_route(delta),
        A,
        _by_route(B),
        _by_route(C),
        [] if D is None else D,
        [] if delta_bias is None else delta_bias,
        [],
    )
    out = run("selective_scan_2d", inputs, None, delta_softplus, codes, height, backend)
    return out.unflatten(2, (height, width))


def _channels_last(x: Tensor) -> Tensor:
    """``(..., D, H, W)`` with its channels side by side in memory."""
    return x if x.stride(-3) == 1 else x.movedim(-3, -1).contiguous().movedim(-1, -3)


def _by_route(x: Tensor) -> Tensor:
    """``(B, K, D, H, W)`` as ``(K, B, D, L)``."""
    return x.flatten(3).transpose(0, 1)
