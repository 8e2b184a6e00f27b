"""``tristate bench`` on a GPU: its arithmetic by a processor's clock, its rows interpreted."""

import json
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pytest
import torch

from tests.kernels.triton import no_triton
from tristate import compat, kernels
from tristate.kernels.backend import use_backend
from tristate.kernels.triton.clock import HostClock
from tristate.recipes import bench
from tristate.recipes.bench import gpu
from tristate.recipes.bench.cases import Case
from tristate.recipes.bench.gpu import cases, limits, peers, problems, rotation
from tristate.recipes.usage import UsageError

CPU = torch.device("cpu")
TINY = {"B": 1, "D": 4, "L": 6, "N": 2, "groups": 1, "H": 2, "P": 3, "K": 4, "V": 4}
TINY |= {"width": 4, "rows": 5}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(rotation, "CACHE_BYTES", 4096)
    monkeypatch.setattr(gpu, "ROUNDS", 2)


def tiny(op):
    """The first case of an op, at a tiny size."""
    entry = next(x for x in cases.ENTRIES if x.op == op)
    inputs = entry.problem(TINY, CPU)
    return Case(op, TINY, inputs, entry.ours)


class Ticks(HostClock):
    """A clock whose moments are one, two, three, ... milliseconds."""

    def __init__(self):
        self.count, self.ahead = 0, 0

    def run_ahead(self):
        self.ahead += 1

    def mark(self):
        self.count += 1
        return 1e-3 * self.count**2


def test_each_call_has_inputs_that_lie_in_no_cache():
    inputs = {"x": torch.randn(3, 100).T, "n": torch.arange(4)}
    assert rotation.n_copies(inputs) == 1 + -(-4096 // (1200 + 32))
    assert rotation.n_copies({"x": torch.empty(1 << 20)}) == 2
    seen = []
    call = rotation.rotating(lambda x, n: seen.append(x) or x * 2, inputs, backward=False)
    for _ in range(10):
        call()
    places = [x.data_ptr() for x in seen]
    count = rotation.n_copies(inputs)
    assert len(set(places)) == count and places[:count] == places[count : 2 * count]
    assert inputs["x"].data_ptr() not in places
    assert all(torch.equal(x, inputs["x"]) and x.stride() == (1, 100) for x in seen)


def test_gradients_are_of_every_input():
    inputs = {"x": torch.randn(3), "y": torch.randn(3), "n": torch.arange(3)}
    call: Any = rotation.rotating(lambda x, y, n: (x * y, x + n), inputs, backward=True)
    for _ in range(3):
        dx, dy = call()
        torch.testing.assert_close(dx, inputs["y"] + 1)
        torch.testing.assert_close(dy, inputs["x"])


@no_triton
@pytest.mark.parametrize("direction", ["forward", "forward+backward"])
def test_a_row_adds_up(direction):
    case = tiny("causal_conv1d")
    case.peers["loop"] = case.ours
    clock = Ticks()
    row = gpu.row(case, direction, CPU, clock, bandwidth=1e6)
    out = case.ours(**case.inputs)
    n_in, n_out = case.input_bytes, out.numel() * out.element_size()
    least = n_in + n_out if direction == "forward" else 3 * n_in + 2 * n_out
    assert row["floor_ms"] == pytest.approx(1e3 * least / 1e6)
    # Two rounds of two calls: moments 1 and 2, 5 and 6 are ours, 3 and 4, 7 and 8 the peer's.
    assert clock.count == 8 and clock.ahead == 2
    assert row["ms"] == pytest.approx((3 + 11) / 2)
    assert row["peers"] == {"loop": pytest.approx((7 + 15) / 2)}
    assert row["gb_per_s"] == pytest.approx(1e-9 * least / (1e-3 * row["ms"]))
    assert row["backend"] == "triton" and row["device"] == "cpu"
    json.dumps(row)


def test_the_floor_has_a_scans_exponentials(monkeypatch):
    monkeypatch.setattr(gpu, "use_backend", lambda name: torch.no_grad())
    monkeypatch.setattr(limits, "exponentials", lambda device: 1e3)
    x = {"x": torch.randn(4)}
    case = Case("op", {}, x, lambda x: x + 0.0, n_elements=50)
    row = gpu.row(case, "forward", CPU, Ticks(), bandwidth=1e12)
    assert row["floor_ms"] == pytest.approx(50.0)


def test_a_copy_is_timed():
    assert limits.copied(CPU, Ticks(), n_bytes=4096) == pytest.approx(2 * 4096 / 19e-3)


@pytest.mark.parametrize(
    ("name", "rate"),
    [("NVIDIA H100 80GB HBM3", 3.35e12), ("NVIDIA H200", 4.8e12), ("GT", None)],
)
def test_bandwidths_that_are_stated(name, rate):
    assert limits.published(name) == rate
    rows = [{"device": name}, {"device": name}]
    (sentence,) = gpu.sentences(rows)
    assert ("no bandwidth is stated" in sentence) == (rate is None)


@pytest.mark.parametrize("op", cases.OPS)
def test_every_case_runs(op):
    case = tiny(op)
    with use_backend("reference"):
        out = case.ours(**case.inputs)
    first = out[0] if isinstance(out, tuple) else out
    assert torch.isfinite(first).all()


@pytest.mark.parametrize("op", sorted({x.op for x in peers.PEERS}))
def test_peers_compute_the_same(op, monkeypatch):
    """mamba-ssm and causal-conv1d by our stand-ins for them, whose signatures are theirs."""
    stand_in(monkeypatch)
    compat.enable()
    try:
        case, found = tiny(op), peers.installed(op)
        assert found
        with use_backend("reference"):
            want = case.ours(**case.inputs)
            results = [peer(**case.inputs) for peer in found.values()]
        for got in results:
            torch.testing.assert_close(got, want, rtol=0.05, atol=0.05, check_dtype=False)
    finally:
        compat.disable()


def stand_in(monkeypatch):
    """flash-linear-attention's two ops, with its arguments."""

    def chunk_gated_delta_rule(q, k, v, g, beta, scale=None, output_final_state=False):
        return kernels.gated_delta_rule(q, k, v, beta=beta, g=g, scale=scale)

    def chunk_gla(q, k, v, g, scale=None, output_final_state=False):
        return kernels.linear_attention(q, k, v, g=g, scale=scale)

    names = {
        "fla": (),
        "fla.ops": (),
        "fla.ops.gated_delta_rule": (chunk_gated_delta_rule,),
        "fla.ops.gla": (chunk_gla,),
    }
    for name, functions in names.items():
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None, is_package=True)
        module.__path__ = []
        for function in functions:
            setattr(module, function.__name__, function)
        monkeypatch.setitem(__import__("sys").modules, name, module)


