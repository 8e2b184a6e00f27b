"""Markov models of fixed order: what a sequence model has to beat."""

import argparse
import sys
from pathlib import Path

import numpy as np

from tristate.bio.data.ecoli import EMBEDDED
from tristate.bio.data.fasta import Genome

ORDERS = (0, 3, 5, 7, 9)


def base_codes(letters: np.ndarray) -> np.ndarray:
    """A, C, G and T of either case as 0 to 3, all else as -1.

    Args:
        letters: ASCII codes, ``(L,)`` uint8.

    Returns:
        ``(L,)`` int64.
    """
    table = np.full(256, -1)
    for code, (upper, lower) in enumerate(zip("ACGT", "acgt", strict=True)):
        table[[ord(upper), ord(lower)]] = code
    return table[letters]


class Markov:
    """The chance of each base after each ``order`` bases, from counts with one added to each.

    Args:
        order: number of bases before that count.
    """

    def __init__(self, order: int) -> None:
        if not 0 <= order <= 11:
            raise ValueError(f"order must be from 0 to 11, got {order}")
        self.order = order
        self.counts = np.ones((4**order, 4), dtype=np.int64)

    def fit(self, codes: np.ndarray) -> "Markov":
        """Count the pieces of ``codes`` (``(L,)``, see :func:`base_codes`) that hold bases only."""
        pieces = self._pieces(codes)
        self.counts += np.bincount(pieces, minlength=self.counts.size).reshape(self.counts.shape)
        return self

    def bits(self, codes: np.ndarray) -> float:
        """Bits per base: the mean of ``-log2`` of each base's chance, after its ``order`` bases.

        Raises:
            ValueError: no base stands after as many others.
        """
        pieces = self._pieces(codes)
        if not len(pieces):
            raise ValueError(f"no base of {len(codes)} stands after {self.order} others")
        chances = self.counts / self.counts.sum(1, keepdims=True)
        return float(-np.log2(chances).ravel()[pieces].mean())

    def _pieces(self, codes: np.ndarray) -> np.ndarray:
        """Each base with the ``order`` before it as one number, base 4."""
        count = max(0, len(codes) - self.order)
        pieces = np.zeros(count, dtype=np.int64)
        known = np.ones(count, dtype=bool)
        for at in range(self.order + 1):
            piece = codes[at : at + count]
            pieces = 4 * pieces + piece
            known &= piece >= 0
        return pieces[known]


def markov_baselines(
    train: np.ndarray, test: np.ndarray, orders: tuple[int, ...] = ORDERS
) -> dict[int, float]:
    """Bits per base on ``test`` of Markov models counted on ``train``, by order.

    Args:
        train: ASCII codes, ``(L,)`` uint8.
        test: the same.
        orders: how many bases before count.
    """
    known, unseen = base_codes(train), base_codes(test)
    return {order: Markov(order).fit(known).bits(unseen) for order in orders}


def main() -> None:
    """Write the baselines of a genome, by default the embedded one, last tenth unseen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fasta", nargs="?", type=Path, default=EMBEDDED)
    genome = Genome(parser.parse_args().fasta)
    # An N between two sequences: no piece reaches from one into the next.
    parts: dict[str, list[bytes]] = {"train": [], "test": []}
    for name, length in genome.lengths.items():
        cut = length * 9 // 10
        parts["train"].append(genome.letters(name, 0, cut).tobytes())
        parts["test"].append(genome.letters(name, cut).tobytes())
    train, test = (np.frombuffer(b"N".join(pieces), np.uint8) for pieces in parts.values())
    for order, bits in markov_baselines(train, test).items():
        sys.stdout.write(f"order {order}: {bits:.4f} bits per base\n")


if __name__ == "__main__":
    main()
