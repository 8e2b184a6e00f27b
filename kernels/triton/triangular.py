"""Triangular systems inside a tile of time, whose steps see what the ones before them wrote."""

# Triton compiles what is below: to a type checker its tiles are Python's values.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportGeneralTypeIssues=false

import triton
import triton.language as tl

from tristate.kernels.triton.products import dot


@triton.jit
def unit_inverse(strict, t, BLOCK_T: tl.constexpr, N_LEVELS: tl.constexpr):
    """``(I + strict)^-1`` for a strictly lower triangular tile of ``2 ** N_LEVELS`` rows.

    Blocks on the diagonal grow from one to all: the inverse of ``[[A, 0], [C, B]]`` is that of
    ``A``, that of ``B``, and below ``-B^-1 C A^-1``. As stable as substitution, where a power
    series would cancel large numbers; two products of tiles a level.
    """
    row, column = t[:, None], t[None, :]
    inverse = tl.where(row == column, 1.0, 0.0) - tl.where(row // 2 == column // 2, strict, 0)
    for level in tl.static_range(1, N_LEVELS):
        size = 2**level
        is_below = (row // (2 * size) == column // (2 * size)) & (row // size != column // size)
        inverse -= dot(inverse, dot(tl.where(is_below, strict, 0), inverse))
    return inverse


@triton.jit
def substitute(strict, rates, wanted, t, BLOCK_T: tl.constexpr):
    """``e`` such that ``e = wanted - strict (rates e)``, all but ``strict`` being ``(T, V)``.

    Row by row: with rates by column each column has a system of its own.
    """
    found = tl.zeros_like(wanted)
    for i in tl.range(0, BLOCK_T, disable_licm=True):
        is_row = (t == i)[:, None]
        weights = tl.sum(tl.where(is_row, strict, 0), 0)
        row = tl.sum(tl.where(is_row, wanted, 0) - weights[:, None] * (rates * found), 0)
        found = tl.where(is_row, row[None, :], found)
    return found


@triton.jit
def substitute_transposed(strict, rates, wanted, t, BLOCK_T: tl.constexpr):
    """``d`` such that ``d = wanted - strict^T (rates d)``, from the last row on."""
    found = tl.zeros_like(wanted)
    for i in tl.range(0, BLOCK_T, disable_licm=True):
        is_row = (t == BLOCK_T - 1 - i)[:, None]
        weights = tl.sum(tl.where(tl.trans(is_row), strict, 0), 1)
        row = tl.sum(tl.where(is_row, wanted, 0) - weights[:, None] * (rates * found), 0)
        found = tl.where(is_row, row[None, :], found)
    return found
