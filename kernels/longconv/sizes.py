"""Sizes of FFTs that are fast, and where a direct sum is faster.

Of PyTorch's real transforms (MKL, float32, 16 rows) a power of two takes 0.25 to 0.3 ns for each
``n log2(n)``, a factor of 3 or 5 costs some 5 % more, a larger prime three times as much, and so
does a size that 8 doesn't divide.
"""

import math
from collections.abc import Sequence
from functools import cache

# What one factor of 3 or 5 costs.
_ODD = 1.05
# Multiply-adds of a direct sum that take as long as n log2(n) of a transform of two sequences by
# this package, and of all transforms of a grid by PyTorch.
_WORTH_LINE, _WORTH_GRID = 4.5, 15.0
LANES = 16


@cache
def line_size(least: int) -> tuple[int, int]:
    """The smallest size of this package's FFT of at least ``least`` points, and its odd factor."""
    return min((odd * max(256, _power_of_two(least / odd)), odd) for odd in (1, 3, 5))


@cache
def grid_size(least: int) -> int:
    """The fastest size of PyTorch's FFT of at least ``least``: ``2^a 3^b 5^c``, ``a >= 3``."""
    best, cost = 0, math.inf
    for threes in range(20):
        for fives in range(14):
            odd = 3**threes * 5**fives
            if odd > 2 * least and odd > 1:
                break
            size = odd * max(8, _power_of_two(least / odd))
            if size * _ODD ** (threes + fives) < cost:
                best, cost = size, size * _ODD ** (threes + fives)
    return best


def _power_of_two(least: float) -> int:
    return 1 << max(0, math.ceil(math.log2(least)))


def direct_is_faster(
    batch: int,
    n_out: int,
    grid: Sequence[int],
    taps: Sequence[int],
    origin: Sequence[int],
    sizes: Sequence[int],
) -> bool:
    """Whether to sum directly, over rows of 16 outputs, rather than transform ``sizes`` points."""
    n, length = math.prod(sizes), -(-grid[-1] // LANES) * LANES
    # What taps ahead and behind would reach beyond a row's ends is left out.
    ahead, behind = origin[-1], taps[-1] - 1 - origin[-1]
    beyond = (ahead * (ahead + 1) + behind * (behind + 1)) // 2
    terms = math.prod(grid[:-1]) * math.prod(taps[:-1]) * (length * taps[-1] - beyond)
    if len(grid) > 1:
        return terms <= _WORTH_GRID * n * math.log2(n)
    # Of kernels, and two sequences at a time of inputs and outputs.
    n_transforms = n_out + -(-batch // 2) * (1 + n_out)
    return batch * n_out * terms <= _WORTH_LINE * n_transforms * n * math.log2(n)
