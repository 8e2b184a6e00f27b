"""Every fast backend of the selective scan against the float64 reference."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels.laws import (
    LAYOUTS,
    LENGTHS,
    assert_as_close_as_plain,
    assert_near,
    double,
    error,
    on_three_threads,
    stored,
)
from tests.kernels.scans import peak_memory
from tests.kernels.selective import problem, segments
from tristate.kernels.backend import available_backends
from tristate.kernels.selective import cpu, ops, reference, selective_scan

pytestmark = pytest.mark.skipif(
    "cpu" not in available_backends(), reason="this processor has no fused multiply-add vectors"
)

KINDS = {
    "all": {},
    "bare": {"absent": ("D", "z", "delta_bias", "initial_state")},
    "16 states": {"n_states": 16, "dim": 32},
    "1 state in groups": {"n_states": 1, "dim": 36, "groups": 2},
    "constant B": {"constant": "B"},
    "constant both": {"constant": "BC"},
    "groups and constant C": {"dim": 38, "groups": 2, "constant": "C"},
    "complex": {"complex_A": True, "dim": 5},
    "complex in groups": {"complex_A": True, "dim": 6, "groups": 2, "constant": "C"},
}


scan_stably = partial(selective_scan, delta_softplus=True)


def exactly(tensors, cotangents, **options):
    """The float64 reference's outputs and gradients, complex ones included."""
    scan = partial(scan_stably, backend="reference", return_last_state=True, **options)
    wide = lambda x: x.to(torch.complex128) if x.is_complex() else x.double()  # noqa: E731
    return results(scan, {k: x if x is None else wide(x) for k, x in tensors.items()}, cotangents)


def fast(tensors, cotangents, **options):
    scan = partial(scan_stably, backend="cpu", return_last_state=True, **options)
    return results(scan, tensors, cotangents)


def results(scan, tensors, cotangents):
    """Outputs and gradients by name; complex leaves too."""
    leaves = {k: x.detach().requires_grad_() for k, x in tensors.items() if x is not None}
    returned = dict(zip(cotangents, scan(**{**tensors, **leaves}), strict=True))
    weights = [cotangents[k].to(x.dtype) for k, x in returned.items()]
    grads = torch.autograd.grad([*returned.values()], [*leaves.values()], weights)
    named = {f"grad.{k}": g for k, g in zip(leaves, grads, strict=True)}
    return {k: x.detach() for k, x in returned.items()} | named


def near(got, exact):
    """Agreement in float32; a complex tensor as its real and imaginary parts."""
    flat = lambda x: torch.view_as_real(x) if x.is_complex() else x  # noqa: E731
    assert_near({k: flat(x) for k, x in got.items()}, {k: flat(x) for k, x in exact.items()})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", LENGTHS)
def test_equals_the_reference(kind, length):
    tensors, cotangents = problem(length, **KINDS[kind])
    options = {"seq_idx": segments(length) if length > 7 else None}
    options["reverse"] = length % 2 == 0
    near(fast(tensors, cotangents, **options), exactly(tensors, cotangents, **options))


@pytest.mark.parametrize("reverse", (False, True))
@pytest.mark.parametrize("groups", (None, 2))
@pytest.mark.parametrize("length", (1, 31, 32, 65, 257))
def test_one_state_of_channels_side_by_side(length, groups, reverse, monkeypatch):
    # Blocks of 16 channels that no slab of them divides; no kernels but those made for it.
    monkeypatch.setattr(cpu, "_GENERAL", None)
    options = {"layout": "channel-last", "n_states": 1, "dim": 144 * (groups or 1)}
    tensors, cotangents = problem(length, groups=groups, **options)
    near(fast(tensors, cotangents, reverse=reverse), exactly(tensors, cotangents, reverse=reverse))
    bare, cotangents = problem(length, absent=KINDS["bare"]["absent"], **options)
    near(fast(bare, cotangents), exactly(bare, cotangents))


def test_one_state_and_a_gradient_that_lies_otherwise():
    tensors, cotangents = problem(70, layout="channel-last", n_states=1, dim=32)
    for otherwise in (cotangents["out"].contiguous(), cotangents["out"][:1, :1].expand(2, 32, 70)):
        cotangents["out"] = otherwise
        near(fast(tensors, cotangents), exactly(tensors, cotangents))


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16, torch.float16))
def test_one_state_between_threads(dtype, monkeypatch):
    monkeypatch.setattr(cpu, "_GENERAL", None)
    tensors, cotangents = problem(600, layout="channel-last", n_states=1, dim=160, batch=1)
    for name in ("u", "delta", "z"):
        tensors[name] = tensors[name].to(dtype)
    exact = exactly(tensors, cotangents)
    got = on_three_threads(lambda: fast(tensors, cotangents))
    plain = results(
        partial(scan_stably, backend="reference", return_last_state=True), tensors, cotangents
    )
    assert_near(got, exact, plain=plain)


