"""Problems of the tests on state-space kernels and long convolutions."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor


def states(dim: int, n_states: int, seed: int) -> Tensor:
    """Exponents or poles ``(D, N)``: slow and fast decays, less than a turn and several a step."""
    generator = torch.Generator().manual_seed(seed)
    rate = -(10 ** (-3 * torch.rand(dim, n_states, generator=generator)))
    return torch.complex(rate, 3 * torch.randn(dim, n_states, generator=generator))


def coefficients(*shape: int, seed: int) -> Tensor:
    """Complex numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.complex64)


def grads(
    op: Callable[..., Tensor], tensors: Mapping[str, Tensor], cotangent: Tensor
) -> dict[str, Tensor]:
    """``out`` and ``grad.<name>`` of each tensor; complex numbers as pairs of real ones."""
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}
    out = op(**leaves)
    found = torch.autograd.grad(out, list(leaves.values()), cotangent.to(out.dtype))
    named = {f"grad.{name}": grad for name, grad in zip(leaves, found, strict=True)}
    return {name: real(x.detach()) for name, x in {"out": out, **named}.items()}


def second(
    op: Callable[..., Tensor], tensors: Mapping[str, Tensor], cotangent: Tensor
) -> dict[str, Tensor]:
    """Gradients of the sum of all gradients' squares."""
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}
    out = op(**leaves)
    weight = cotangent.detach().to(out.dtype).requires_grad_()
    first = torch.autograd.grad(out, list(leaves.values()), weight, create_graph=True)
    loss = torch.stack([real(grad).square().sum() for grad in first]).sum()
    found = torch.autograd.grad(loss, [*leaves.values(), weight])
    return dict(zip([*leaves, "cotangent"], map(real, found), strict=True))


def exact(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same numbers in double precision."""
    return {name: x.cdouble() if x.is_complex() else x.double() for name, x in tensors.items()}


def real(x: Tensor) -> Tensor:
    """Pairs of real numbers for complex ones."""
    return torch.view_as_real(x.resolve_conj()) if x.is_complex() else x
