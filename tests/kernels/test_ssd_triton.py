"""Mamba-2's scan by Triton's kernels against the float64 reference: on a GPU, or interpreted."""

from functools import partial

import pytest
import torch

from tests.kernels.laws import error
from tests.kernels.pairs import pairwise
from tests.kernels.scans import near, results, wide
from tests.kernels.selective import segments
from tests.kernels.ssd import KINDS, problem
from tests.kernels.triton import DEVICE, no_triton, on_device
from tristate.kernels.ssd import ops, ssd_scan
from tristate.kernels.triton import plan

pytestmark = no_triton

OPTIONS = pairwise(
    {
        "kind": list(KINDS),
        "length": (1, 33, 100),
        "layout": ("time-last", "channel-last", "slice"),
        "packed": (False, True),
        "reverse": (False, True),
        "softplus": (False, True),
        "limits": ((0.0, float("inf")), (0.05, 0.9)),
        "programs": (1, 1000),
    }
)

scan_stably = partial(ssd_scan, dt_softplus=True, return_final_states=True)


def exactly(tensors, cotangents, **options):
    """The float64 reference's outputs and gradients."""
    return results(partial(scan_stably, backend="reference", **options), wide(tensors), cotangents)


def fast(tensors, cotangents, **options):
    scan = partial(scan_stably, backend="triton", **options)
    got = results(scan, on_device(tensors), on_device(cotangents))
    return {name: x.cpu() for name, x in got.items()}


@pytest.mark.parametrize("row", OPTIONS, ids=lambda row: "-".join(map(str, row.values())))
def test_equals_the_reference(row, monkeypatch):
    monkeypatch.setattr(plan, "programs_to_fill", lambda _: row["programs"])
    tensors, cotangents = problem(row["length"], layout=row["layout"], **KINDS[row["kind"]])
    if not row["softplus"]:
        tensors["dt"] = tensors["dt"].abs()
        tensors["dt_bias"] = None
    options = {"dt_softplus": row["softplus"], "reverse": row["reverse"], "dt_limit": row["limits"]}
    options["seq_idx"] = segments(row["length"]) if row["packed"] else None
    exact = exactly(tensors, cotangents, **options)
    if row["packed"]:
        options["seq_idx"] = options["seq_idx"].to(DEVICE)
    near(fast(tensors, cotangents, **options), exact)
