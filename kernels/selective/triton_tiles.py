"""What the selective scan's kernels read of a tile, forward and backward, real and complex."""

import triton
import triton.language as tl

from tristate.kernels.triton.functions import softplus


@triton.jit
def step_sizes(delta, inside, real, shift, SOFTPLUS: tl.constexpr):
    """The sizes of a tile's steps, ``(T, D)`` float32: ``delta`` with its bias, through softplus.

    A step of no size leaves the state as it is: so do padding and what lies beyond the end, where
    ``real (T,)`` doesn't hold.
    """
    dt = tl.load(delta, mask=inside, other=0).to(tl.float32)
    if shift is not None:
        dt += shift
    if SOFTPLUS:
        dt = softplus(dt)
    return tl.where(real[:, None], dt, 0)