def test_what_is_not_installed_is_told(monkeypatch):
    monkeypatch.setattr(peers, "find_spec", lambda name: name == "torch")
    assert [x.split()[0] for x in peers.absent()] == ["causal_conv1d", "fla", "mamba_ssm"]
    assert set(peers.installed("causal_conv1d")) == {"torch"}


@no_triton
def test_an_op_without_a_kernel_is_told(monkeypatch, capsys):
    def ours(x):
        return kernels.long_conv(x, x[0])

    case = Case("long_conv, x", {}, {"x": torch.randn(1, 2, 8)}, ours)
    monkeypatch.setattr(gpu, "selected", lambda *_: iter([case]))
    monkeypatch.setattr(limits, "copied", lambda device, clock: 1e9)
    assert gpu.measure((), True, CPU) == []
    assert "has no triton backend" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--device", "gpu"], "no device 'gpu'"),
        (["--device", "mps"], "no device 'mps' here"),
        (["--device", "cuda:99"], "no device 'cuda:99' here"),
        (["--device", "cuda", "--threads", "1"], "without --plot and --threads"),
        (["--device", "cuda", "--only", "selectiv_scan"], "did you mean selective_scan"),
    ],
)
def test_refusals(words, sentence):
    with pytest.raises(UsageError, match=sentence):
        bench.main(["kernels", *words])


def test_problems_have_the_layout_that_they_say():
    last = problems.selective(TINY, CPU, channels_last=True)
    assert last["u"].stride(1) == 1 and last["B"].stride(2) == 1
    assert problems.selective(TINY, CPU)["u"].stride(2) == 1
