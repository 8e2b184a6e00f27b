"""Markov models know what they were shown, and bits are bits."""

import math

import numpy as np
import pytest

from tristate.bio.data.ecoli import EMBEDDED
from tristate.bio.data.fasta import Genome
from tristate.bio.data.markov import Markov, base_codes, markov_baselines


def letters(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8)


def test_codes():
    assert base_codes(letters("ACGTacgtNR-")).tolist() == [0, 1, 2, 3, 0, 1, 2, 3, -1, -1, -1]


def test_nothing_learnt_is_two_bits():
    draw = np.random.default_rng(0).integers(0, 4, 500)
    for order in (0, 1, 3):
        assert Markov(order).bits(draw) == 2.0
    even = np.arange(4000) % 4
    assert Markov(0).fit(even).bits(draw) == 2.0


def test_order_one_knows_a_cycle():
    cycle = np.arange(4000) % 4
    # The right one 1,000 times (after T 999 times), and one more for each of four.
    bits = Markov(1).fit(cycle).bits(cycle[:5])
    wanted = (3 * math.log2(1004 / 1001) + math.log2(1003 / 1000)) / 4
    assert bits == pytest.approx(wanted, abs=1e-12)
    assert Markov(0).fit(cycle).bits(cycle) == 2.0


def test_counts_by_hand():
    found = Markov(2).fit(base_codes(letters("ACGACTNACG")))
    after = found.counts[0b0001]  # after AC: G, T, and G behind the N
    assert after.tolist() == [1, 1, 3, 2]
    assert found.counts.sum() == 64 + 5


def test_unknown_letters_part_the_pieces():
    with_gap = base_codes(letters("ACNGT"))
    assert Markov(1).fit(with_gap).counts.sum() == 16 + 2
    with pytest.raises(ValueError, match="no base of 5 stands after 3 others"):
        Markov(3).bits(with_gap)
    with pytest.raises(ValueError, match="order must be"):
        Markov(12)


def test_ecoli_baselines():
    whole = Genome(EMBEDDED).letters("K-12-MG1655")
    cut = len(whole) * 9 // 10
    found = markov_baselines(whole[:cut], whole[cut:], (0, 3, 5, 7))
    wanted = {0: 2.000, 3: 1.952, 5: 1.938, 7: 1.935}
    assert found == pytest.approx(wanted, abs=5e-4)
