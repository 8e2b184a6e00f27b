"""exp, exp2, softplus, sigmoid and silu of 16 numbers, to about two units in the last place."""

import numpy as np

from tristate.kernels.cpu.vector import (
    absolute,
    add,
    div,
    fma,
    jit,
    maximum,
    minimum,
    mul,
    neg,
    scale,
    splat,
    sub,
    sum_lanes,
    where_negative,
)

LOG2_E = np.float32(1.4426950408889634)
_LOG2_E_REST = np.float32(1.4426950408889634 - float(LOG2_E))
LN_2 = np.float32(0.6931471805599453)

# 1.5 * 2**23: adding it to |x| < 2**22 rounds x to a whole number, in the low bits of the mantissa.
_ROUND = np.float32(12582912.0)
_LEAST, _MOST = np.float32(-126.0), np.float32(127.999)
# 2**x on [-0.5, 0.5] by a polynomial with value and slope exact at 0, so that slow modes (a decay
# close to 1) have no bias. The other coefficients minimise the relative error: 1.05e-7.
_E1 = np.float32(0.6931471805599453)
_E2 = np.float32(0.24022281169891357)
_E3 = np.float32(0.055505599826574326)
_E4 = np.float32(0.009669708088040352)
_E5 = np.float32(0.0013300263090059161)
# e**x for |x| up to half of ln 2, likewise exact at 0: what follows 1 + x. Relative error 1.06e-7.
_X2 = np.float32(0.499992311000824)
_X3 = np.float32(0.16667115688323975)
_X4 = np.float32(0.041890330612659454)
_X5 = np.float32(0.008312501013278961)
# log(1 + x) / x on [0, 1], 1 at 0; minimax, relative error 3.3e-8.
_L1 = np.float32(-0.49999648332595825)
_L2 = np.float32(0.333213210105896)
_L3 = np.float32(-0.24857139587402344)
_L4 = np.float32(0.19153548777103424)
_L5 = np.float32(-0.13753561675548553)
_L6 = np.float32(0.07920157164335251)
_L7 = np.float32(-0.03006391040980816)
_L8 = np.float32(0.005364344455301762)


@jit
def _power(rest, shifted):
    """``2**(rest + n)``, ``|rest| <= 0.5``, ``n`` in the low bits of ``shifted``."""
    value = fma(rest, splat(_E5), splat(_E4))
    value = fma(rest, value, splat(_E3))
    value = fma(rest, value, splat(_E2))
    value = fma(rest, value, splat(_E1))
    value = fma(rest, value, splat(np.float32(1)))
    return scale(value, shifted)


@jit
def exp2_within(x):
    """``2**x`` for ``x`` from -126 to 127."""
    shifted = add(x, splat(_ROUND))
    # Not x - (shifted - c): LLVM adds -c there, and one more constant wants a register.
    return _power(add(x, sub(splat(_ROUND), shifted)), shifted)


@jit
def exp2(x):
    """``2**x``, between ``2**-126`` and ``2**127.999``; NaN stays NaN."""
    return exp2_within(minimum(maximum(x, splat(_LEAST)), splat(_MOST)))


@jit
def excess(x):
    """Above 0, or NaN, where :func:`exp2_within` doesn't suit all of ``x`` and ``-x``; else 0."""
    return sum_lanes(maximum(add(absolute(x), splat(_LEAST)), splat(np.float32(0))))


@jit
def exp(x):
    """``e**x``, between ``2**-126`` and ``2**127.999``; NaN stays NaN."""
    x = minimum(maximum(x, splat(_LEAST * LN_2)), splat(_MOST * LN_2))
    shifted = fma(x, splat(LOG2_E), splat(_ROUND))
    # A rounded product, or a rounded log2(e), would put it wrong by |x| units in the last place.
    rest = fma(x, splat(LOG2_E), sub(splat(_ROUND), shifted))
    return _power(fma(x, splat(_LOG2_E_REST), rest), shifted)


@jit
def _fast_exp(x):
    """``e**x`` between the bounds of :func:`exp`, where an error of ``3e-9 |x|`` is no harm."""
    one = splat(np.float32(1))
    shifted = fma(x, splat(LOG2_E), splat(_ROUND))
    # float32 happens to have ln 2 to 3e-9, five times as well as log2(e).
    rest = fma(sub(shifted, splat(_ROUND)), splat(-LN_2), x)
    value = fma(rest, splat(_X5), splat(_X4))
    value = fma(rest, value, splat(_X3))
    value = fma(rest, value, splat(_X2))
    value = fma(rest, fma(rest, value, one), one)
    return scale(value, shifted)


@jit
def _exp_of_minus_absolute(x):
    """``e**-|x|``, at least ``2**-126``; NaN stays NaN."""
    return _fast_exp(maximum(neg(absolute(x)), splat(_LEAST * LN_2)))


@jit
def _add_log(least, e):
    """``least + log(1 + e)`` for ``e`` from 0 to 1."""
    # Estrin's order: the chain of Horner's is longer than the processor looks ahead.
    square = mul(e, e)
    fourth = mul(square, square)
    first = fma(square, fma(e, splat(_L3), splat(_L2)), fma(e, splat(_L1), splat(np.float32(1))))
    second = fma(square, fma(e, splat(_L7), splat(_L6)), fma(e, splat(_L5), splat(_L4)))
    return fma(e, fma(fourth, fma(fourth, splat(_L8), second), first), least)


@jit
def softplus(x):
    """``log(1 + exp(x))``."""
    return _add_log(maximum(x, splat(np.float32(0))), _exp_of_minus_absolute(x))


@jit
def softplus_and_slope(x):
    """:func:`softplus` and its derivative, :func:`sigmoid`."""
    one = splat(np.float32(1))
    e = _exp_of_minus_absolute(x)
    value = _add_log(maximum(x, splat(np.float32(0))), e)
    return value, div(where_negative(x, e, one), add(one, e))


@jit
def sigmoid(x):
    """``1 / (1 + exp(-x))``."""
    one = splat(np.float32(1))
    return div(one, add(one, exp(neg(x))))


@jit
def silu(x):
    """``x * sigmoid(x)``."""
    return div(x, add(splat(np.float32(1)), exp(neg(x))))


@jit
def silu_slope(x):
    """The derivative of :func:`silu`."""
    s = sigmoid(x)
    return mul(s, fma(x, sub(splat(np.float32(1)), s), splat(np.float32(1))))
