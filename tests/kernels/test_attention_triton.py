"""The Triton kernels of linear attention against the float64 reference."""

from functools import partial

import pytest
import torch

from tests.kernels.attention import problem
from tests.kernels.laws import error
from tests.kernels.pairs import pairwise
from tests.kernels.scans import near, results, wide
from tests.kernels.selective import segments
from tests.kernels.triton import DEVICE, no_triton, on_device
from tristate.kernels.attention import linear_attention, ops
from tristate.kernels.triton import plan

pytestmark = no_triton

OPTIONS = pairwise(
    {
        "length": (1, 17, 50),
        "size": ((1, 1), (5, 19), (19, 5)),
        "gate": ("", "head", "key"),
        "rank_one": (False, True),
        "bonus": (False, True),
        "initial": (False, True),
        "layout": ("heads-last", "time-last", "slice"),
        "packed": (False, True),
        "reverse": (False, True),
        "programs": (1, 1000),
    }
)


def exactly(tensors, cotangents, **options):
    scan = partial(linear_attention, backend="reference", **options)
    return results(scan, wide(tensors), wide(cotangents))


def fast(tensors, cotangents, **options):
    options = {k: x.to(DEVICE) if isinstance(x, torch.Tensor) else x for k, x in options.items()}
    scan = partial(linear_attention, backend="triton", **options)
    got = results(scan, on_device(tensors), on_device(cotangents))
    return {name: x.cpu() for name, x in got.items()}


def agree(tensors, cotangents, **options):
    near(fast(tensors, cotangents, **options), exactly(tensors, cotangents, **options))


@pytest.mark.parametrize("row", OPTIONS, ids=lambda row: "-".join(map(str, row.values())))
def test_equals_the_reference(row, monkeypatch):
    monkeypatch.setattr(plan, "programs_to_fill", lambda _: row["programs"])
    length, (d_key, d_value) = row["length"], row["size"]
    names = ("gate", "rank_one", "bonus", "initial", "layout")
    sizes = {"batch": 1, "heads": 2, "d_key": d_key, "d_value": d_value}
    tensors, cotangents = problem(length, **sizes, **{name: row[name] for name in names})
    options = {"reverse": row["reverse"]}
    options["seq_idx"] = segments(length, 1) if row["packed"] else None
    agree(tensors, cotangents, **options)


@pytest.mark.parametrize("gate", ("head", "key"))
def test_blocks_of_value_channels(gate):
    sizes = {"batch": 1, "heads": 1, "d_key": 3, "d_value": 70}
    agree(*problem(20, **sizes, gate=gate, rank_one=gate == "key"))


@pytest.mark.parametrize("rank_one", (False, True))
@pytest.mark.parametrize("gate", ("head", "key"))
def test_decays_of_any_size_leave_numbers(gate, rank_one):
    tensors, cotangents = problem(
        40, batch=1, heads=1, d_key=4, d_value=4, gate=gate, rank_one=rank_one, initial=False
    )
    tensors["g"][:, ::3] *= 200  # nothing is left, and next to it much is
    agree(tensors, cotangents)
    tensors["g"][:, 10] = -torch.inf
    got = fast(tensors, cotangents)
    assert all(x.isfinite().all() for x in got.values())


@pytest.mark.parametrize(
    ("dtype", "times"),
    # The interpreter cuts off what doesn't fit bfloat16, where a GPU rounds.
    [(torch.float16, 2), (torch.bfloat16, 4)],
)
def test_low_precision_is_as_close_as_plain_pytorch(dtype, times):
    tensors, cotangents = problem(40, heads=1, d_key=8, d_value=8, rank_one=True, bonus=True)
    tensors |= {name: tensors[name].to(dtype) for name in ("q", "k", "v", "a", "b")}
    exact = exactly(tensors, cotangents)
    plain = results(partial(linear_attention, backend="reference"), tensors, cotangents)
    got = fast(tensors, cotangents)
    for name, wanted in exact.items():
        assert got[name].dtype == plain[name].dtype
        assert error(got[name], wanted) <= times * error(plain[name], wanted) + 1e-6, name


def test_a_decay_that_is_constant_in_time():
    tensors, cotangents = problem(40, d_key=4, d_value=4)
    del tensors["g"]

    def scan(log, backend, **inputs):
        return linear_attention(**inputs, g=log.expand(2, 40, 2), backend=backend)

    log = torch.tensor([-0.1, -0.2])
    exact = results(
        partial(scan, backend="reference"), wide({**tensors, "log": log}), wide(cotangents)
    )
    here = on_device({**tensors, "log": log})
    got = results(partial(scan, backend="triton"), here, on_device(cotangents))
    near({name: x.cpu() for name, x in got.items()}, exact)


def test_is_the_same_from_run_to_run(monkeypatch):
    monkeypatch.setattr(plan, "programs_to_fill", lambda _: 1000)
    tensors, cotangents = problem(70, heads=1, d_key=4, d_value=4)
    once, again = fast(tensors, cotangents), fast(tensors, cotangents)
    assert all(torch.equal(x, again[name]) for name, x in once.items())


def test_a_graph_made_without_states_makes_them_later():
    tensors, _ = problem(40, heads=1, d_key=4, d_value=4)
    names = ("q", "k", "v", "g", "initial_state")
    leaves = {name: tensors[name].to(DEVICE).requires_grad_() for name in names}
    q, k, v, g, initial = present = [*leaves.values()]
    out, _, kept = ops.triton_forward(
        q, k, v, g, None, None, initial, None, 1.0, False, False, False
    )
    assert kept.numel() == 0
    wanted = linear_attention(**leaves, scale=1.0, backend="reference")[0]
    for got, exact in zip(
        torch.autograd.grad(out.sum(), present),
        torch.autograd.grad(wanted.sum(), present),
        strict=True,
    ):
        torch.testing.assert_close(got, exact, rtol=1e-4, atol=1e-4)


# opcheck itself looks at the .grad of tensors that are no leaves.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("rank_one", (False, True))
def test_is_a_well_behaved_op(rank_one):
    tensors, cotangents = problem(2, heads=1, d_key=3, d_value=2, rank_one=rank_one)
    inputs = [tensors[name] for name in ("q", "k", "v", "g", "a", "b", "initial_state")]
    inputs = [None if x is None else x.contiguous().to(DEVICE).requires_grad_() for x in inputs]
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    given = (*inputs, segments(2).to(DEVICE), 0.5, True, False, True)
    torch.library.opcheck(ops.triton_forward, given, test_utils=checks)
    plain = [None if x is None else x.detach() for x in inputs]
    kept = ops.triton_forward(*plain, None, 0.5, False, False, True)[2]
    grads = [x.to(DEVICE).requires_grad_() for x in cotangents.values()]
    given = (*grads, *inputs, None, kept, 0.5, False, False)
    torch.library.opcheck(ops.triton_backward, given, test_utils=checks)