@pytest.mark.parametrize("softplus", (False, True))
@pytest.mark.parametrize("packed", (False, True))
@pytest.mark.parametrize("reverse", (False, True))
@pytest.mark.parametrize("layout", LAYOUTS)
def test_in_any_layout(layout, reverse, packed, softplus):
    tensors, cotangents = problem(70, layout=layout, dim=35)
    tensors["B"] = tensors["B"].transpose(1, 2).contiguous().transpose(1, 2)
    options = {"reverse": reverse, "delta_softplus": softplus}
    options["seq_idx"] = segments(70) if packed else None
    if not softplus:
        tensors["delta"], tensors["delta_bias"] = tensors["delta"].abs(), None
    near(fast(tensors, cotangents, **options), exactly(tensors, cotangents, **options))


@pytest.mark.parametrize("n_states", (2, 63, 256))
def test_with_any_number_of_states(n_states):
    tensors, cotangents = problem(40, n_states=n_states, dim=17, batch=1)
    near(fast(tensors, cotangents), exactly(tensors, cotangents))


@pytest.mark.parametrize("batch", (1, 3))
def test_shares_the_work_between_threads(batch):
    tensors, cotangents = problem(300, batch=batch, dim=160, n_states=8)
    got = on_three_threads(lambda: fast(tensors, cotangents))
    near(got, exactly(tensors, cotangents))


@given(
    length=st.integers(1, 70),
    batch=st.integers(1, 3),
    n_states=st.integers(1, 9),
    group_size=st.integers(1, 20),
    groups=st.integers(1, 3),
    packed=st.booleans(),
    reverse=st.booleans(),
    layout=st.sampled_from(LAYOUTS),
    absent=st.sets(st.sampled_from(("D", "z", "delta_bias", "initial_state"))),
)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_any_shape(length, batch, n_states, group_size, groups, packed, reverse, layout, absent):
    tensors, cotangents = problem(
        length,
        batch=batch,
        dim=group_size * groups,
        groups=groups,
        n_states=n_states,
        layout=layout,
        absent=tuple(absent),
    )
    options: dict = {"reverse": reverse}
    options["seq_idx"] = segments(length, batch) if packed else None
    got, exact = fast(tensors, cotangents, **options), exactly(tensors, cotangents, **options)
    for name, wanted in exact.items():
        # A state of one number may be all that is left of terms a hundred times larger.
        assert error(got[name], wanted) < 1e-3, name


@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float16))
@pytest.mark.parametrize("layout", LAYOUTS)
def test_low_precision_is_as_close_as_plain_pytorch(dtype, layout):
    tensors, cotangents = problem(100, layout=layout)
    for name in ("u", "delta", "z", "B", "C"):
        tensors[name] = tensors[name].to(dtype)
    exact = exactly(tensors, cotangents)
    plain = partial(scan_stably, backend="reference", return_last_state=True)
    plainly = results(plain, tensors, cotangents)
    got = fast(tensors, cotangents)
    assert_as_close_as_plain(got, plainly, exact)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_outputs_and_gradients_keep_the_layout(layout):
    tensors, cotangents = problem(8, layout=layout)
    got = fast(tensors, cotangents)
    last = layout == "time-last"
    for name in ("out", "grad.u", "grad.delta", "grad.z"):
        assert got[name].stride(2 if last else 1) == 1


def test_mixed_dtypes():
    tensors, cotangents = problem(20)
    tensors["u"], tensors["B"] = tensors["u"].bfloat16(), tensors["B"].half()
    got, exact = fast(tensors, cotangents), exactly(tensors, cotangents)
    assert got["out"].dtype == got["grad.u"].dtype == torch.bfloat16
    assert got["grad.B"].dtype == torch.float16
    assert error(got["out"], exact["out"]) < 4e-3
    assert error(got["grad.delta"], exact["grad.delta"]) < 1e-2


def test_extreme_steps_stay_finite():
    tensors, cotangents = problem(50)
    tensors["delta"] = tensors["delta"] * 0 + 1e4
    tensors["u"] = tensors["u"] * 1e-4
    assert all(x.isfinite().all() for x in fast(tensors, cotangents).values())


def test_without_decay_it_sums():
    tensors, cotangents = problem(500)
    tensors["A"] = torch.zeros_like(tensors["A"])
    near(fast(tensors, cotangents), exactly(tensors, cotangents))


def test_growth_is_not_cut_short():
    tensors, cotangents = problem(20)
    tensors["A"] = -tensors["A"]
    near(fast(tensors, cotangents), exactly(tensors, cotangents))


def test_nan_is_passed_on():
    tensors, _ = problem(40)
    tensors["A"][3, 1] = torch.nan
    out = scan_stably(**tensors, backend="cpu")
    assert out[:, 3].isnan().all() and out[:, :3].isfinite().all()


