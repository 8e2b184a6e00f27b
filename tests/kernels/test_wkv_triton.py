"""The Triton kernels of RWKV-4's attention against the float64 reference."""

from functools import partial

import pytest
import torch

from tests.kernels.laws import error
from tests.kernels.pairs import pairwise
from tests.kernels.scans import near, results, wide
from tests.kernels.selective import segments
from tests.kernels.triton import DEVICE, no_triton, on_device
from tests.kernels.wkv import meant, problem
from tristate.kernels.rwkv import LEAST, ops, wkv
from tristate.kernels.triton import plan

pytestmark = no_triton

OPTIONS = pairwise(
    {
        "length": (1, 2, 65, 140),
        "dim": (1, 5, 35),
        "layout": ("time-last", "channel-last", "slice"),
        "packed": (False, True),
        "reverse": (False, True),
        "initial": (False, True),
        "programs": (1, 1000),
    }
)


def exactly(tensors, cotangents, **options):
    run = meant(partial(wkv, backend="reference", **options))
    return results(run, wide(tensors), wide(cotangents))


def fast(tensors, cotangents, **options):
    options = {k: x.to(DEVICE) if isinstance(x, torch.Tensor) else x for k, x in options.items()}
    run = meant(partial(wkv, backend="triton", **options))
    got = results(run, on_device(tensors), on_device(cotangents))
    return {name: x.cpu() for name, x in got.items()}


@pytest.mark.parametrize("row", OPTIONS, ids=lambda row: "-".join(map(str, row.values())))
def test_equals_the_reference(row, monkeypatch):
    monkeypatch.setattr(plan, "programs_to_fill", lambda _: row["programs"])
    sizes = {name: row[name] for name in ("dim", "layout", "initial")}
    tensors, cotangents = problem(row["length"], **sizes)
    options = {"reverse": row["reverse"]}
    options["seq_idx"] = segments(row["length"]) if row["packed"] else None
    near(fast(tensors, cotangents, **options), exactly(tensors, cotangents, **options))


@pytest.mark.parametrize("size", (1e2, 1e4))
def test_keys_of_any_size_neither_overflow_nor_vanish(size, monkeypatch):
    monkeypatch.setattr(plan, "programs_to_fill", lambda _: 1000)
    tensors, cotangents = problem(130, initial=False, batch=1, dim=8)
    tensors["k"] = size * tensors["k"]
    got = fast(tensors, cotangents)
    assert all(x.isfinite().all() for x in got.values())
    low, high = tensors["v"].cummin(1).values, tensors["v"].cummax(1).values
    assert ((got["out"] >= low - 1e-4) & (got["out"] <= high + 1e-4)).all()


@pytest.mark.parametrize(
    ("dtype", "times"),
    # The interpreter cuts off what doesn't fit bfloat16, where a GPU rounds.
    [(torch.float16, 2), (torch.bfloat16, 4)],
)
def test_low_precision_is_as_close_as_plain_pytorch(dtype, times):
    tensors, cotangents = problem(70, dim=8)
    tensors |= {name: tensors[name].to(dtype) for name in ("k", "v")}
    exact = exactly(tensors, cotangents)
    plain = results(meant(partial(wkv, backend="reference")), tensors, cotangents)
    got = fast(tensors, cotangents)
    for name, wanted in exact.items():
        assert got[name].dtype == plain[name].dtype
        assert error(got[name], wanted) <= times * error(plain[name], wanted) + 1e-6, name


def test_padding_alone_leaves_the_state_as_it_was():
    tensors, _ = problem(20, dim=8)
    packed = torch.full((2, 20), -1, device=DEVICE)
    out, last = wkv(**on_device(tensors), seq_idx=packed, backend="triton")
    assert (out == 0).all() and torch.equal(last.cpu(), tensors["initial_state"])
    tensors["initial_state"] = None
    _, last = wkv(**on_device(tensors), seq_idx=packed, backend="triton")
    assert (last[:, :2] == 0).all() and (last[:, 2] == LEAST).all()


def test_is_the_same_from_run_to_run(monkeypatch):
    monkeypatch.setattr(plan, "programs_to_fill", lambda _: 1000)
    tensors, cotangents = problem(140, dim=8)
    once, again = fast(tensors, cotangents), fast(tensors, cotangents)
    assert all(torch.equal(x, again[name]) for name, x in once.items())


# opcheck itself looks at the .grad of tensors that are no leaves.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_is_a_well_behaved_op():
    tensors, _ = problem(2, dim=5)
    inputs = [x.contiguous().to(DEVICE).requires_grad_() for x in tensors.values()]
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    packed = segments(2).to(DEVICE)
    torch.library.opcheck(ops.triton_forward, (*inputs, packed, True, True), test_utils=checks)
    plain = [x.detach() for x in inputs]
    out, last, states = ops.triton_forward(*plain, None, False, True)
    grads = [torch.randn_like(x).requires_grad_() for x in (out, last)]
    given = (*grads, *inputs, None, last, states, False)
    torch.library.opcheck(ops.triton_backward, given, test_utils=checks)
