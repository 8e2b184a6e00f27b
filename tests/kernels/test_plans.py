"""Whichever plan is chosen, an op's results are the same: here those that aren't the default."""

import pytest
import torch

from tests.kernels import every_op, ssd
from tests.kernels.triton import DEVICE, no_triton
from tristate.kernels.triton import tune

pytestmark = [
    no_triton,
    pytest.mark.skipif(DEVICE.type != "cpu", reason="on a GPU all plans are run at larger sizes"),
]

# `long_conv` has no kernels of Triton; the scans both ways and of maps are made of others.
NAMES = [
    name
    for name in every_op.OPS
    if name not in ("long_conv", "bidirectional_selective_scan", "selective_scan_2d")
]


@pytest.mark.parametrize("name", NAMES)
def test_the_last_plan_agrees_with_the_reference(name, monkeypatch):
    taken = {}

    def last(op, plans, *_):
        taken[op] = plans
        return len(plans) - 1

    monkeypatch.setattr(every_op, "LENGTH", 37)
    if name == "ssd_scan":
        # A head has two blocks of channels by one plan, and one by the other.
        op, _, options = every_op.OPS[name]
        wide = op, lambda: ssd.problem(37, width=24)[0], options
        monkeypatch.setitem(every_op.OPS, name, wide)
    monkeypatch.setattr(tune, "_may_choose", lambda device: True)
    monkeypatch.setattr(tune, "_places", {})
    monkeypatch.setattr(tune, "fastest", last)
    every_op.check(name, "triton")
    assert taken and all(len(set(plans)) > 1 for plans in taken.values())


def test_a_length_nearby_is_no_other_kind(monkeypatch):
    kinds = []

    @tune.tuned("op", lambda x, length: ("one", "another"))
    def op(plan, x, length):
        return plan

    monkeypatch.setattr(tune, "_may_choose", lambda device: True)
    monkeypatch.setattr(tune, "_places", {})
    monkeypatch.setattr(tune, "fastest", lambda op, plans, calls, x, kind: kinds.append(kind) or 1)
    for length in (1000, 1024, 1025):
        assert op(torch.ones(2), length) == "another"
    assert len(kinds) == 2
