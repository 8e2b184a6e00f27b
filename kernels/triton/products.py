"""Products of tiles: matrix products that are as exact as float32, on the units that GPUs have."""

# Triton compiles what is below: to a type checker its tiles are Python's values.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false

from typing import Any

import triton
import triton.language as tl

from tristate.kernels.triton.interpreter import interprets

_INTERPRETED = tl.constexpr(interprets())
_EXACT = tl.constexpr("bf16x6")


@tl.core.builtin
def _exactly(_semantic: Any = None) -> Any:
    """How a target multiplies float32 numbers: NVIDIA's in six products of bfloat16.

    AMD's matrix units for servers know float32. The others have none for it, and the parts of six
    products don't fit their registers.
    """
    is_nvidia = _semantic.builder.options.backend_name == "cuda"
    return tl.constexpr("bf16x6" if is_nvidia else "ieee")


@triton.jit
def dot(a, b):
    """``a @ b`` in float32, to the precision of float32; sizes are at least 16.

    NVIDIA's matrix units multiply numbers of 16 bits, so a float32 number is the sum of three
    bfloat16 numbers there. Two tiles of one 16-bit dtype take one product, bfloat16 and float32
    take three, all else six.
    """
    if _INTERPRETED:
        # It would multiply the bits of a bfloat16 as an integer.
        product = tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="ieee")
    elif a.dtype == b.dtype and a.dtype != tl.float32:
        product = tl.dot(a, b)
    elif b.dtype == tl.bfloat16:
        high = a.to(tl.bfloat16)
        rest = a - high.to(tl.float32)
        middle = rest.to(tl.bfloat16)
        low = (rest - middle.to(tl.float32)).to(tl.bfloat16)
        product = tl.dot(high, b, tl.dot(middle, b, tl.dot(low, b)))
    elif a.dtype == tl.bfloat16:
        high = b.to(tl.bfloat16)
        rest = b - high.to(tl.float32)
        middle = rest.to(tl.bfloat16)
        low = (rest - middle.to(tl.float32)).to(tl.bfloat16)
        product = tl.dot(a, high, tl.dot(a, middle, tl.dot(a, low)))
    else:
        product = tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision=_exactly())
    return product
