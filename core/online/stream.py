"""An endless stream: a cue, a long wait among distractions, a question; then the rule changes."""

import torch
from torch import Tensor
from torch.nn import functional as F

from tristate.core import seeds
from tristate.core.tasks.problem import IGNORE
from tristate.core.training.data import DataModule
from tristate.core.training.loader import Loader


class Recall:
    """Periods of ``lag`` positions, each with a cue at its first and a question at its last.

    There are two channels of ``n_symbols`` kinds and one for the question. By the first rule the
    cue comes by channel 0, and channel 1 shows symbols that mean nothing; by the second rule they
    change places. The answer is the cue's symbol.

    Args:
        lag: positions of a period.
        n_symbols: kinds of symbols.
        noise: share of the positions at which the other channel shows one.

    Raises:
        ValueError: a number is out of its range.
    """

    def __init__(self, lag: int = 200, n_symbols: int = 4, noise: float = 0.05) -> None:
        if lag < 2 or n_symbols < 2 or not 0 <= noise <= 1:
            raise ValueError(
                "wanted a lag and symbols of at least 2 and a share of noise, "
                f"got lag {lag}, n_symbols {n_symbols}, noise {noise}"
            )
        self.lag, self.n_symbols, self.noise = lag, n_symbols, noise
        self.d_input = 2 * n_symbols + 1

    def periods(
        self, rows: int, count: int, rule: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Inputs ``(rows, count * lag, d_input)`` and labels ``(rows, count * lag)``.

        Args:
            rows: streams.
            count: periods of each.
            rule: 0 or 1.
            generator: all that is random comes from it.
        """
        shape = (rows, count, self.lag)
        cues = torch.randint(self.n_symbols, (rows, count), generator=generator)
        shown = torch.rand(*shape, 1, generator=generator) < self.noise
        kinds = torch.randint(self.n_symbols, shape, generator=generator)
        cue = (
            F.one_hot(cues, self.n_symbols)[:, :, None]
            * F.one_hot(torch.tensor(0), self.lag)[:, None]
        )
        channels = [cue, F.one_hot(kinds, self.n_symbols) * shown]
        if rule:
            channels.reverse()
        question = F.one_hot(torch.tensor(self.lag - 1), self.lag)[:, None].expand(*shape, 1)
        labels = torch.full(shape, IGNORE)
        labels[..., -1] = cues
        inputs = torch.cat([*channels, question], -1).float()
        return inputs.flatten(1, 2), labels.flatten(1)


class _Stretch:
    """The stream's pieces one after another; which rule holds follows from the piece."""

    def __init__(self, stream: "Stream", count: int, keys: tuple[int, ...], change: int) -> None:
        self.stream, self.count, self.keys, self.change = stream, count, keys, change

    def __len__(self) -> int:
        return self.count

    def batch(self, indices: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """One piece of all streams and its labels."""
        (piece,) = indices.tolist()
        rule = int(piece >= self.change)
        draws = seeds.generator(*self.keys, piece)
        return self.stream.problem.periods(self.stream.rows, 1, rule, draws)


class Stream(DataModule):
    """:class:`Recall` without end; half way through an epoch its rule changes.

    A batch is one period of all streams, and the next batch goes on where it left off: nothing is
    shuffled. Validated and tested on stretches of their own, under the rule that held last.

    Args:
        lag: positions between cue and answer.
        n_symbols: kinds of symbols.
        noise: share of the positions that distract.
        n_pieces: periods of an epoch.
        n_val: periods to validate on.
        n_test: periods to test on.
        rows: streams that are read side by side.
        seed: as :class:`tristate.core.training.data.DataModule`.

    Raises:
        ValueError: a number is out of its range.
    """

    def __init__(
        self,
        lag: int = 200,
        n_symbols: int = 4,
        noise: float = 0.05,
        n_pieces: int = 1_000,
        n_val: int = 20,
        n_test: int = 50,
        rows: int = 16,
        seed: int | None = None,
    ) -> None:
        super().__init__(1, 0, seed)
        if min(n_pieces, n_val, n_test, rows) < 1:
            raise ValueError("n_pieces, n_val, n_test and rows must be positive")
        self.problem = Recall(lag, n_symbols, noise)
        self.n_pieces, self.n_val, self.n_test, self.rows = n_pieces, n_val, n_test, rows

    @property
    def facts(self) -> dict[str, int]:
        """Sizes of inputs and answers, pieces, and the piece that changes the rule."""
        return {
            "vocab_size": self.problem.d_input,
            "n_classes": self.problem.n_symbols,
            "rows": self.rows,
            "n_pieces": self.n_pieces,
            "change": self.n_pieces // 2,
        }

    def train_dataloader(self) -> Loader:
        """The pieces in their order."""
        return self.loader(_Stretch(self, self.n_pieces, (self.seed, 0), self.n_pieces // 2))

    def val_dataloader(self) -> Loader:
        """A stretch of the last rule."""
        return self.loader(_Stretch(self, self.n_val, (self.seed, 1), 0))

    def test_dataloader(self) -> Loader:
        """Another one."""
        return self.loader(_Stretch(self, self.n_test, (self.seed, 2), 0))
