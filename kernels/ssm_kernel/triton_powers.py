"""Powers ``exp(z l)`` on a GPU, exact in phase however large ``l`` is.

The phase of a step is kept as a fraction of a turn in 64 bits: the product with a whole number is
exact, and whole turns fall off its upper end.
"""

# Triton compiles what is below: to a type checker its tiles are Python's values.
# pyright: reportAttributeAccessIssue=false

import math

import torch
import triton
import triton.language as tl
from torch import Tensor


def turns(exponent: Tensor) -> Tensor:
    """The phase of a step in units of ``2**-64`` turns, ``(D, N)`` int64."""
    phase = exponent.imag.double() / (2 * math.pi)
    phase = phase - phase.round()
    # Half a turn is 2**63, which int64 doesn't hold: the last bit comes by an addition that wraps.
    halves = (phase * 2.0**63).to(torch.int64)
    return halves + halves


@triton.jit
def power(rate, turn, position):
    """``exp(z l)`` as a pair: of ``Re z``, the phase as :func:`turns` has it, ``l`` in int64."""
    phase = ((turn * position) >> 32).to(tl.int32)
    # Half turns only change the sign; what remains is between -1/4 and 1/4.
    rest = phase << 1
    y = rest.to(tl.float32) * 2.0**-33
    square = y * y
    # Minimax: cos(2 pi y) and sin(2 pi y), to 3e-9.
    cosine = -25.006790161132812 * square + 60.1482048034668
    cosine = cosine * square - 85.45382690429688
    cosine = cosine * square + 64.9393539428711
    cosine = cosine * square - 19.739208221435547
    cosine = cosine * square + 1
    sine = 39.536705017089844 * square - 76.5497817993164
    sine = sine * square + 81.60100555419922
    sine = sine * square - 41.34165573120117
    sine = (sine * square + 6.283185005187988) * y
    size = tl.exp(rate * position.to(tl.float32))
    size = tl.where((phase ^ rest) < 0, -size, size)
    return size * cosine, size * sine
