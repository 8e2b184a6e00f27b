"""Every fast backend of the linear scan against the float64 reference."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels.laws import LAYOUTS, LENGTHS, assert_near, error, on_three_threads
from tests.kernels.linear import KINDS, problem
from tests.kernels.scans import near, peak_memory, results, wide
from tests.kernels.selective import segments
from tristate.kernels.backend import available_backends
from tristate.kernels.linear import cpu, linear_scan

pytestmark = pytest.mark.skipif(
    "cpu" not in available_backends(), reason="this processor has no fused multiply-add vectors"
)


def exactly(tensors, cotangents, **options):
    """The float64 reference's outputs and gradients."""
    scan = partial(linear_scan, backend="reference", **options)
    return results(scan, wide(tensors), cotangents)


def fast(tensors, cotangents, **options):
    return results(partial(linear_scan, backend="cpu", **options), tensors, cotangents)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", LENGTHS)
def test_equals_the_reference(kind, length):
    tensors, cotangents = problem(length, **KINDS[kind])
    options = {"seq_idx": segments(length) if length > 7 else None}
    options["reverse"] = length % 2 == 0
    near(fast(tensors, cotangents, **options), exactly(tensors, cotangents, **options))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("packed", (False, True))
@pytest.mark.parametrize("reverse", (False, True))
@pytest.mark.parametrize("layout", LAYOUTS)
def test_in_any_layout(layout, reverse, packed, kind):
    tensors, cotangents = problem(150, layout=layout, dim=35, **KINDS[kind])
    options = {"reverse": reverse, "seq_idx": segments(150) if packed else None}
    got = fast(tensors, cotangents, **options)
    near(got, exactly(tensors, cotangents, **options))
    inner = 1 if layout == "time-last" else 2
    assert got["h"].stride(inner) == got["grad.b"].stride(inner) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", (1, 3))
def test_shares_the_work_between_threads(batch, kind):
    tensors, cotangents = problem(700, batch=batch, dim=160, **KINDS[kind])
    got = on_three_threads(lambda: fast(tensors, cotangents))
    near(got, exactly(tensors, cotangents))


@given(
    length=st.integers(1, 150),
    batch=st.integers(1, 3),
    dim=st.integers(1, 40),
    kind=st.sampled_from(sorted(KINDS)),
    packed=st.booleans(),
    reverse=st.booleans(),
    layout=st.sampled_from(LAYOUTS),
    initial=st.booleans(),
)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_any_shape(length, batch, dim, kind, packed, reverse, layout, initial):
    tensors, cotangents = problem(length, batch=batch, dim=dim, layout=layout, **KINDS[kind])
    if not initial:
        tensors["initial_state"] = None
    options = {"reverse": reverse, "seq_idx": segments(length, batch) if packed else None}
    got, exact = fast(tensors, cotangents, **options), exactly(tensors, cotangents, **options)
    for name, wanted in exact.items():
        # A number may be all that is left of terms a hundred times larger.
        assert error(got[name], wanted) < 1e-3, name


@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float16))
def test_low_precision_is_as_close_as_plain_pytorch(dtype):
    tensors, cotangents = problem(100)
    tensors = {k: x.to(dtype) for k, x in tensors.items()}
    exact = exactly(tensors, cotangents)
    plain = results(partial(linear_scan, backend="reference"), tensors, cotangents)
    got = fast(tensors, cotangents)
    assert got["h"].dtype == got["grad.a"].dtype == dtype
    assert got["last"].dtype == torch.float32
    for name, wanted in exact.items():
        assert got[name].dtype == plain[name].dtype
        assert error(got[name], wanted) <= 2 * error(plain[name], wanted) + 1e-6, name


