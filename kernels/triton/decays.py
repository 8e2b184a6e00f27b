"""What is left inside a tile of time of what came before, where segments begin and state decays.

A decay is given by its logarithm, ``(T,)``, or ``(T, K)`` by channel. All that is summed is of one
sign: a difference of two running sums would lose what they have in common. ``segment``: the number
of each position's segment, which rises along a sequence.
"""

# Triton compiles what is below: to a type checker its tiles are Python's values.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false

import triton
import triton.language as tl


@triton.jit
def segments_at(segments, place):
    """Each position's number as :func:`tristate.kernels.triton.segments.numbers` has it.

    And which positions are real.
    """
    found = tl.load(segments + place)
    return tl.maximum(found, ~found), found >= 0


@triton.jit
def segment_before(segments, first):
    """The segment of the state that comes to a position: 0 before all."""
    found = tl.load(segments + first - 1, mask=first > 0, other=0)
    return tl.maximum(found, ~found)


@triton.jit
def segment_after(segment, t, BLOCK_T: tl.constexpr):
    """The segment of a tile's last position."""
    return tl.sum(tl.where(t == BLOCK_T - 1, segment, 0), 0)


@triton.jit
def decay_before(log_decay, segment, before):
    """What is left of the state before a tile at each of its positions, ``(T,)``."""
    return tl.where(segment == before, tl.exp(tl.cumsum(log_decay, 0)), 0)


@triton.jit
def decay_after(log_decay, segment, after, t):
    """What is left at a tile's end of what each position brought in, ``(T,)``."""
    later = tl.where(t[:, None] > t[None, :], log_decay[:, None], 0)
    return tl.where(segment == after, tl.exp(tl.sum(later, 0)), 0)


@triton.jit
def decay_between(log_decay, segment, t):
    """What is left at a position, by row, of what an earlier one, by column, brought in."""
    between = tl.cumsum(tl.where(t[:, None] > t[None, :], log_decay[:, None], 0), 0)
    return tl.where(reaches(segment, t), tl.exp(between), 0)


@triton.jit
def reaches(segment, t):
    """Whether a position, by row, is in the segment of another, by column, and not before it."""
    return (t[:, None] >= t[None, :]) & (segment[:, None] == segment[None, :])
