"""The sums over states as PyTorch ops: ``vandermonde``, its transpose, ``cauchy``.

The Vandermonde sums are closed under differentiation: the gradients of each are made of both, so
that they can be differentiated as often as one likes. Complex gradients are PyTorch's: that of
``y = f(x)``, holomorphic, is the one of ``y`` times the conjugate of ``f'(x)``.

Each device's kernels are registered here and imported when first run.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tristate.kernels import double_backward
from tristate.kernels.ssm_kernel import reference
from tristate.kernels.triton.twin import twin


@torch.library.custom_op("tristate::vandermonde", mutates_args=(), device_types="cpu")
def vandermonde(coefficient: Tensor, exponent: Tensor, length: int) -> Tensor:
    """``2 Re sum_n c exp(z l)``, ``(R, D, L)`` float32, for ``c (R, D, N)`` and ``z (D, N)``."""
    from tristate.kernels.ssm_kernel import cpu

    return cpu.vandermonde(coefficient, exponent, length)


@torch.library.custom_op("tristate::vandermonde_moments", mutates_args=(), device_types="cpu")
def moments(x: Tensor, exponent: Tensor) -> tuple[Tensor, Tensor]:
    """``sum_l x exp(z l)`` and ``sum_l l x exp(z l)``, ``(R, D, N)``, for ``x (R, D, L)``."""
    from tristate.kernels.ssm_kernel import cpu

    return cpu.moments(x, exponent)


@torch.library.custom_op("tristate::cauchy", mutates_args=(), device_types="cpu")
def cauchy(coefficient: Tensor, nodes: Tensor, poles: Tensor) -> Tensor:
    """``(R, D, L)`` for coefficients ``(R, D, N)``, nodes ``(L,)`` and poles ``(D, N)``."""
    from tristate.kernels.ssm_kernel import cpu

    return cpu.cauchy(coefficient, nodes, poles)


@torch.library.custom_op("tristate::cauchy_backward", mutates_args=(), device_types="cpu")
def cauchy_backward(
    grad: Tensor, coefficient: Tensor, nodes: Tensor, poles: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of the coefficients and of the poles; the nodes are constants."""
    from tristate.kernels.ssm_kernel import cpu

    return cpu.cauchy_backward(grad, coefficient, nodes, poles)


def _fake_vandermonde(coefficient: Tensor, exponent: Tensor, length: int) -> Tensor:
    n_rows, dim, _ = coefficient.shape
    return coefficient.new_empty(n_rows, dim, length, dtype=torch.float32)


def _fake_moments(x: Tensor, exponent: Tensor) -> tuple[Tensor, Tensor]:
    shape = (*x.shape[:2], exponent.shape[1])
    return (
        x.new_empty(shape, dtype=torch.complex64),
        x.new_empty(shape, dtype=torch.complex64),
    )


def _fake_cauchy(coefficient: Tensor, nodes: Tensor, poles: Tensor) -> Tensor:
    n_rows, dim, _ = coefficient.shape
    return coefficient.new_empty(n_rows, dim, nodes.shape[0])


def _fake_cauchy_backward(
    grad: Tensor, coefficient: Tensor, nodes: Tensor, poles: Tensor
) -> tuple[Tensor, Tensor]:
    return coefficient.new_empty(coefficient.shape), poles.new_empty(poles.shape)


triton_vandermonde = twin(vandermonde, "tristate.kernels.ssm_kernel.triton:vandermonde")
triton_moments = twin(moments, "tristate.kernels.ssm_kernel.triton:moments")
triton_cauchy = twin(cauchy, "tristate.kernels.ssm_kernel.triton:cauchy")
triton_cauchy_backward = twin(cauchy_backward, "tristate.kernels.ssm_kernel.triton:cauchy_backward")


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*(x for x in inputs if isinstance(x, Tensor)))
    ctx.set_materialize_grads(False)


def _vandermonde_gradients(moments: Any) -> Callable[..., tuple[Any, ...]]:
    """The gradients by one device's op for the moments."""

    def gradients(ctx: Any, grad: Tensor | None) -> tuple[Any, ...]:
        if grad is None:
            return None, None, None
        coefficient, exponent = ctx.saved_tensors
        plain, weighted = moments(grad, exponent)
        of_exponent = 2 * (coefficient * weighted).sum(0).conj_physical()
        return 2 * plain.conj_physical(), of_exponent, None

    return gradients


def _keep_moments(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs, output[1])
    ctx.set_materialize_grads(False)


def _moments_gradients(vandermonde: Any, moments: Any) -> Callable[..., tuple[Any, ...]]:
    """The gradients by one device's ops."""

    def gradients(ctx: Any, grad: Tensor | None, grad_weighted: Tensor | None) -> tuple[Any, ...]:
        x, exponent, weighted = ctx.saved_tensors
        length = x.shape[2]
        of_x, of_exponent = torch.zeros_like(x), torch.zeros_like(exponent)
        if grad is not None:
            of_x = of_x + vandermonde(grad.conj_physical(), exponent, length) / 2
            of_exponent = of_exponent + (weighted.conj_physical() * grad).sum(0)
        if grad_weighted is not None:
            positions = torch.arange(length, dtype=torch.float32, device=x.device)
            halves = vandermonde(grad_weighted.conj_physical(), exponent, length) / 2
            twice_weighted = moments(positions * x, exponent)[1]
            of_x = of_x + positions * halves
            of_exponent = of_exponent + (twice_weighted.conj_physical() * grad_weighted).sum(0)
        return of_x, of_exponent

    return gradients


def _cauchy_gradients(backward: Any) -> Callable[..., tuple[Any, ...]]:
    """The gradients by one device's op."""

    def gradients(ctx: Any, grad: Tensor | None) -> tuple[Any, ...]:
        if grad is None:
            return None, None, None
        coefficient, nodes, poles = ctx.saved_tensors
        of_coefficient, of_poles = backward(grad, coefficient, nodes, poles)
        return of_coefficient, None, of_poles

    return gradients


def _cauchy_second(ctx: Any, *cotangents: Tensor | None) -> tuple[Any, ...]:
    grad, coefficient, nodes, poles = ctx.saved_tensors

    def meaning(coefficient: Tensor, poles: Tensor) -> tuple[Tensor]:
        return (reference.cauchy(coefficient, nodes, poles),)

    (of_grad,), (of_coefficient, of_poles) = double_backward.gradients(
        meaning, (coefficient, poles), (grad,), cotangents
    )
    return of_grad, of_coefficient, None, of_poles


for _powers, _sums in ((vandermonde, moments), (triton_vandermonde, triton_moments)):
    _powers.register_fake(_fake_vandermonde)
    _powers.register_autograd(_vandermonde_gradients(_sums), setup_context=_keep)
    _sums.register_fake(_fake_moments)
    _sums.register_autograd(_moments_gradients(_powers, _sums), setup_context=_keep_moments)
for _fractions, _back in ((cauchy, cauchy_backward), (triton_cauchy, triton_cauchy_backward)):
    _fractions.register_fake(_fake_cauchy)
    _fractions.register_autograd(_cauchy_gradients(_back), setup_context=_keep)
    _back.register_fake(_fake_cauchy_backward)
    _back.register_autograd(_cauchy_second, setup_context=_keep)
