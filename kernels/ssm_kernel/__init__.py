"""From the parameters of a state-space model to its convolution kernel, and to its last state.

What the time-invariant layers are made of:

- the kernel of a diagonal model, ``vandermonde(C * B, dt * A, L)``: S4D, DSS, Mega's average;
- what an initial state ``h`` adds to the outputs, ``vandermonde(C * h * exp(dt * A), dt * A, L)``,
  one row more for each sequence;
- the state after an input ``x``:
  ``exp(dt * A * L) * h + B * vandermonde_transpose(x.flip(-1), dt * A)``;
- the generating function of a diagonal plus low-rank model, four ``cauchy`` sums: S4.
"""

import torch
from torch import Tensor

from tristate.kernels.backend import choose
from tristate.kernels.checks import expect_one_device, expect_shape
from tristate.kernels.ssm_kernel import ops, reference

__all__ = ["cauchy", "vandermonde", "vandermonde_transpose"]

_BACKENDS = ("reference", "cpu", "triton")


def vandermonde(
    coefficient: Tensor, exponent: Tensor, length: int, *, backend: str = "auto"
) -> Tensor:
    """``K[l] = sum_n c[n] exp(z[n] l)`` for ``l`` below ``length``: the kernel of a diagonal model.

    Where either argument is complex, each state stands for itself and its conjugate, and the sum is
    ``2 Re sum_n c[n] exp(z[n] l)``; of a full set of states, halve the coefficients.

    Args:
        coefficient: ``c``, ``(..., D, N)``, real or complex; axes in front are rows that share the
            exponents: directions, output channels, sequences.
        exponent: ``z``, ``(D, N)``, real or complex, finite: ``dt * A``, or the logarithm of a
            discrete ``A``.
        length: ``L``, how many positions.
        backend: ``"auto"``, or one of :func:`tristate.kernels.available_backends`.

    Returns:
        ``(..., D, L)``, real, at least float32. The fast backends take memory for inputs and
        outputs, on a CPU ``64 * N`` powers a thread; the reference makes ``D * N * L``.

    Raises:
        ValueError: the shapes disagree, or the backend can't run this.

    Source: Gu et al. 2022 (S4D), https://arxiv.org/abs/2206.11893, section 3.3.
    """
    coefficient, exponent = _check(coefficient, exponent)
    if length < 0:
        raise ValueError(f"length must not be negative, got {length}")
    chosen = choose("vandermonde", _real(exponent), backend, _BACKENDS)
    if chosen == "reference":
        return reference.vandermonde(coefficient, exponent, length)
    if not (coefficient.is_complex() or exponent.is_complex()):
        coefficient = coefficient / 2
    rows = coefficient.to(torch.complex64).reshape(-1, *exponent.shape)
    op = ops.triton_vandermonde if chosen == "triton" else ops.vandermonde
    out = op(rows, exponent.to(torch.complex64), length)
    return out.reshape(*coefficient.shape[:-1], length)


def vandermonde_transpose(x: Tensor, exponent: Tensor, *, backend: str = "auto") -> Tensor:
    """``S[n] = sum_l x[l] exp(z[n] l)``: with the flip of an input, the state after it.

    That is, ``vandermonde_transpose(x.flip(-1), z)`` is the last ``h`` of the recurrence ``h[l] =
    exp(z) h[l-1] + x[l]``. A complex exponent stands for itself alone here.

    Args:
        x: ``(..., D, L)``, real.
        exponent: ``z``, ``(D, N)``, real or complex.
        backend: ``"auto"``, or one of :func:`tristate.kernels.available_backends`.

    Returns:
        ``(..., D, N)``, complex where the exponents are, at least float32. Memory is as in
        :func:`vandermonde`.

    Raises:
        ValueError: the shapes disagree, or the backend can't run this.
    """
    if x.is_complex():
        raise ValueError(f"x must be real, got {x.dtype}")
    if exponent.dim() != 2 or x.dim() < 2 or x.shape[-2] != exponent.shape[0]:
        raise ValueError(
            f"x must be (..., D, L) and exponent (D, N), got {tuple(x.shape)} and "
            f"{tuple(exponent.shape)}"
        )
    expect_one_device({"x": x, "exponent": exponent})
    x, exponent = _at_least_single(x), _at_least_single(exponent)
    chosen = choose("vandermonde_transpose", _real(exponent), backend, _BACKENDS)
    if chosen == "reference":
        return reference.vandermonde_transpose(x, exponent)
    op = ops.triton_moments if chosen == "triton" else ops.moments
    out = op(x.reshape(-1, *x.shape[-2:]), exponent.to(torch.complex64))[0]
    out = out.reshape(*x.shape[:-1], exponent.shape[1])
    return out if exponent.is_complex() else out.real


