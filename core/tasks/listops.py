"""ListOps: work out nested minima, maxima, medians and sums of digits."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tristate.core.tasks.problem import IGNORE

Ints = NDArray[np.int64]


def _minimum(values: Ints, counts: Ints) -> Ints:
    return values.min(1)


def _maximum(values: Ints, counts: Ints) -> Ints:
    return np.where(values < _NONE, values, -1).max(1)


def _median(values: Ints, counts: Ints) -> Ints:
    """The median, rounded down where it lies between two digits."""
    ordered = np.sort(values, 1)
    middle = np.stack([(counts - 1) // 2, counts // 2], 1)
    return np.take_along_axis(ordered, middle, 1).sum(1) // 2


def _sum(values: Ints, counts: Ints) -> Ints:
    return np.where(values < _NONE, values, 0).sum(1) % 10


# Each gives the values (n,) of n operators, whose arguments are (n, most), _NONE behind the last.
OPERATORS: dict[str, Callable[[Ints, Ints], Ints]] = {
    "[MIN": _minimum,
    "[MAX": _maximum,
    "[MED": _median,
    "[SM": _sum,
}
TOKENS = ["", *map(str, range(10)), *OPERATORS, "]"]
"""By id: padding, the digits, the operators with their opening brackets, the closing bracket."""

_NONE = 10
_DIGIT = 1
_OPERATOR = _DIGIT + 10
_END = _OPERATOR + len(OPERATORS)
# Share of the inner nodes among those that may be one: what the published generator calls VALUE_P.
_NESTED = 0.25


class ListOps:
    """Read an expression such as ``[MAX 2 9 [MIN 4 7 ] 0 ]`` and say its value, 0 to 9.

    Expressions are drawn as the published generator draws them: an operator has 2 to ``max_args``
    arguments, each of which is a digit, or again an operator with probability 0.25 as long as it
    lies less than ``max_depth`` deep; those of ``min_length`` or fewer tokens and those that fill
    ``length`` are drawn again. The value is asked for at the last bracket; behind it stands padding
    (id 0), which a causal model has not seen when it answers.

    The defaults are a small version of the task; Long Range Arena's are ``ListOps(length=2000,
    min_length=500, max_depth=10, max_args=10)``.

    Args:
        length: positions; an expression has fewer tokens.
        min_length: it has more tokens than this; where a draw asks for another length, than the
            same share of that.
        max_depth: of the nesting; digits alone stand at this depth.
        max_args: of an operator.

    Raises:
        ValueError: no expression is that long.

    Source: Nangia & Bowman 2018, https://arxiv.org/abs/1804.06028; Tay et al. 2020 (Long Range
    Arena), https://arxiv.org/abs/2011.04006, with the distribution of
    https://github.com/google-research/long-range-arena (lra_benchmarks/data/listops.py). As there,
    models read no round brackets.
    """

    vocab_size = len(TOKENS)
    n_classes = 10

    def __init__(
        self, length: int = 128, min_length: int = 16, max_depth: int = 6, max_args: int = 5
    ) -> None:
        if max_depth < 2 or max_args < 2:
            raise ValueError(
                f"wanted max_depth and max_args of at least 2, got {max_depth} and {max_args}"
            )
        self.length, self.min_length = length, min_length
        self.max_depth, self.max_args = max_depth, max_args
        self._check(length)

    def _check(self, length: int) -> None:
        longest = 1
        for _ in range(self.max_depth - 1):
            longest = 2 + self.max_args * longest
        # An operator, two digits and a bracket are the shortest one.
        first = max(4, self._least(length) + 1)
        if first >= length or first > longest:
            raise ValueError(
                f"expressions have more than {self._least(length)} tokens (min_length), fewer than "
                f"{length} (length), and at least 4; of {self.max_depth} levels they have at most "
                f"{longest}: wanted room for one"
            )

    def _least(self, length: int) -> int:
        return self.min_length * length // self.length

    def draw(
        self, count: int, generator: torch.Generator, length: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Sequences and labels, ``(count, length)`` both."""
        length = length if length is not None else self.length
        self._check(length)
        random = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        inputs, done = np.zeros((count, length), np.int64), 0
        labels = np.full_like(inputs, IGNORE)
        while done < count:
            # Most are too short or too long: a third is right in the task as published.
            levels, right = self._grow(random, 4 * (count - done) + 4, length)
            right[np.cumsum(right) > count - done] = False
            levels = [_of(level, right) for level in levels]
            rows = slice(done, done + int(right.sum()))
            _write(levels, inputs[rows], labels[rows])
            done = rows.stop
        return torch.from_numpy(inputs), torch.from_numpy(labels)

    def _grow(
        self, random: np.random.Generator, count: int, length: int
    ) -> tuple[list["_Level"], NDArray[np.bool_]]:
        """``count`` expressions, level by level, and which of them have the right size."""
        trees, sizes, levels = np.arange(count), np.ones(count, int), []
        for depth in range(1, self.max_depth):
            counts = random.integers(2, self.max_args, len(trees), endpoint=True)
            operators = random.integers(len(OPERATORS), size=len(trees))
            # An operator takes the place of an argument by itself, two brackets and arguments.
            sizes += np.bincount(trees, 1 + counts, count).astype(int)
            above = np.repeat(np.arange(len(trees)), counts)
            nested = random.random(len(above)) < _NESTED
            # One that is too long already grows no further.
            nested &= (depth + 1 < self.max_depth) & (sizes < length)[trees[above]]
            digits = random.integers(10, size=len(above))
            levels.append(_Level(trees, operators, counts, nested, digits))
            trees = trees[above[nested]]
        return levels, (self._least(length) < sizes) & (sizes < length)


