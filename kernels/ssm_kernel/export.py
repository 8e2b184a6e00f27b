"""The sums over states in PyTorch's own operators, for programs that leave this package.

In real numbers but for what comes in and goes out: ONNX has no complex ones. The memory that these
take is that of all terms.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def vandermonde(coefficient: Tensor, exponent: Tensor, length: int) -> Tensor:
    """What the op computes."""
    real, imaginary = _powers(exponent, length)
    return 2 * (_sum(coefficient.real, real) - _sum(coefficient.imag, imaginary))


def moments(x: Tensor, exponent: Tensor) -> tuple[Tensor, Tensor]:
    """What the op computes."""
    parts = [part.transpose(1, 2) for part in _powers(exponent, x.shape[2])]
    weighted = x * torch.arange(x.shape[2], device=x.device)
    plain, first = ([_sum(values.float(), part) for part in parts] for values in (x, weighted))
    return torch.complex(plain[0], plain[1]), torch.complex(first[0], first[1])


def cauchy(coefficient: Tensor, nodes: Tensor, poles: Tensor) -> Tensor:
    """What the op computes."""
    real = nodes.real - poles.real[..., None]  # (D, N, L)
    near, far = (nodes.imag - sign * poles.imag[..., None] for sign in (1, -1))
    square = real * real
    a, b = 1 / (square + near * near), 1 / (square + far * far)
    v_real, v_imaginary = coefficient.real, coefficient.imag
    return torch.complex(
        _sum(v_real, real * (a + b)) + _sum(v_imaginary, near * a - far * b),
        _sum(v_imaginary, real * (a - b)) - _sum(v_real, near * a + far * b),
    )


def _powers(exponent: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Real and imaginary parts of ``exp(z l)``, ``(D, N, L)``."""
    positions = torch.arange(length, device=exponent.device)
    # Many turns leave no bits for the fraction of one in float32.
    turns = (exponent.imag.double() / (2 * math.pi))[..., None] * positions
    phase = (2 * math.pi) * (turns - turns.round()).float()
    size = torch.exp(exponent.real[..., None] * positions)
    return size * torch.cos(phase), size * torch.sin(phase)


def _sum(weights: Tensor, terms: Tensor) -> Tensor:
    """``(R, D, L)`` for weights ``(R, D, N)`` and terms ``(D, N, L)``."""
    return torch.matmul(weights.transpose(0, 1), terms).transpose(0, 1)


def decompositions() -> dict[Any, Callable[..., Any]]:
    """The table for :meth:`torch.export.ExportedProgram.run_decompositions`."""
    ops = torch.ops.tristate
    return {
        ops.vandermonde.default: vandermonde,
        ops.vandermonde_triton.default: vandermonde,
        ops.vandermonde_moments.default: moments,
        ops.vandermonde_moments_triton.default: moments,
        ops.cauchy.default: cauchy,
        ops.cauchy_triton.default: cauchy,
    }
