"""What the kernels of Mamba-2's scan read and write of a tile of time."""

# Triton compiles what is below: to a type checker its tiles are Python's values.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false

import triton
import triton.language as tl

from tristate.kernels.triton.decays import decay_after, segments_at
from tristate.kernels.triton.functions import softplus
from tristate.kernels.triton.products import dot


@triton.jit
def steps_at(
    dt, dt_t, shift, segments, place, length, least, most,
    SOFTPLUS: tl.constexpr, REVERSE: tl.constexpr,
):  # fmt: skip
    """Of positions: the raw and the limited step size, which are real, and their segment.

    A step of no size leaves the state as it is: padding, and what lies beyond the end.
    """
    real = place < length
    at = (length - 1 - place if REVERSE else place).to(tl.int64)
    raw = tl.load(dt + at * dt_t, mask=real, other=0).to(tl.float32) + shift
    size = softplus(raw) if SOFTPLUS else raw
    size = tl.minimum(tl.maximum(size, least), most)
    segment = tl.zeros_like(place)
    if segments is not None:
        segment, is_real = segments_at(segments, place)
        real &= is_real
    return raw, tl.where(real, size, 0), real, segment


@triton.jit
def rows_at(x, x_t, x_c, place, real, lane, inside, length, REVERSE: tl.constexpr):
    """A tile ``(T, lanes)``, zeros where a position isn't real."""
    at = (length - 1 - place if REVERSE else place).to(tl.int64)
    mask = real[:, None] & inside[None, :]
    return tl.load(x + at[:, None] * x_t + lane[None, :] * x_c, mask=mask, other=0)


@triton.jit
def store_rows(x, x_t, x_c, place, lane, inside, values, length, REVERSE: tl.constexpr):
    """Write a tile ``(T, lanes)`` where there are positions."""
    at = (length - 1 - place if REVERSE else place).to(tl.int64)
    mask = (place < length)[:, None] & inside[None, :]
    values = values.to(x.dtype.element_ty)
    tl.store(x + at[:, None] * x_t + lane[None, :] * x_c, values, mask=mask)


@triton.jit
def state_after(h, x, B, size, log_decay, segment, before, after, t):
    """The state ``(P, N)`` behind a tile."""
    weight = size * decay_after(log_decay, segment, after, t)
    kept = tl.where(before == after, tl.exp(tl.sum(log_decay, 0)), 0)
    return kept * h + dot(tl.trans(x), weight[:, None] * B.to(tl.float32))
