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
from tristate.kernels.ssd import ops, ssd_scan, triton, triton_work
from tristate.kernels.triton import plan

pytestmark = no_triton

# Of small tiles: part of one, one and a rest, two parts of two and a rest.
OPTIONS = pairwise(
    {
        "kind": list(KINDS),
        "length": (1, 17, 70),
        "layout": ("time-last", "channel-last", "slice"),
        "packed": (False, True),
        "reverse": (False, True),
        "softplus": (False, True),
        "limits": ((0.0, float("inf")), (0.05, 0.9)),
        "programs": (1, 1000),
    }
)

scan_stably = partial(ssd_scan, dt_softplus=True, return_final_states=True)


@pytest.fixture
def small_tiles(monkeypatch):
    """Several tiles a part, and several parts, of short sequences."""
    monkeypatch.setattr(triton_work, "STEPS", 16)
    for module in (ops, triton_work):
        monkeypatch.setattr(module, "triton_part", lambda _: 32)


def exactly(tensors, cotangents, **options):
    """The float64 reference's outputs and gradients."""
    return results(partial(scan_stably, backend="reference", **options), wide(tensors), cotangents)


def fast(tensors, cotangents, **options):
    scan = partial(scan_stably, backend="triton", **options)
    got = results(scan, on_device(tensors), on_device(cotangents))
    return {name: x.cpu() for name, x in got.items()}


@pytest.mark.parametrize("row", OPTIONS, ids=lambda row: "-".join(map(str, row.values())))
def test_equals_the_reference(row, small_tiles, monkeypatch):
    monkeypatch.setattr(plan, "programs_to_fill", lambda _: row["programs"])
    sizes = {"batch": 1, "heads": 2, **KINDS[row["kind"]]}
    tensors, cotangents = problem(row["length"], layout=row["layout"], **sizes)
    if not row["softplus"]:
        tensors["dt"] = tensors["dt"].abs()
        tensors["dt_bias"] = None
    options = {"dt_softplus": row["softplus"], "reverse": row["reverse"], "dt_limit": row["limits"]}
    options["seq_idx"] = segments(row["length"], 1) if row["packed"] else None
    exact = exactly(tensors, cotangents, **options)
    if row["packed"]:
        options["seq_idx"] = options["seq_idx"].to(DEVICE)
    near(fast(tensors, cotangents, **options), exact)


@pytest.mark.parametrize("programs", (1, 1000))
def test_blocks_of_channels_and_of_states_add_up(programs, small_tiles, monkeypatch):
    monkeypatch.setattr(plan, "programs_to_fill", lambda _: programs)
    monkeypatch.setattr(triton, "programs_to_fill", lambda _: programs)
    monkeypatch.setattr(triton_work, "SUMS", 32)
    tensors, cotangents = problem(18, batch=2, heads=2, width=35, n_states=70)
    options = {"seq_idx": segments(18)}
    exact = exactly(tensors, cotangents, **options)
    near(fast(tensors, cotangents, seq_idx=options["seq_idx"].to(DEVICE)), exact)


@pytest.mark.parametrize(("length", "n_states"), [(140, 18), (290, 40)])
def test_the_tiles_that_a_gpu_has(length, n_states):
    """One part and the next: of four tiles, and of eight with states saved on the way."""
    tensors, cotangents = problem(length, batch=1, heads=2, width=17, n_states=n_states)
    packed = segments(length, 1)
    exact = exactly(tensors, cotangents, seq_idx=packed)
    near(fast(tensors, cotangents, seq_idx=packed.to(DEVICE)), exact)


def test_a_state_that_decays_at_once_leaves_nothing_behind():
    """Sums of logarithms that differ by thousands: small ones next to them are not lost."""
    tensors, cotangents = problem(40, batch=1, heads=1)
    tensors["dt"] = torch.where(torch.rand(1, 40, 1) < 0.2, 50.0, -3.0)
    tensors["A"] = torch.full((1,), -16.0)
    near(fast(tensors, cotangents), exactly(tensors, cotangents))


# float16 tells as much of products that are rounded; the interpreter cuts bfloat16 off.
@pytest.mark.parametrize(("dtype", "times"), [(torch.float16, 2), (torch.bfloat16, 4)])
def test_low_precision_is_as_close_as_plain_pytorch(dtype, times):
    tensors, cotangents = problem(20, batch=1)
    for name in ("x", "dt", "z", "B", "C"):
        tensors[name] = tensors[name].to(dtype)
    exact = exactly(tensors, cotangents)
    plain = results(partial(scan_stably, backend="reference"), tensors, cotangents)
    got = fast(tensors, cotangents)
    for name, wanted in exact.items():
        assert got[name].dtype == plain[name].dtype
        assert error(got[name], wanted) <= times * error(plain[name], wanted) + 1e-6, name


# opcheck itself looks at the .grad of tensors that are no leaves.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_is_a_well_behaved_op():
    tensors, cotangents = problem(7, batch=1, heads=1)
    inputs = [x.to(DEVICE).requires_grad_() for x in tensors.values()]
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    flags = (True, 0.0, float("inf"), True)
    op = torch.ops.tristate.ssd_scan_triton.default
    packed = segments(7, 1).to(DEVICE)
    torch.library.opcheck(op, (*inputs, packed, *flags, True), test_utils=checks)
    _, _, y, kept = ops.triton_forward(*(x.detach() for x in inputs), None, *flags, True)
    grads = [x.to(DEVICE).requires_grad_() for x in cotangents.values()]
    op = torch.ops.tristate.ssd_scan_backward_triton.default
    torch.library.opcheck(op, (*grads, *inputs, None, y, kept, *flags), test_utils=checks)