def test_gradients_of_gradients_go_through_the_reference():
    tensors, _ = problem(6, dim=3, n_states=2)
    wide = double(tensors)

    def penalty(tensors, backend):
        leaves = [x.detach().requires_grad_() for x in tensors.values()]
        out, last = scan_stably(
            **dict(zip(tensors, leaves, strict=True)), return_last_state=True, backend=backend
        )
        grads = torch.autograd.grad(
            out.square().sum() + last.sum(), leaves, create_graph=True, materialize_grads=True
        )
        return torch.autograd.grad(sum(g.square().sum() for g in grads), leaves)

    names = [f"grad.{k}" for k in tensors]
    got = dict(zip(names, penalty(tensors, "cpu"), strict=True))
    assert_near(got, dict(zip(names, penalty(wide, "reference"), strict=True)))


def test_a_graph_made_without_checkpoints_makes_them_later():
    tensors, _ = problem(40)
    values = tensors.values()
    leaves = [x.requires_grad_() for x in values]
    out, _, checkpoints = ops.forward(*leaves, None, True, False, False)
    assert checkpoints.numel() == 0
    wanted = torch.autograd.grad(
        reference.selective_scan(*leaves[:8], True, leaves[8])[0].sum(), leaves
    )
    for got, exact in zip(torch.autograd.grad(out.sum(), leaves), wanted, strict=True):
        torch.testing.assert_close(got, exact, rtol=1e-4, atol=1e-4)


def test_memory_stays_within_four_times_the_inputs():
    length, dim = 4096, 64
    tensors, cotangents = problem(length, batch=1, dim=dim, n_states=16, layout="channel-last")
    inputs = sum(x.numel() * 4 for x in tensors.values())
    scan = partial(scan_stably, backend="cpu", return_last_state=True)
    peak = peak_memory(lambda: results(scan, tensors, cotangents))
    assert 0 < peak <= 4 * inputs, f"{peak / inputs:.2f} times the inputs"


@pytest.mark.parametrize("complex_A", (False, True))
# opcheck itself looks at the .grad of tensors that are no leaves.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_is_a_well_behaved_op(complex_A):
    tensors, cotangents = problem(7, dim=5, n_states=3, complex_A=complex_A, layout="channel-last")
    inputs = [x.requires_grad_() for x in tensors.values()]
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    checks += ("test_aot_dispatch_dynamic",) if not complex_A else ()
    packed = segments(7)
    forward = (*inputs, packed, True, True, True)
    torch.library.opcheck(torch.ops.tristate.selective_scan.default, forward, test_utils=checks)
    plain = [x.detach() for x in inputs]
    checkpoints = ops.forward(*plain, None, True, False, True)[2]
    grads = [x.requires_grad_() for x in cotangents.values()]
    torch.library.opcheck(
        torch.ops.tristate.selective_scan_backward.default,
        (*grads, *inputs, None, checkpoints, True, False),
        test_utils=checks,
    )


def test_compiles_whole_and_exports():
    tensors, _ = problem(40, layout="channel-last")
    names = list(tensors)

    def scan(*values):
        named = dict(zip(names, values, strict=True))
        out, last = selective_scan(**named, delta_softplus=True, return_last_state=True)
        return out.sin(), last

    leaves = [x.requires_grad_() for x in tensors.values()]
    compiled = torch.compile(scan, fullgraph=True, backend="aot_eager")
    for got, wanted in zip(compiled(*leaves), scan(*leaves), strict=True):
        torch.testing.assert_close(got, wanted)
    for got, wanted in zip(
        torch.autograd.grad(compiled(*leaves)[0].sum(), leaves),
        torch.autograd.grad(scan(*leaves)[0].sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(got, wanted)

    class Scan(torch.nn.Module):
        def forward(self, *values):
            return scan(*values)

    values = tuple(x.detach() for x in leaves)
    program = torch.export.export(Scan(), values)
    torch.testing.assert_close(program.module()(*values), scan(*values))


def test_autocast_and_activation_checkpointing():
    tensors, _ = problem(40)
    tensors["u"].requires_grad_()
    scan = partial(scan_stably, **{k: x for k, x in tensors.items() if k != "u"})
    whole = scan(tensors["u"])
    with torch.autocast("cpu", torch.bfloat16):
        again = torch.utils.checkpoint.checkpoint(scan, tensors["u"], use_reentrant=False)
    torch.testing.assert_close(again, whole)
    for out in (whole, again):
        (grad,) = torch.autograd.grad(out.sum(), tensors["u"])
        assert grad.isfinite().all()


def test_storage_is_not_copied_or_shared():
    tensors, _ = problem(33, layout="slice")
    before = {k: x.clone() for k, x in tensors.items()}
    out = scan_stably(**tensors, backend="cpu")
    assert all(torch.equal(x, before[k]) for k, x in tensors.items())
    contiguous = {k: stored(x, "time-last") if k in "uz" else x for k, x in tensors.items()}
    torch.testing.assert_close(scan_stably(**contiguous, backend="cpu"), out)