class _Level(NamedTuple):
    """The operators of one depth in the order in which they are read, and all their arguments."""

    trees: Ints  # (n,), the expression that each is in
    operators: Ints  # (n,)
    counts: Ints  # (n,), arguments of each
    nested: NDArray[np.bool_]  # (m,), which arguments are operators of the next level
    digits: Ints  # (m,), the values of the others


def _of(level: _Level, chosen: NDArray[np.bool_]) -> _Level:
    """The part of a level that belongs to ``chosen`` expressions, which are counted anew."""
    mine = chosen[level.trees]
    below = np.repeat(mine, level.counts)
    return _Level(
        (np.cumsum(chosen) - 1)[level.trees[mine]],
        level.operators[mine],
        level.counts[mine],
        level.nested[below],
        level.digits[below],
    )


def _write(levels: list[_Level], inputs: Ints, labels: Ints) -> None:
    """Write expressions into the rows of ``inputs``, their values into those of ``labels``."""
    sizes, values = [np.empty(0, int)], np.empty(0, int)
    arguments = []
    # From the deepest level up: how many tokens each operator takes, and what it comes to.
    for level in reversed(levels):
        level.digits[level.nested] = values
        values = _values(level)
        lengths = np.ones(len(level.nested), int)
        lengths[level.nested] = sizes[-1]
        arguments.append(lengths)
        sizes.append(2 + np.bincount(_above(level), lengths, len(level.counts)).astype(int))
    labels[np.arange(len(values)), sizes[-1] - 1] = values
    # And down again: where each begins.
    starts = np.zeros(len(values), int)
    for level, lengths, size in zip(levels, arguments[::-1], sizes[:0:-1], strict=True):
        inputs[level.trees, starts] = _OPERATOR + level.operators
        inputs[level.trees, starts + size - 1] = _END
        above = _above(level)
        before = np.cumsum(lengths) - lengths
        firsts = np.cumsum(level.counts) - level.counts
        places = starts[above] + 1 + before - before[firsts][above]
        digits = ~level.nested
        inputs[level.trees[above[digits]], places[digits]] = _DIGIT + level.digits[digits]
        starts = places[level.nested]


def _above(level: _Level) -> Ints:
    """The operator that each argument belongs to, ``(m,)``."""
    return np.repeat(np.arange(len(level.counts)), level.counts)


def _values(level: _Level) -> Ints:
    """The values of a level's operators, ``(n,)``."""
    most = int(level.counts.max(initial=0))
    if not most:
        return np.empty(0, int)
    table = np.full((len(level.counts), most), _NONE)
    table[np.arange(most) < level.counts[:, None]] = level.digits
    outcomes = np.empty(len(table), int)
    for index, operator in enumerate(OPERATORS.values()):
        mine = level.operators == index
        if mine.any():
            outcomes[mine] = operator(table[mine], level.counts[mine])
    return outcomes


def text(ids: Tensor) -> str:
    """The expression of ``ids (L,)`` as it is read."""
    return " ".join(TOKENS[i] for i in ids.tolist() if i)
