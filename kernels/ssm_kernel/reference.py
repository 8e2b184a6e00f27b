"""The sums over an SSM's states in plain PyTorch: what every backend must compute.

A diagonal state-space model has the kernel ``K[l] = sum_n c[n] exp(z[n] l)``: a product of its
coefficients with a Vandermonde matrix (S4D, DSS). The generating function of a diagonal plus
low-rank one is made of sums ``sum_n v[n] / (z - w[n])``: products with a Cauchy matrix (S4). Real
models have states in conjugate pairs, of which one of each is given::

    vandermonde   sum_n  c[n] exp(z[n] l) + conj(c[n] exp(z[n] l))  =  2 Re sum_n c[n] exp(z[n] l)
    cauchy        sum_n  v[n] / (z - w[n]) + conj(v[n]) / (z - conj(w[n]))

Source: Gu et al. 2022 (S4), https://arxiv.org/abs/2111.00396, section 3.2; Gupta 2022 (DSS),
https://arxiv.org/abs/2203.14343; Gu et al. 2022 (S4D), https://arxiv.org/abs/2206.11893, section
3.3.
"""

import torch
from torch import Tensor


def vandermonde(coefficient: Tensor, exponent: Tensor, length: int) -> Tensor:
    """``(..., D, L)`` for coefficients ``(..., D, N)`` and exponents ``(D, N)``."""
    terms = torch.einsum("...dn,dnl->...dl", _as(coefficient, exponent), _powers(exponent, length))
    return 2 * terms.real if terms.is_complex() else terms


def vandermonde_transpose(x: Tensor, exponent: Tensor) -> Tensor:
    """``sum_l x[l] exp(z[n] l)``, ``(..., D, N)``, for ``x (..., D, L)`` and ``z (D, N)``."""
    return torch.einsum("...dl,dnl->...dn", _as(x, exponent), _powers(exponent, x.shape[-1]))


def cauchy(coefficient: Tensor, nodes: Tensor, poles: Tensor) -> Tensor:
    """``(..., D, L)`` for coefficients ``(..., D, N)``, nodes ``(L,)`` and poles ``(D, N)``."""
    near = 1 / (nodes - poles[..., None])  # (D, N, L)
    far = 1 / (nodes - poles.conj()[..., None])
    return torch.einsum("...dn,dnl->...dl", coefficient, near) + torch.einsum(
        "...dn,dnl->...dl", coefficient.conj(), far
    )


def _powers(exponent: Tensor, length: int) -> Tensor:
    """``exp(z l)``, ``(D, N, L)``."""
    dtype = exponent.real.dtype if exponent.is_complex() else exponent.dtype
    positions = torch.arange(length, dtype=dtype, device=exponent.device)
    return torch.exp(exponent[..., None] * positions)


def _as(x: Tensor, other: Tensor) -> Tensor:
    """``x``, complex where ``other`` is."""
    return x.to(torch.promote_types(x.dtype, other.dtype))
