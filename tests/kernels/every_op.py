"""Every op that has CPU kernels on a small problem, for what is asked of all of them alike."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tests.kernels import attention, cross, delta, linear, selective, ssd, wkv
from tests.kernels.laws import assert_near
from tests.kernels.scans import wide
from tests.kernels.time_invariant import coefficients, real, states
from tristate import kernels

# What the kernels take at once is 16 channels and 32 or 64 positions, and a rest.
LENGTH = 70


def _convolution() -> dict[str, Tensor]:
    randn = partial(torch.randn, generator=torch.Generator().manual_seed(0))
    return {"x": randn(2, 19, LENGTH), "weight": randn(19, 4), "bias": randn(19)}


def _long_convolution() -> dict[str, Tensor]:
    randn = partial(torch.randn, generator=torch.Generator().manual_seed(0))
    return {"x": randn(2, 3, 600), "kernel": randn(3, 600), "D": randn(3)}


def _norm() -> dict[str, Tensor]:
    randn = partial(torch.randn, generator=torch.Generator().manual_seed(0))
    return {"x": randn(5, 2, 40), "weight": randn(40)}


def _scan(of: Any, **sizes: Any) -> Callable[[], Mapping[str, Tensor | None]]:
    return lambda: of(LENGTH, **sizes)[0]


_stable = {"delta_softplus": True}
_one_state = {"layout": "channel-last", "n_states": 1, "dim": 32}

# Name: the op, its inputs, its options.
OPS: dict[str, tuple[Callable[..., Any], Callable[[], Mapping[str, Any]], dict[str, Any]]] = {
    "add_norm": (kernels.add_norm, _norm, {"prenorm": False}),
    "bidirectional_selective_scan": (cross.both, _scan(cross.sequence_problem), _stable),
    "cauchy": (
        kernels.cauchy,
        lambda: {"coefficient": coefficients(2, 3, 5, seed=0), "poles": states(3, 5, 1)},
        {"nodes": 1j * torch.linspace(0, 3, LENGTH)},
    ),
    "causal_conv1d": (kernels.causal_conv1d, _convolution, {"activation": "silu"}),
    "gated_delta_rule": (kernels.gated_delta_rule, _scan(delta.problem), {}),
    "gated_rms_norm": (kernels.gated_rms_norm, lambda: _norm() | {"z": _norm()["x"].flip(0)}, {}),
    "linear_attention": (kernels.linear_attention, _scan(attention.problem), {}),
    "linear_scan": (kernels.linear_scan, _scan(linear.problem), {}),
    "linear_scan, complex": (kernels.linear_scan, _scan(linear.problem, complex_=True), {}),
    "long_conv": (kernels.long_conv, _long_convolution, {}),
    "selective_scan": (kernels.selective_scan, _scan(selective.problem), _stable),
    "selective_scan, complex": (
        kernels.selective_scan, _scan(selective.problem, complex_A=True), _stable
    ),
    "selective_scan, one state": (
        kernels.selective_scan, _scan(selective.problem, **_one_state), _stable
    ),
    "selective_scan_2d": (
        kernels.selective_scan_2d, lambda: cross.map_problem(7, 9)[0], _stable
    ),
    "ssd_scan": (kernels.ssd_scan, _scan(ssd.problem), {"dt_softplus": True}),
    "vandermonde": (
        kernels.vandermonde,
        lambda: {"coefficient": coefficients(2, 3, 5, seed=0), "exponent": states(3, 5, 1)},
        {"length": LENGTH},
    ),
    "wkv": (kernels.wkv, _scan(wkv.problem), {}),
}  # fmt: skip


def computed(name: str, backend: str, exact: bool = False) -> dict[str, Tensor]:
    """Outputs and gradients of a sum of them, weighted; in float64 where they must be ``exact``."""
    op, inputs, options = OPS[name]
    tensors = wide(inputs()) if exact else inputs()
    leaves = {k: x.detach().requires_grad_() for k, x in tensors.items() if x is not None}
    outputs = op(**{**tensors, **leaves}, **options, backend=backend)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    parts = [real(out) for out in outputs]
    # No two weights are alike, and all are the same in either precision.
    weighed = [(x * torch.linspace(-1, 1, x.numel()).to(x).view(x.shape)).sum() for x in parts]
    grads = torch.autograd.grad(sum(weighed[1:], weighed[0]), list(leaves.values()))
    named = {f"grad.{k}": real(g) for k, g in zip(leaves, grads, strict=True)}
    return {f"output {i}": x.detach() for i, x in enumerate(parts)} | named


def check(name: str, backend: str = "cpu") -> None:
    """The backend agrees with the reference in float64, as far as float32 can.

    Raises:
        AssertionError: it doesn't.
    """
    exact, plain = computed(name, "reference", exact=True), computed(name, "reference")
    assert_near(computed(name, backend), exact, f"in {name}", plain)
