"""The gated delta rule by Triton's kernels against the reference: on a GPU, or interpreted."""

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

# Fewer channels than the problems have of their own: a part is 32 steps then.
SMALL = {"batch": 1, "heads": 1, "d_key": 9, "d_value": 20}
OPTIONS = pairwise(
    {
        "kind": [kind for kind in KINDS if kind != "64 channels"],
        "length": (1, 17, 40),
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
    sizes = {**SMALL, **KINDS[row["kind"]], "initial": row["initial"]}
    tensors, cotangents = problem(row["length"], layout=row["layout"], **sizes)
    options = {"reverse": row["reverse"]}
    options["seq_idx"] = segments(row["length"], 1) if row["packed"] else None
    exact = exactly(tensors, cotangents, **options)
    if row["packed"]:
        options["seq_idx"] = options["seq_idx"].to(DEVICE)
    near(fast(tensors, cotangents, **options), exact)


@pytest.mark.parametrize("programs", (1, 1000))
def test_blocks_of_values_add_up(programs, monkeypatch):
    monkeypatch.setattr(plan, "programs_to_fill", lambda _: programs)
    tensors, cotangents = problem(70, batch=2, d_key=19, d_value=67)
    near(fast(tensors, cotangents), exactly(tensors, cotangents))


def test_one_key_all_along_is_held_stably():
    """Reflections at one key: powers of the system's matrix reach millions, its inverse 2."""
    tensors, cotangents = problem(33, **SMALL, gate="")
    tensors["k"] = tensors["k"][:, :1].expand(-1, 33, -1, -1).contiguous()
    tensors["beta"] = torch.full_like(tensors["beta"], 2.0)
    near(fast(tensors, cotangents), exactly(tensors, cotangents))


@pytest.mark.parametrize("gate", ("head", "key"))
def test_a_decay_to_nothing_is_no_infinity(gate):
    tensors, cotangents = problem(20, **SMALL, gate=gate)
    gone = torch.rand(tensors["g"].shape) < 0.2
    tensors["g"] = torch.where(gone, float("-inf"), tensors["g"])
    exact = exactly(tensors, cotangents)
    got = fast(tensors, cotangents)
    near(got, exact)


# float16 tells as much of products that are rounded; the interpreter cuts bfloat16 off.
@pytest.mark.parametrize(("dtype", "times"), [(torch.float16, 2), (torch.bfloat16, 4)])
def test_low_precision_is_as_close_as_plain_pytorch(dtype, times):
    tensors, cotangents = problem(20, **SMALL)
    for name in ("q", "k", "v", "beta"):
        tensors[name] = tensors[name].to(dtype)
    exact = exactly(tensors, cotangents)
    plain = results(partial(gated_delta_rule, backend="reference"), tensors, cotangents)
    got = fast(tensors, cotangents)
    for name, wanted in exact.items():
        assert got[name].dtype == plain[name].dtype
        assert error(got[name], wanted) <= times * error(plain[name], wanted) + 1e-6, name


# opcheck itself looks at the .grad of tensors that are no leaves.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_is_a_well_behaved_op():
    tensors, cotangents = problem(7, **SMALL)
    inputs = [x.to(DEVICE).requires_grad_() for x in tensors.values()]
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    op = torch.ops.tristate.gated_delta_rule_triton.default
    packed = segments(7, 1).to(DEVICE)
    torch.library.opcheck(op, (*inputs, packed, 0.5, True, True), test_utils=checks)
    kept = ops.triton_forward(*(x.detach() for x in inputs), None, 0.5, True, True)[2]
    grads = [x.to(DEVICE).requires_grad_() for x in cotangents.values()]
    op = torch.ops.tristate.gated_delta_rule_backward_triton.default
    torch.library.opcheck(op, (*grads, *inputs, None, kept, 0.5, True), test_utils=checks)
