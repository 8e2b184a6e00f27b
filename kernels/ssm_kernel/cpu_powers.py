"""Powers ``exp(z * k)`` of 16 complex numbers at once, exact in phase however large ``k`` is.

The phase is kept in turns, as a float32 and what is missing from it: the product with a whole
number is then known to the last bit, and only its fraction matters.
"""

import numpy as np

from tristate.kernels.cpu.functions import exp
from tristate.kernels.cpu.vector import add, fma, jit, maximum, mul, neg, splat, sub

# 1.5 * 2**23: adding it to |x| < 2**22 rounds x to a whole number.
_ROUND = np.float32(12582912.0)
# A little more than what exp gives where it runs out of exponents: from there on it is zero.
_LEAST = np.float32(1.00001 * 2.0**-126)
# cos(2 pi y) = 1 + y**2 * C(y**2) and sin(2 pi y) = y * S(y**2) for |y| <= 1/4; minimax, 3e-9.
_C1 = np.float32(-19.739208221435547)
_C2 = np.float32(64.9393539428711)
_C3 = np.float32(-85.45382690429688)
_C4 = np.float32(60.1482048034668)
_C5 = np.float32(-25.006790161132812)
_S1 = np.float32(6.283185005187988)
_S2 = np.float32(-41.34165573120117)
_S3 = np.float32(81.60100555419922)
_S4 = np.float32(-76.5497817993164)
_S5 = np.float32(39.536705017089844)


@jit
def power(rate, turns, rest, k):
    """``exp((rate + 2 pi i (turns + rest)) * k)`` as a pair, real and imaginary.

    Args:
        rate: what the magnitude's logarithm grows by.
        turns: what the phase grows by, between -1/2 and 1/2.
        rest: the part of it that float32 has no bits for.
        k: whole numbers, ``|k| < 2**22``.
    """
    one, round_ = splat(np.float32(1)), splat(_ROUND)
    product = mul(k, turns)
    # Two roundings that cancel: the product is `product` and this, exactly.
    missing = fma(k, turns, neg(product))
    whole = sub(add(product, round_), round_)
    turn = add(sub(product, whole), fma(k, rest, missing))
    # Half turns only change the sign.
    half = sub(fma(turn, splat(np.float32(2)), round_), round_)
    y = fma(half, splat(np.float32(-0.5)), turn)
    sign = fma(mul(half, splat(np.float32(-2))), half, one)
    square = mul(y, y)
    cosine = fma(square, splat(_C5), splat(_C4))
    cosine = fma(square, cosine, splat(_C3))
    cosine = fma(square, cosine, splat(_C2))
    cosine = fma(square, cosine, splat(_C1))
    cosine = fma(square, cosine, one)
    sine = fma(square, splat(_S5), splat(_S4))
    sine = fma(square, sine, splat(_S3))
    sine = fma(square, sine, splat(_S2))
    sine = mul(fma(square, sine, splat(_S1)), y)
    size = maximum(sub(exp(mul(rate, k)), splat(_LEAST)), splat(np.float32(0)))
    size = mul(size, sign)
    return mul(size, cosine), mul(size, sine)
