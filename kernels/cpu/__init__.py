"""What the CPU kernels are made of: a vector type for numba, its functions, and how they run.

Nothing here but :mod:`tristate.kernels.cpu.runtime` may be imported before a kernel first runs:
the rest imports numba, which takes half a second.
"""
