"""Synthetic problems: the labels are what a reader of the rules would answer."""

import pytest
import torch

from tristate.core.tasks import PROBLEMS
from tristate.core.tasks.copying import Copying
from tristate.core.tasks.induction import InductionHeads
from tristate.core.tasks.problem import IGNORE
from tristate.core.tasks.recall import MQAR


def draw(problem, count=64, seed=0, length=None):
    return problem.draw(count, torch.Generator().manual_seed(seed), length)


@pytest.fixture(params=list(PROBLEMS))
def problem(request):
    return PROBLEMS[request.param]()


def test_draws_follow_from_the_generator(problem):
    for first, again, other in zip(
        draw(problem), draw(problem), draw(problem, seed=1), strict=True
    ):
        torch.testing.assert_close(first, again, equal_nan=True)
        assert not torch.equal(first.nan_to_num(), other.nan_to_num())


def test_every_sequence_asks_and_every_answer_occurs(problem):
    inputs, labels = draw(problem, 512)
    assert inputs.shape[:2] == labels.shape
    if labels.is_floating_point():
        assert (~labels.isnan()).any(1).all()
        return
    assert inputs.min() >= 0 and inputs.max() < problem.vocab_size
    due = labels != IGNORE
    assert due.any(1).all()
    assert labels[due].min() >= 0 and labels[due].max() < problem.n_classes


def test_a_length_can_be_asked_for(problem):
    short = draw(problem, length=problem.length)[0].shape[1]
    longer = draw(problem, length=2 * problem.length)[0].shape[1]
    assert longer - short == problem.length


@pytest.mark.parametrize("selective", [False, True])
def test_copying_asks_for_the_tokens_in_their_order(selective):
    inputs, labels = draw(Copying(40, 5, 7, selective))
    for row, answers in zip(inputs, labels, strict=True):
        tokens = row[row >= 2] - 2
        assert answers[-5:].tolist() == tokens.tolist()
        assert (row[-5:] == 1).all() and (answers[:-5] == IGNORE).all()
    places = (inputs >= 2).nonzero()[:, 1]
    assert (places.max() > 10) == selective


def test_induction_asks_what_followed_the_sign():
    inputs, labels = draw(InductionHeads(17, 6), 256)
    for row, answers in zip(inputs.tolist(), labels.tolist(), strict=True):
        first = row.index(0)
        assert row.count(0) == 2 and row[-1] == 0
        assert answers[:-1] == [IGNORE] * 16 and answers[-1] == row[first + 1] - 1
    assert {row.index(0) for row in inputs.tolist()} == set(range(15))


def test_recall_asks_for_the_value_of_a_key():
    inputs, labels = draw(MQAR(64, 8, 64, random_fill=False))
    for row, answers in zip(inputs.tolist(), labels.tolist(), strict=True):
        values = dict(zip(row[0:16:2], row[1:16:2], strict=True))
        asked = {row[t]: answer for t, answer in enumerate(answers) if answer != IGNORE}
        assert asked == values and len(values) == 8


def test_recall_holds_pairs_in_proportion_to_the_length():
    problem = MQAR(64, 8, 64, random_fill=False, scale_pairs=True)
    generator = torch.Generator().manual_seed(0)
    for length, n_pairs in ((4, 1), (12, 1), (32, 4), (64, 8), (128, 16)):
        _, labels = problem.draw(3, generator, length)
        assert ((labels != IGNORE).sum(1) == n_pairs).all()
    with pytest.raises(ValueError, match="make 31 keys: too few for 32 pairs"):
        problem.draw(1, generator, 256)


def test_adding_sums_what_is_marked():
    inputs, labels = draw(PROBLEMS["adding"](30))
    assert (inputs[..., 1].sum(1) == 2).all()
    torch.testing.assert_close(labels[:, -1], (inputs[..., 0] * inputs[..., 1]).sum(1))
    assert labels[:, :-1].isnan().all()


def test_parity_counts_ones():
    bits, labels = draw(PROBLEMS["parity"](9))
    for t in range(9):
        assert torch.equal(labels[:, t], bits[:, : t + 1].sum(1) % 2)


@pytest.mark.parametrize(
    ("name", "arguments", "sentence"),
    [
        ("copying", {"length": 3, "n_tokens": 4}, "4 tokens don't fit into a length of 3"),
        ("copying", {"n_symbols": 1}, "at least two kinds"),
        ("induction_heads", {"length": 2}, "need length 3, got 2"),
        ("mqar", {"length": 31}, "an even length of at least 32, got 31"),
        ("mqar", {"vocab_size": 16}, "make 7 keys: too few for 8 pairs"),
        ("adding", {"length": 1}, "at least 2, got 1"),
        ("parity", {"length": 0}, "must be positive, got 0"),
    ],
)
def test_what_does_not_fit_is_refused(name, arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        PROBLEMS[name](**arguments)
