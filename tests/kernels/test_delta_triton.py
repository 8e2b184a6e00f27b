"""The gated delta rule by Triton's kernels against the float64 reference: on a GPU, or interpreted."""

from functools import partial

import pytest
import torch

from tests.kernels.delta import KINDS, problem
from tests.kernels.laws import error
from tests.kernels.pairs import pairwise
from tests.kernels.scans import near, results, wide
from tests.kernels.selective import segments
from tests.kernels.triton import DEVICE, no_triton, on_device
from tristate.kernels.delta import gated_delta_rule, ops
from tristate.kernels.triton import plan

pytestmark = no_triton

OPTIONS = pairwise(
    {
        "kind": [kind for kind in KINDS if kind != "64 channels"],
        "length": (1, 33, 70),
        "layout": ("heads-last", "time-last", "slice"),
        "packed": (False, True),
        "reverse": (False, True),
        "initial": (False, True),
        "programs": (1, 1000),
    }
)


def exactly(tensors, cotangents, **options):
    """The float64 reference's outputs and gradients."""
    rule = partial(gated_delta_rule, backend="reference", **options)
    return results(rule, wide(tensors), cotangents)


def fast(tensors, cotangents, **options):
    rule = partial(gated_delta_rule, backend="triton", **options)
    got = results(rule, on_device(tensors), on_device(cotangents))
    return {name: x.cpu() for name, x in got.items()}


@pytest.mark.parametrize("row", OPTIONS, ids=lambda row: "-".join(map(str, row.values())))
def test_equals_the_reference(row, monkeypatch):
    monkeypatch.setattr(plan, "programs_to_fill", lambda _: row["programs"])
    sizes = {"batch": 1, **KINDS[row["kind"]], "initial": row["initial"]}
    tensors, cotangents = problem(row["length"], layout=row["layout"], **sizes)
    options = {"reverse": row["reverse"]}
    options["seq_idx"] = segments(row["length"], 1) if row["packed"] else None
    exact = exactly(tensors, cotangents, **options)
    if row["packed"]:
        options["seq_idx"] = options["seq_idx"].to(DEVICE)
    near(fast(tensors, cotangents, **options), exact)
