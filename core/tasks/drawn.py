"""Sequences of a synthetic problem, drawn as they are needed."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tristate.core.arguments import call
from tristate.core.seeds import generator
from tristate.core.tasks import PROBLEMS
from tristate.core.tasks.problem import Problem
from tristate.core.training.data import DataModule
from tristate.core.training.loader import Loader

# Keys of the draws for validation and test, apart from those of training epochs.
VAL, TEST = 2**31, 2**31 + 1
POSITIONS = 2**19  # of a test batch at most, for very long sequences


class Fresh:
    """New sequences in every epoch.

    Args:
        problem: what draws them.
        count: sequences of an epoch.
        lengths: of which each batch has one, drawn at random; the problem's own where empty.
    """

    def __init__(self, problem: Problem, count: int, lengths: Sequence[int] = ()) -> None:
        self.problem, self.count = problem, count
        self.lengths = tuple(lengths) or (problem.length,)

    def __len__(self) -> int:
        return self.count

    def batch(self, indices: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """As many sequences as there are indices, and their labels."""
        which = int(torch.randint(len(self.lengths), (), generator=generator))
        return self.problem.draw(len(indices), generator, self.lengths[which])


class Fixed:
    """The same sequences at each look, whatever else is drawn.

    Args:
        problem: what draws them.
        count: how many there are.
        length: of a sequence.
        keys: what the draws follow from.
    """

    def __init__(self, problem: Problem, count: int, length: int, keys: tuple[int, ...]) -> None:
        self.problem, self.count, self.length, self.keys = problem, count, length, keys

    def __len__(self) -> int:
        return self.count

    def batch(self, indices: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The sequences at ``indices`` and their labels."""
        drawn = [self._one(index) for index in indices.tolist()]
        inputs, labels = zip(*drawn, strict=True)
        return torch.cat(inputs), torch.cat(labels)

    def _one(self, index: int) -> tuple[Tensor, Tensor]:
        return self.problem.draw(1, generator(*self.keys, index), self.length)


class Synthetic(DataModule):
    """A synthetic problem: fresh sequences to train on, the same ones to validate and to test.

    Args:
        problem: name in :data:`tristate.core.tasks.PROBLEMS`.
        problem_args: its constructor arguments.
        n_train: sequences of an epoch.
        n_val: sequences to validate on.
        n_test: sequences to test on, at each length.
        train_lengths: lengths to train at, one drawn for each batch, where it's not the problem's
            alone: what is learnt soon where it is short helps where it is long.
        test_lengths: further lengths to test at, beside the problem's own.
        batch_size: sequences of a batch.
        workers: processes that draw ahead.
        seed: as :class:`tristate.core.training.data.DataModule`.

    Raises:
        ValueError: an argument is unknown to the problem, or out of its range.
    """

    def __init__(
        self,
        problem: str,
        problem_args: dict[str, Any] | None = None,
        n_train: int = 10_000,
        n_val: int = 512,
        n_test: int = 1_000,
        train_lengths: Sequence[int] = (),
        test_lengths: Sequence[int] = (),
        batch_size: int = 64,
        workers: int = 0,
        seed: int | None = None,
    ) -> None:
        super().__init__(batch_size, workers, seed)
        if min(n_train, n_val, n_test) < 1:
            raise ValueError("n_train, n_val and n_test must be positive")
        self.name = problem
        self.problem: Problem = call(PROBLEMS[problem], **(problem_args or {}))
        self.n_train, self.n_val, self.n_test = n_train, n_val, n_test
        self.train_lengths = tuple(train_lengths)
        self.lengths = [self.problem.length, *test_lengths]

    @property
    def facts(self) -> dict[str, Any]:
        """Ids, answers, the lengths that are tested, and how near a number has to come."""
        facts = {
            "problem": self.name,
            "vocab_size": self.problem.vocab_size,
            "n_classes": self.problem.n_classes,
            "lengths": self.lengths,
        }
        tolerance = getattr(self.problem, "tolerance", None)
        return facts if tolerance is None else {**facts, "tolerance": tolerance}

    def train_dataloader(self) -> Loader:
        """Fresh sequences, of a length drawn for each batch where several are given."""
        return self.loader(Fresh(self.problem, self.n_train, self.train_lengths), train=True)

    def val_dataloader(self) -> Loader:
        """The same sequences each time."""
        keys = (self.seed, VAL)
        return self.loader(Fixed(self.problem, self.n_val, self.problem.length, keys))

    def test_dataloader(self) -> list[Loader]:
        """One loader for each of the lengths."""
        return [self._test_loader(length) for length in self.lengths]

    def _test_loader(self, length: int) -> Loader:
        source = Fixed(self.problem, self.n_test, length, (self.seed, TEST, length))
        return self.loader(source, batch_size=max(1, min(self.batch_size, POSITIONS // length)))
