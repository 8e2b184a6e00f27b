"""ListOps: expressions as the published generator draws them, and their values."""

import re

import numpy as np
import pytest
import torch

from tristate.core.tasks import PROBLEMS
from tristate.core.tasks.listops import TOKENS, ListOps, text
from tristate.core.tasks.problem import IGNORE

# As the published generator has them.
OPERATORS = {
    "[MIN": min,
    "[MAX": max,
    "[MED": lambda values: int(np.median(values)),
    "[SM": lambda values: sum(values) % 10,
}
KNOWN = {
    "[MAX 2 9 [MIN 4 7 ] 0 ]": 9,
    "[MED 1 8 9 4 ]": 6,  # of 4 and 8
    "[MED 1 8 2 4 ]": 3,
    "[MED 1 2 ]": 1,  # 1.5
    "[SM 8 9 7 ]": 4,
    "[MIN [SM 5 5 ] 3 ]": 0,
}


def ids(expression):
    return torch.tensor([TOKENS.index(token) for token in expression.split()])


def value(expression):
    """By rewriting innermost brackets, unlike the generator."""
    while "[" in expression:
        expression = re.sub(
            r"(\[\w+) ([\d ]+) \]",
            lambda m: str(OPERATORS[m[1]]([int(d) for d in m[2].split()])),
            expression,
        )
    return int(expression)


def drawn(problem, count, seed=0, **options):
    return problem.draw(count, torch.Generator().manual_seed(seed), **options)


@pytest.mark.parametrize("expression", KNOWN)
def test_operators_are_the_published_ones(expression):
    assert value(expression) == KNOWN[expression]
    assert text(ids(expression)) == expression


@pytest.mark.parametrize(("length", "least"), [(128, 16), (64, 40), (16, 3)])
def test_the_value_is_asked_for_at_the_last_bracket(length, least):
    inputs, labels = drawn(ListOps(length=length, min_length=least), 200)
    assert inputs.shape == labels.shape == (200, length)
    for row, asked in zip(inputs, labels, strict=True):
        size = int((row != 0).sum())
        assert least < size < length and (row[size:] == 0).all()
        assert (asked != IGNORE).nonzero().tolist() == [[size - 1]]
        assert asked[size - 1] == value(text(row))


@pytest.mark.parametrize("length", [50, 800])
def test_at_another_length_the_least_is_the_same_share(length):
    inputs, _ = drawn(ListOps(length=200, min_length=100, max_args=10), 50, length=length)
    sizes = (inputs != 0).sum(1)
    assert length // 2 < sizes.min() and sizes.max() < length


def test_expressions_are_distributed_as_published():
    problem = ListOps(length=2000, min_length=1, max_depth=10, max_args=10)
    inputs, _ = drawn(problem, 3000)
    chains = [text(row).split() for row in inputs]
    depths, counts, nested = [], [], []
    for tokens in chains:
        open_, arguments = 0, [0]
        for token in tokens:
            if token == "]":
                counts.append(arguments.pop())
                open_ -= 1
            else:
                if open_ and open_ + 1 < problem.max_depth:
                    nested.append(token in OPERATORS)
                arguments[-1] += 1
                if token in OPERATORS:
                    open_ += 1
                    arguments.append(0)
            depths.append(open_)
    assert max(depths) < 10 and set(counts) == set(range(2, 11))
    # The cut-off length takes the largest trees away: a little less than a quarter is nested.
    assert 0.2 < sum(nested) / len(nested) < 0.26
    tokens = torch.tensor([[name in chain for name in OPERATORS] for chain in chains])
    assert (tokens.float().mean(0) > 0.2).all()


def test_a_seed_draws_the_same():
    problem = ListOps()
    for one, other in zip(drawn(problem, 5, 3), drawn(problem, 5, 3), strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(drawn(problem, 5, 3)[0], drawn(problem, 5, 4)[0])


@pytest.mark.parametrize(
    "wrong", [{"length": 16}, {"max_depth": 1}, {"max_args": 1}, {"max_depth": 2, "max_args": 3}]
)
def test_what_has_no_room_is_refused(wrong):
    with pytest.raises(ValueError, match="wanted"):
        ListOps(**wrong)


def test_is_in_the_table():
    assert PROBLEMS["listops"] is ListOps
