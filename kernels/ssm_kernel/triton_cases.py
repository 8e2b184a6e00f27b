"""Sizes at which the Triton kernels of the sums over states are inspected."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from tristate.kernels.ssm_kernel import triton

_CHANNELS, _LENGTH = 256, 4096


def vandermonde() -> Iterator[tuple[str, Callable[[], object]]]:
    """A block of states, several, and a short kernel."""
    for n_states, length in ((16, _LENGTH), (32, _LENGTH), (64, _LENGTH), (32, 64)):
        yield f"{n_states} states, {length} positions", partial(_powers, n_states, length)


def cauchy() -> Iterator[tuple[str, Callable[[], object]]]:
    """Rows that share fractions, and one alone."""
    for n_rows in (1, 2, 4):
        yield f"{n_rows} rows, 32 poles", partial(_fractions, n_rows, 32)
    yield "4 rows, 64 poles", partial(_fractions, 4, 64)


def _powers(n_states: int, length: int) -> None:
    exponent, coefficient = _complex(_CHANNELS, n_states), _complex(1, _CHANNELS, n_states)
    triton.vandermonde(coefficient, exponent, length)
    triton.moments(torch.empty(2, _CHANNELS, length, device="meta"), exponent)


def _fractions(n_rows: int, n_states: int) -> None:
    coefficient, poles = _complex(n_rows, _CHANNELS, n_states), _complex(_CHANNELS, n_states)
    nodes, grad = _complex(_LENGTH + 1), _complex(n_rows, _CHANNELS, _LENGTH + 1)
    triton.cauchy(coefficient, nodes, poles)
    triton.cauchy_backward(grad, coefficient, nodes, poles)


def _complex(*shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.complex64, device="meta")
