"""What the tests of the scans share: absent inputs, complex ones, outputs with their gradients."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from tests.kernels.laws import assert_near

Tensors = Mapping[str, Tensor | None]


def wide(tensors: Tensors) -> dict[str, Any]:
    """The same tensors in float64 or complex128; integers stay as they are."""

    def widened(x: Tensor) -> Tensor:
        if x.is_complex():
            return x.to(torch.complex128)
        return x.double() if x.is_floating_point() else x

    return {name: None if x is None else widened(x) for name, x in tensors.items()}


def results(
    scan: Callable[..., tuple[Tensor, ...]], tensors: Tensors, cotangents: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """What ``scan`` returns, by the names in ``cotangents``, and ``grad.<name>`` of each input."""
    leaves = {k: x.detach().requires_grad_() for k, x in tensors.items() if x is not None}
    returned = dict(zip(cotangents, scan(**{**tensors, **leaves}), strict=True))
    weights = [cotangents[k].to(x.dtype) for k, x in returned.items()]
    grads = torch.autograd.grad([*returned.values()], [*leaves.values()], weights)
    named = {f"grad.{k}": g for k, g in zip(leaves, grads, strict=True)}
    return {k: x.detach() for k, x in returned.items()} | named


def near(got: Mapping[str, Tensor], exact: Mapping[str, Tensor]) -> None:
    """Agreement in float32; a complex tensor as its real and imaginary parts."""
    flat = lambda x: torch.view_as_real(x.resolve_conj()) if x.is_complex() else x  # noqa: E731
    assert_near({k: flat(x) for k, x in got.items()}, {k: flat(x) for k, x in exact.items()})


def peak_memory(call: Callable[[], object]) -> int:
    """Most bytes of tensors that lived at once during a call, beyond those before."""
    call()
    with torch.profiler.profile(profile_memory=True) as profile:
        call()
    peak = held = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak
