"""Associative recall: many pairs of key and value, then some keys again."""

import numpy as np
import torch
from torch import Tensor

from tristate.core.tasks.problem import IGNORE


class MQAR:
    """Multi-query associative recall: say the value of each key that is asked for again.

    ``n_pairs`` keys, each with its value behind it, then each key once more at a gap whose length
    follows a power law; the label at that place is the value. Keys are ids from 1 to
    ``vocab_size // 2 - 1``, values those above, 0 fills the rest, or random ids.

    Args:
        length: positions.
        n_pairs: pairs of a sequence.
        vocab_size: ids, half of them keys.
        power: exponent of the gaps' law, ``p(gap) ~ gap^(power - 1)``; 1 for uniform gaps.
        random_fill: fill with random ids in place of 0.
        scale_pairs: sequences drawn at another length hold pairs in proportion, at least one, so
            that one training mixes easy and hard ones and one test goes through them.

    Raises:
        ValueError: pairs and questions don't fit the length, or there are too few keys.

    Source: Arora et al. 2023, https://arxiv.org/abs/2312.04927, appendix E; draws the same
    sequences from the same seeds as https://github.com/HazyResearch/zoology (Apache-2.0).
    """

    def __init__(
        self,
        length: int = 64,
        n_pairs: int = 8,
        vocab_size: int = 64,
        power: float = 0.01,
        random_fill: bool = True,
        scale_pairs: bool = False,
    ) -> None:
        self.length, self.n_pairs, self.vocab_size = length, n_pairs, vocab_size
        self.power, self.random_fill, self.scale_pairs = power, random_fill, scale_pairs
        self.n_classes = vocab_size
        if n_pairs < 1:
            raise ValueError(f"n_pairs must be at least 1, got {n_pairs}")
        if not 0 < power <= 1:
            raise ValueError(f"power must be in (0, 1], got {power}")
        self._pairs(length)

    def _pairs(self, length: int) -> int:
        """How many pairs a sequence of this length holds."""
        n_pairs = max(1, self.n_pairs * length // self.length) if self.scale_pairs else self.n_pairs
        if length % 2 or length < 4 * n_pairs:
            raise ValueError(
                f"{n_pairs} pairs and as many questions want an even length of at least "
                f"{4 * n_pairs}, got {length}"
            )
        if n_pairs > self.vocab_size // 2 - 1:
            raise ValueError(
                f"{self.vocab_size} ids make {self.vocab_size // 2 - 1} keys: too few for "
                f"{n_pairs} pairs"
            )
        return n_pairs

    def draw(
        self, count: int, generator: torch.Generator, length: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Sequences and labels, ``(count, length)`` both."""
        seed = int(torch.randint(2**32, (), generator=generator))
        return self.published(count, seed, generator, length)

    def published(
        self, count: int, seed: int, generator: torch.Generator, length: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """The sequences that the published generator draws.

        Args:
            count: number of sequences.
            seed: of keys, values and gaps, below 2^32.
            generator: of the random fill.
            length: positions; ``self.length`` when absent.
        """
        length = length if length is not None else self.length
        n_pairs = self._pairs(length)
        # NumPy's old generator, one row at a time, keys before values before gaps: as published.
        random = np.random.RandomState(seed)
        half, context = self.vocab_size // 2, 2 * n_pairs

        def choose(choices: np.ndarray, p: np.ndarray | None = None) -> Tensor:
            rows = [random.choice(choices, n_pairs, False, p) for _ in range(count)]
            return torch.from_numpy(np.stack(rows)).long()

        keys = choose(np.arange(1, half))
        values = choose(np.arange(half, self.vocab_size))
        n_gaps = (length - context) // 2
        law = self.power * np.arange(1, n_gaps + 1) ** (self.power - 1)
        places = context + 2 * choose(np.arange(n_gaps), law / law.sum())

        inputs = torch.zeros(count, length, dtype=torch.int64)
        inputs[:, :context] = torch.stack([keys, values], 2).flatten(1)
        inputs.scatter_(1, places, keys)
        labels = torch.full_like(inputs, IGNORE).scatter(1, places, values)
        if self.random_fill:
            fill = torch.randint(self.vocab_size, inputs.shape, generator=generator)
            inputs = inputs.where(inputs != 0, fill)
        return inputs, labels