def cauchy(coefficient: Tensor, nodes: Tensor, poles: Tensor, *, backend: str = "auto") -> Tensor:
    """``sum_n v[n] / (z[l] - w[n]) + conj(v[n]) / (z[l] - conj(w[n]))``: pairs of conjugate poles.

    Args:
        coefficient: ``v``, ``(..., D, N)``, complex; axes in front are rows that share the poles.
        nodes: ``z``, ``(L,)``, complex, constants, smaller than ``1e18`` in magnitude.
        poles: ``w``, ``(D, N)``, complex, of which none is a node.
        backend: ``"auto"``, or one of :func:`tristate.kernels.available_backends`.

    Returns:
        ``(..., D, L)``, complex. The fast backends take memory for inputs and outputs, on a CPU
        ``16 * N`` fractions a thread; the reference makes ``D * N * L``.

    Raises:
        ValueError: the shapes disagree, an argument is real, nodes require a gradient, or the
            backend can't run this.

    Source: Gu et al. 2022 (S4), https://arxiv.org/abs/2111.00396, appendix C.3.
    """
    for name, tensor in {"coefficient": coefficient, "nodes": nodes, "poles": poles}.items():
        if not tensor.is_complex():
            raise ValueError(f"{name} must be complex, got {tensor.dtype}")
    coefficient, poles = _check(coefficient, poles, "poles")
    if nodes.dim() != 1:
        raise ValueError(f"nodes must be (L,), got {tuple(nodes.shape)}")
    if nodes.requires_grad:
        raise ValueError("nodes are constants: they must not require a gradient")
    expect_one_device({"coefficient": coefficient, "nodes": nodes})
    chosen = choose("cauchy", _real(poles), backend, _BACKENDS)
    if chosen == "reference":
        return reference.cauchy(coefficient, nodes, poles)
    single = [x.to(torch.complex64) for x in (coefficient, nodes, poles)]
    op = ops.triton_cauchy if chosen == "triton" else ops.cauchy
    out = op(single[0].reshape(-1, *poles.shape), single[1], single[2])
    return out.reshape(*coefficient.shape[:-1], nodes.shape[0])


def _check(coefficient: Tensor, other: Tensor, name: str = "exponent") -> tuple[Tensor, Tensor]:
    if other.dim() != 2:
        raise ValueError(f"{name} must be (D, N), got {tuple(other.shape)}")
    shape = (*coefficient.shape[:-2], *other.shape)
    expect_shape("coefficient", coefficient, shape, f"(..., D, N), as {name},")
    expect_one_device({"coefficient": coefficient, name: other})
    return _at_least_single(coefficient), _at_least_single(other)


def _at_least_single(x: Tensor) -> Tensor:
    """Halves, whole numbers and such as float32."""
    return x if x.is_complex() else x.to(torch.promote_types(x.dtype, torch.float32))


def _real(x: Tensor) -> Tensor:
    """A tensor whose dtype says how precise ``x`` is."""
    return x.real if x.is_complex() else x