def test_a_decay_expanded_in_time_is_like_one_that_varies():
    tensors, cotangents = problem(70, constant=True)
    expanded = tensors | {"a": tensors["a"].expand(2, 70, 17)}
    got, wanted = fast(expanded, cotangents), fast(tensors, cotangents)
    got["grad.a"] = got["grad.a"].sum((0, 1))
    near(got, wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_only_padding_gives_zeros_and_hands_the_state_on(kind):
    tensors, cotangents = problem(130, **KINDS[kind])
    tensors["b"][:] = torch.nan
    padding = torch.full((2, 130), -1, dtype=torch.int32)
    got = fast(tensors, cotangents, seq_idx=padding)
    assert torch.equal(got["last"], tensors["initial_state"])
    assert torch.equal(got["grad.initial_state"], cotangents["last"])
    for name in ("h", "grad.a", "grad.b"):
        assert not got[name].any(), name


@pytest.mark.parametrize("kind", KINDS)
def test_a_million_steps(kind):
    tensors, cotangents = problem(2**20, batch=1, dim=8, **KINDS[kind])
    if KINDS[kind].get("constant"):
        # The slowest modes that a recurrence has: what it forgets is below rounding.
        tensors["a"] = tensors["a"] / tensors["a"].abs() * (1 - 1e-6)
    assert all(x.isfinite().all() for x in fast(tensors, cotangents).values())


def test_nan_stays_in_its_channel_and_segment():
    tensors, cotangents = problem(40)
    tensors["b"][:, 5, 3] = torch.nan
    packed = (torch.arange(40) // 10).int().expand(2, 40)
    h = fast(tensors, cotangents, seq_idx=packed)["h"]
    assert h[:, 5:10, 3].isnan().all()
    assert h[:, 5:10, :3].isfinite().all() and h[:, 10:].isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_gradients(kind):
    tensors, _ = problem(6, dim=3, **KINDS[kind])
    packed = torch.tensor([[0, 0, 1, -1, 1, 1], [0, 0, 0, 0, 2, 2]])

    def penalty(tensors, backend):
        leaves = [x.detach().requires_grad_() for x in tensors.values()]
        named = dict(zip(tensors, leaves, strict=True))
        h, last = linear_scan(**named, seq_idx=packed, backend=backend)
        loss = (h * h.conj()).real.sum() + last.real.sum()
        grads = torch.autograd.grad(loss, leaves, create_graph=True)
        second = sum((g * g.conj()).real.sum() for g in grads)
        return dict(zip(named, torch.autograd.grad(second, leaves), strict=True))

    near(penalty(tensors, "cpu"), penalty(wide(tensors), "reference"))


def test_memory_is_that_of_outputs_and_gradients():
    tensors, cotangents = problem(4096, batch=1, dim=64)
    bytes_ = 4 * tensors["b"].numel()
    # h; then the gradients of a and b.
    peak = peak_memory(lambda: fast(tensors, cotangents))
    assert 0 < peak <= 3.2 * bytes_, f"{peak / bytes_:.2f} times the input"


@pytest.mark.parametrize("kind", KINDS)
# opcheck itself looks at the .grad of tensors that are no leaves.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_is_a_well_behaved_op(kind):
    complex_ = "complex" in kind
    tensors, cotangents = problem(7, dim=5, **KINDS[kind])
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    checks += ("test_aot_dispatch_dynamic",) if not complex_ else ()
    inputs = [x.requires_grad_() for x in tensors.values()]
    op = torch.ops.tristate.linear_scan.default
    torch.library.opcheck(op, (*inputs, segments(7), True), test_utils=checks)
    a, b, state = (x.detach() for x in inputs)
    grads = [x.requires_grad_() for x in cotangents.values()]
    arguments = (*grads, a.requires_grad_(), b.requires_grad_(), state.requires_grad_())
    op = torch.ops.tristate.linear_scan_backward.default
    torch.library.opcheck(op, (*arguments, segments(7), False), test_utils=checks)


@pytest.mark.parametrize("kind", KINDS)
def test_compiles_whole(kind):
    tensors, cotangents = problem(40, **KINDS[kind])
    compiled = torch.compile(linear_scan, fullgraph=True, backend="aot_eager")
    got, wanted = results(compiled, tensors, cotangents), fast(tensors, cotangents)
    near(got, wanted)


def test_autocast_and_activation_checkpointing():
    tensors, _ = problem(40)
    b = tensors.pop("b").requires_grad_()
    whole = linear_scan(b=b, **tensors)
    with torch.autocast("cpu", torch.bfloat16):
        again = torch.utils.checkpoint.checkpoint(linear_scan, b=b, **tensors, use_reentrant=False)
    torch.testing.assert_close(again, whole)
    for h, _ in (whole, again):
        (grad,) = torch.autograd.grad(h.sum(), b)
        assert grad.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reverse", (False, True))
def test_writing_past_the_caches_changes_nothing(reverse, kind, monkeypatch):
    tensors, cotangents = problem(150, dim=48, **KINDS[kind])
    options = {"reverse": reverse, "seq_idx": segments(150)}
    wanted = fast(tensors, cotangents, **options)
    monkeypatch.setattr(cpu, "_STREAM", 0)
    for name, got in fast(tensors, cotangents, **options).items():
        assert torch.equal(got, wanted[name]), name


def test_conjugate_and_negative_views():
    tensors, cotangents = problem(20, complex_=True, constant=True)
    views = tensors | {"a": tensors["a"].conj(), "b": tensors["b"].conj()}
    near(fast(views, cotangents), exactly(views, cotangents))
    plain = {k: x.resolve_conj() for k, x in views.items()}
    assert_near(
        {"h": torch.view_as_real(linear_scan(**views)[0])},
        {"h": torch.view_as_real(linear_scan(**wide(plain))[0])},
    )
