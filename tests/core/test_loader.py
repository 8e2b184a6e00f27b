"""Batches follow from seed, epoch and place; what is handed out is all there is."""

import random

import numpy as np
import pytest
import torch

from tristate.core.errors import UserError
from tristate.core.seeds import seeded
from tristate.core.training.loader import Items, Loader


class Numbers:
    """Items that show every generator a transform may use."""

    def __init__(self, count=23, bad=None):
        self.count, self.bad = count, bad

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if index == self.bad:
            raise UserError(f"item {index} is damaged: replace it")
        return index, random.random(), np.random.rand(), torch.rand(())


def make(count=23, batch_size=4, **options):
    return Loader(Items(Numbers(count)), batch_size, **options)


def flat(loader, epoch=0):
    loader.set_epoch(epoch)
    return [
        tuple(float(part[i]) for part in batch) for batch in loader for i in range(len(batch[0]))
    ]


def test_all_items_in_order():
    assert [row[0] for row in flat(make())] == list(range(23))
    assert len(make()) == 6


def test_epochs_differ_and_repeat():
    loader = make(shuffle=True, seed=5)
    first, second = flat(loader, 0), flat(loader, 1)
    assert sorted(r[0] for r in first) == sorted(r[0] for r in second) == list(range(23))
    assert [r[0] for r in first] != [r[0] for r in second]
    assert flat(make(shuffle=True, seed=5), 1) == second
    assert flat(make(shuffle=True, seed=6), 1) != second


def test_each_draw_is_its_own():
    rows = flat(make(shuffle=True)) + flat(make(shuffle=True), 1)
    for column in (1, 2, 3):
        assert len({row[column] for row in rows}) == len(rows)


def test_workers_and_outer_generators_change_nothing():
    whole = flat(make(shuffle=True, seed=5))
    with seeded(99):
        assert flat(make(shuffle=True, seed=5, workers=2)) == whole


def test_global_generators_are_left_alone():
    with seeded(1):
        expected = random.random(), np.random.rand(), torch.rand(2)
    with seeded(1):
        flat(make())
        assert random.random() == expected[0] and np.random.rand() == expected[1]
        assert torch.equal(torch.rand(2), expected[2])


@pytest.mark.parametrize("shuffle", [True, False])
def test_processes_share_the_items(shuffle):
    parts = [flat(make(shuffle=shuffle, rank=r, world_size=3)) for r in range(3)]
    assert sorted(row[0] for part in parts for row in part) == list(range(23))
    full = [make(shuffle=True, drop_last=True, rank=r, world_size=3) for r in range(3)]
    assert {len(loader) for loader in full} == {1}
    assert {len(flat(loader)) for loader in full} == {4}


def test_repeats_keep_the_length():
    rows = flat(make(shuffle=True, repeats=3))
    items = [row[0] for row in rows]
    assert len(items) == 23 and items[0] == items[1] == items[2] != items[3]
    assert rows[0][1] != rows[1][1]


@pytest.mark.parametrize("done", [0, 2, 6])
def test_goes_on_where_it_stood(done):
    first = make(shuffle=True)
    first.set_epoch(3)
    rows, state = [], {"epoch": 3, "done": 0}
    for number, batch in enumerate(first, start=1):
        rows.append(batch[1].tolist())
        if number == done:
            state = first.state_dict()
    second = make(shuffle=True)
    second.load_state_dict(state)
    second.set_epoch(3)
    # An epoch that was finished is not gone on with: it begins again.
    assert [batch[1].tolist() for batch in second] == rows[done % 6 :]
    # And the next epoch is a whole one.
    assert len(flat(second, 4)) == 23


def test_an_error_in_a_worker_stays_one_sentence():
    loader = Loader(Items(Numbers(bad=7)), 4, workers=1)
    with pytest.raises(UserError, match=r"^item 7 is damaged: replace it$"):
        list(loader)


@pytest.mark.parametrize(
    ("options", "word"),
    [({"batch_size": 0}, "batch_size"), ({"batch_size": 30, "drop_last": True}, "fill")],
)
def test_refuses_what_gives_no_batch(options, word):
    with pytest.raises(ValueError, match=word):
        make(**options)
