"""RWKV-4's attention: its meaning by the reference in float64, and the fast backend against it."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

from tests.kernels.laws import (
    LAYOUTS,
    LENGTHS,
    assert_as_close_as_plain,
    assert_near,
    error,
)
from tests.kernels.scans import near, peak_memory, results, wide
from tests.kernels.selective import segments
from tests.kernels.wkv import meant, problem
from tristate.kernels.backend import available_backends
from tristate.kernels.export import decompositions
from tristate.kernels.rwkv import LEAST, ops, reference, wkv

CLOSE = {"rtol": 1e-10, "atol": 1e-10}

run = partial(wkv, backend="reference")
fast_only = pytest.mark.skipif(
    "cpu" not in available_backends(), reason="this processor has no fused multiply-add vectors"
)


def exactly(tensors, cotangents, **options):
    return results(meant(partial(run, **options)), wide(tensors), wide(cotangents))


def fast(tensors, cotangents, **options):
    return results(meant(partial(wkv, backend="cpu", **options)), tensors, cotangents)


def some(tensors, chosen):
    """The inputs at some positions, without an initial state."""
    at = {name: tensors[name][:, chosen] for name in ("k", "v")}
    return {**at, "w": tensors["w"], "u": tensors["u"]}


def test_by_hand():
    k, v = torch.randn(2, 5, dtype=torch.float64)
    w, u = -0.3, 0.7
    wanted = []
    for t in range(5):
        weights = torch.tensor(
            [k[j] + (t - 1 - j) * w if j < t else k[t] + u for j in range(t + 1)]
        )
        wanted.append(weights.double().softmax(0) @ v[: t + 1])
    row = lambda x: x[None, :, None]  # noqa: E731
    one = lambda x: torch.tensor([x], dtype=torch.float64)  # noqa: E731
    got, last = run(row(k), row(v), w=one(w), u=one(u))
    torch.testing.assert_close(got, row(torch.stack(wanted)))
    sums = (k + torch.arange(4, -1, -1) * w).logsumexp(0)
    torch.testing.assert_close(last[0, 1, 0].log() + last[0, 2, 0], sums)


@pytest.mark.parametrize("reverse", (False, True))
def test_two_pieces_are_the_whole(reverse):
    tensors = wide(problem(23)[0])
    whole, last = run(**tensors, reverse=reverse)
    first, second = some(tensors, slice(0, 9)), some(tensors, slice(9, 23))
    if reverse:
        first, second = second, first
    head, state = run(**first, initial_state=tensors["initial_state"], reverse=reverse)
    tail, end = run(**second, initial_state=state, reverse=reverse)
    torch.testing.assert_close(torch.cat([tail, head] if reverse else [head, tail], 1), whole)
    torch.testing.assert_close(end, last, **CLOSE)


def test_reverse_is_a_flip():
    tensors, packed = wide(problem(23)[0]), segments(23)
    initial = tensors["initial_state"]
    out, last = run(**tensors, reverse=True, seq_idx=packed)
    flipped = some(tensors, torch.arange(22, -1, -1))
    mirrored, wanted = run(**flipped, initial_state=initial, seq_idx=packed.flip(1))
    torch.testing.assert_close(out, mirrored.flip(1), **CLOSE)
    torch.testing.assert_close(last, wanted, **CLOSE)


@pytest.mark.parametrize("reverse", (False, True))
def test_packed_is_separate_and_padding_is_not_there(reverse):
    tensors = wide(problem(23)[0])
    row = torch.tensor([-1, 3, 3, -1, -1, 3, 4, -5, 4, *[7] * 12, -1, -1]).int()
    out, last = run(**tensors, seq_idx=row.expand(2, 23), reverse=reverse)
    assert (out[:, row < 0] == 0).all()
    parts = (7, 4, 3) if reverse else (3, 4, 7)
    state = None
    for part in parts:
        alone = some(tensors, row == part)
        initial = tensors["initial_state"] if part == parts[0] else None
        wanted, state = run(**alone, initial_state=initial, reverse=reverse)
        torch.testing.assert_close(out[:, row == part], wanted, **CLOSE)
    torch.testing.assert_close(last, state, **CLOSE)


def test_gradients_of_gradients():
    tensors = {k: x.requires_grad_() for k, x in wide(problem(3, batch=1, dim=2)[0]).items()}
    packed = torch.tensor([[0, 1, 1]], dtype=torch.int32)

    def op(*inputs):
        return meant(partial(run, seq_idx=packed))(**dict(zip(tensors, inputs, strict=True)))

    assert gradcheck(op, [*tensors.values()], fast_mode=True)
    assert gradgradcheck(op, [*tensors.values()], fast_mode=True)


@pytest.mark.parametrize("backend", [b for b in available_backends() if b != "triton"])
@pytest.mark.parametrize("size", (1e2, 1e4))
def test_keys_of_any_size_neither_overflow_nor_vanish(backend, size):
    tensors, cotangents = problem(70, initial=False)
    tensors["k"] = size * tensors["k"]
    got = results(meant(partial(wkv, backend=backend)), tensors, cotangents)
    assert all(x.isfinite().all() for x in got.values())
    low, high = tensors["v"].cummin(1).values, tensors["v"].cummax(1).values
    assert ((got["out"] >= low - 1e-4) & (got["out"] <= high + 1e-4)).all()


@fast_only
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("packed", (False, True))
def test_equals_the_reference(length, packed):
    tensors, cotangents = problem(length)
    options = {"reverse": length % 2 == 0, "seq_idx": segments(length) if packed else None}
    near(fast(tensors, cotangents, **options), exactly(tensors, cotangents, **options))


@fast_only
@pytest.mark.parametrize("layout", LAYOUTS)
def test_in_any_layout_and_on_any_number_of_threads(layout):
    tensors, cotangents = problem(130, layout=layout, batch=3, dim=70)
    exact = exactly(tensors, cotangents)
    before = torch.get_num_threads()
    try:
        for n_threads in (1, 2, 3):
            torch.set_num_threads(n_threads)
            near(fast(tensors, cotangents), exact)
    finally:
        torch.set_num_threads(before)


@fast_only
@given(
    length=st.integers(1, 90),
    batch=st.integers(1, 3),
    dim=st.integers(1, 40),
    initial=st.booleans(),
    layout=st.sampled_from(LAYOUTS),
    packed=st.booleans(),
    reverse=st.booleans(),
)
@settings(max_examples=10, deadline=None, derandomize=True)
def test_any_shape(length, batch, packed, reverse, **sizes):
    tensors, cotangents = problem(length, batch=batch, **sizes)
    options = {"reverse": reverse, "seq_idx": segments(length, batch) if packed else None}
    got, exact = fast(tensors, cotangents, **options), exactly(tensors, cotangents, **options)
    for name, wanted in exact.items():
        # A gradient of one number may be all that is left of terms a hundred times larger.
        assert error(got[name], wanted) < 1e-3, name


@fast_only
@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float16))
def test_low_precision_is_as_close_as_plain_pytorch(dtype):
    tensors, cotangents = problem(50)
    tensors |= {name: tensors[name].to(dtype) for name in ("k", "v")}
    exact = exactly(tensors, cotangents)
    plainly, got = results(meant(run), tensors, cotangents), fast(tensors, cotangents)
    assert_as_close_as_plain(got, plainly, exact)


@fast_only
def test_padding_alone_leaves_the_state_as_it_was():
    tensors, cotangents = problem(20)
    out, last = wkv(**tensors, seq_idx=torch.full((2, 20), -1), backend="cpu")
    assert (out == 0).all() and torch.equal(last, tensors["initial_state"])
    _, last = wkv(**{**tensors, "initial_state": None}, seq_idx=torch.full((2, 20), -1))
    assert (last[:, :2] == 0).all() and (last[:, 2] == LEAST).all()


@fast_only
def test_gradients_of_gradients_go_through_the_reference():
    tensors, _ = problem(6, batch=1, dim=3)

    def penalty(tensors, backend):
        leaves = [x.detach().requires_grad_() for x in tensors.values()]
        out, last = wkv(**dict(zip(tensors, leaves, strict=True)), backend=backend)
        grads = torch.autograd.grad(
            out.square().sum() + last[:, 0].sum(), leaves, create_graph=True
        )
        return torch.autograd.grad(sum(g.square().sum() for g in grads), leaves)

    names = [f"grad.{k}" for k in tensors]
    got = dict(zip(names, penalty(tensors, "cpu"), strict=True))
    assert_near(got, dict(zip(names, penalty(wide(tensors), "reference"), strict=True)))


@fast_only
def test_a_graph_made_without_states_makes_them_later():
    tensors, _ = problem(70)
    leaves = [x.requires_grad_() for x in tensors.values()]
    out, _, states = ops.forward(*leaves, None, False, False)
    assert states.numel() == 0
    wanted = reference.wkv(*leaves, None, False)[0]
    for got, exact in zip(
        torch.autograd.grad(out.sum(), leaves),
        torch.autograd.grad(wanted.sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(got, exact, rtol=1e-4, atol=1e-4)


@fast_only
def test_memory_stays_within_three_times_the_inputs():
    tensors, cotangents = problem(4096, batch=1, dim=64, initial=False)
    inputs = sum(x.numel() * 4 for x in tensors.values() if x is not None)
    peak = peak_memory(lambda: fast(tensors, cotangents))
    assert 0 < peak <= 3 * inputs, f"{peak / inputs:.2f} times the inputs"


@fast_only
# opcheck itself looks at the .grad of tensors that are no leaves.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_is_a_well_behaved_op():
    tensors, _ = problem(2, dim=5)
    inputs = [x.contiguous().requires_grad_() for x in tensors.values()]
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(
        torch.ops.tristate.wkv.default,
        (*inputs, segments(2), True, True),
        test_utils=(*checks, "test_aot_dispatch_dynamic"),
    )
    out, last, states = ops.forward(*(x.detach() for x in inputs), None, False, True)
    grads = [torch.randn_like(x).requires_grad_() for x in (out, last)]
    torch.library.opcheck(
        torch.ops.tristate.wkv_backward.default,
        (*grads, *inputs, None, last, states, False),
        test_utils=(*checks, "test_aot_dispatch_static"),
    )


class Layer(nn.Module):
    """``(B, L, 8)`` to itself and the last state."""

    def __init__(self, packed=False):
        super().__init__()
        self.keys, self.packed = nn.Linear(8, 8), packed
        self.w, self.u = nn.Parameter(-torch.rand(8)), nn.Parameter(torch.randn(8))

    def forward(self, x):
        seq_idx = (x[:, :, 0].cumsum(1) // 2).int() if self.packed else None
        options = {"seq_idx": seq_idx, "reverse": self.packed}
        return wkv(self.keys(x), x, w=self.w, u=self.u, **options)


def exported(model):
    length = torch.export.Dim("length", min=2, max=1000)
    program = torch.export.export(
        model.eval(), (torch.randn(2, 11, 8),), dynamic_shapes=({1: length},)
    )
    return program.run_decompositions(decompositions())


@fast_only
def test_compiles_whole():
    model, x = Layer(), torch.randn(2, 20, 8)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for got, wanted in zip(compiled(x), model(x), strict=True):
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("packed", (False, True))
def test_nothing_of_ours_is_left_in_an_exported_program(packed):
    model = Layer(packed)
    longer, program = torch.randn(2, 70, 8), exported(model)
    assert not [node for node in program.graph.nodes if "tristate" in str(node.target)]
    for got, wanted in zip(program.module()(longer), model(longer), strict=True):
        assert error(got, wanted) < 1e-5


# PyTorch's exporter and the libraries behind it warn of their own affairs.
@pytest.mark.filterwarnings("ignore")
def test_onnxruntime_computes_the_same_at_another_length():
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    model, longer = Layer(), torch.randn(2, 70, 8)
    onnx = torch.onnx.export(exported(model), dynamo=True, verbose=False)
    assert onnx is not None
    session = onnxruntime.InferenceSession(onnx.model_proto.SerializeToString())
    with torch.no_grad():
        wanted = model(longer)
    found = session.run(None, {session.get_inputs()[0].name: longer.numpy()})
    for got, exact in zip(found, wanted, strict=True):
        assert error(torch.from_numpy(got), exact) < 1e-5


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"k": torch.zeros(5, 35)}, r"k must be \(B, L, D\)"),
        ({"v": torch.zeros(2, 5, 34)}, r"v must be \(B, L, D\) = \(2, 5, 35\)"),
        ({"w": torch.zeros(2, 35)}, r"w must be \(D,\) = \(35,\)"),
        ({"u": torch.zeros(34)}, r"u must be \(D,\) = \(35,\)"),
        ({"initial_state": torch.zeros(2, 35)}, r"initial_state must be \(B, 3, D\)"),
        ({"seq_idx": torch.zeros(2, 5)}, "seq_idx must be int32 or int64, got torch.float32"),
        ({"v": torch.zeros(2, 5, 35, dtype=torch.int64)}, "v must be floating point"),
        ({"u": torch.zeros(35, device="meta")}, "u is on meta, but k is on cpu"),
        ({"backend": "cuda"}, "unknown backend 'cuda'"),
    ],
)
def test_refuses_what_does_not_fit(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        wkv(**{**problem(5)[0], **change})
