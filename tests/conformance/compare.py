"""How far results are from the golden ones, and whether that is near enough."""

import math

import torch
from torch import Tensor

from tests.conformance.golden import Golden

# A gradient much smaller than the largest one of its file is rounding: it is measured against this
# part of the largest.
GRADIENT_FLOOR = 1e-4


class Mismatch(Exception):
    """A result that can't be compared: missing, of another shape, or not finite."""


def relative_errors(
    got: dict[str, Tensor], golden: dict[str, Tensor], floor: float = 0.0
) -> dict[str, float]:
    """``max|difference| / max|golden|`` of each tensor.

    Args:
        got: ours; a missing one is a :class:`Mismatch`, more than asked for is fine.
        golden: theirs.
        floor: no tensor is measured against less than this part of the largest value of all.
    """
    missing = sorted(golden.keys() - got.keys())
    if missing:
        raise Mismatch(f"no {', '.join(missing)}")
    sizes = {name: _largest(tensor) for name, tensor in golden.items()}
    least = floor * max(sizes.values(), default=0.0)
    errors = {}
    for name, tensor in golden.items():
        difference = _difference(name, got[name].detach(), tensor)
        # Against zeros there is no relative error: take the absolute one.
        errors[name] = difference / (max(sizes[name], least) or 1.0)
    return errors


def _largest(tensor: Tensor) -> float:
    finite = tensor.abs()[tensor.isfinite()] if tensor.numel() else tensor
    return float(finite.max()) if finite.numel() else 0.0


def _difference(name: str, got: Tensor, golden: Tensor) -> float:
    if got.shape != golden.shape:
        raise Mismatch(f"{name} is {tuple(got.shape)}, golden {tuple(golden.shape)}")
    if got.is_complex() != golden.is_complex():
        raise Mismatch(f"{name} is {got.dtype}, golden {golden.dtype}")
    if golden.numel() == 0:
        return 0.0
    if not golden.is_floating_point() and not golden.is_complex():
        if not torch.equal(got.to(golden.dtype), golden):
            raise Mismatch(f"{name} differs, and integers must be equal")
        return 0.0
    wide = torch.complex128 if golden.is_complex() else torch.float64
    got, golden = got.to(wide), golden.to(wide)
    same = (got == golden) | (got.isnan() & golden.isnan())  # also where both are infinite
    difference = float(torch.where(same, 0, got - golden).abs().max())
    if not math.isfinite(difference):
        raise Mismatch(f"{name} is not finite")
    return difference


def too_far(errors: dict[str, float], tolerance: float) -> str:
    """The tensor that is furthest beyond ``tolerance``, in words; empty when none is."""
    if not errors:
        return ""
    name = max(errors, key=lambda key: errors[key])
    if errors[name] <= tolerance:
        return ""
    return f"{name} is off by {errors[name]:.1e}, tolerance {tolerance:.0e}"


def weighted_sum(golden: Golden, outputs: dict[str, Tensor]) -> Tensor:
    """The scalar whose gradients the file holds: the sum of the outputs times their cotangents."""
    total = torch.zeros((), dtype=torch.float64)
    for name, weighed in golden.cotangents.items():
        if weighed not in outputs:
            raise Mismatch(f"no {weighed}")
        output, weight = outputs[weighed], golden.tensors[f"input.{name}"]
        if output.is_complex():
            output = torch.view_as_real(output)
            weight = torch.view_as_real(weight) if weight.is_complex() else weight
        total = total + (output * weight.to(output.dtype)).sum().double()
    return total
