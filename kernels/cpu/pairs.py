"""Eight complex numbers at once: a vector of 16 lanes, real and imaginary parts in turn."""

from tristate.kernels.cpu.vector import (
    firsts,
    fma,
    jit,
    negate_firsts,
    seconds,
    swap_pairs,
)


@jit
def multiply_add(x, y, z):
    """``x * y + z``."""
    return fma(seconds(x), negate_firsts(swap_pairs(y)), fma(firsts(x), y, z))


@jit
def conjugate_multiply_add(x, y, z):
    """``x.conj() * y + z``."""
    # conj(x) y = xr yr + xi yi, xr yi - xi yr
    return fma(seconds(x), swap_pairs(negate_firsts(y)), fma(firsts(x), y, z))
