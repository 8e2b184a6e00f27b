"""What ``tristate bench`` writes, on the smallest case of its own kind."""

import inspect
import json

import pytest
import torch

from tristate.core.compat.conv import causal_conv1d_update
from tristate.kernels.backend import available_backends
from tristate.recipes import bench
from tristate.recipes.bench import crossover, drop_in, length, state_space
from tristate.recipes.bench.cases import CASES, Case
from tristate.recipes.bench.floors import memory_ms, scan_arithmetic
from tristate.recipes.bench.measure import interleaved, peak_bytes
from tristate.recipes.bench.selective import op, parallel_scan, problem, step_by_step
from tristate.recipes.usage import UsageError

pytestmark = pytest.mark.skipif(
    "cpu" not in available_backends(), reason="this processor has no fused multiply-add vectors"
)


def tiny():
    inputs = problem(2, 6, 9, 3, 2)
    shape = {"B": 2, "D": 6, "L": 9, "N": 3}
    peers = {"loop": step_by_step, "parallel": parallel_scan}
    return Case("selective_scan, tiny", shape, inputs, op, peers, 2 * 6 * 9 * 3)


def test_peers_compute_the_same():
    case = tiny()
    want = case.ours(**case.inputs)
    for peer in case.peers.values():
        torch.testing.assert_close(peer(**case.inputs), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("direction", ["forward", "forward+backward"])
def test_a_row_has_what_the_contract_says(direction):
    row = bench.row(tiny(), direction, 1)
    assert set(row) == {
        "what", "shape", "backend", "direction", "threads", "ms", "floor_ms", "peers", "peak_bytes",
    }  # fmt: skip
    assert row["ms"] > 0 and row["floor_ms"] > 0
    assert set(row["peers"]) == {"loop", "parallel"}
    json.dumps(row)


def test_every_op_has_cases():
    for name in CASES:
        assert callable(CASES[name])


def test_the_floor_grows_with_the_work():
    small, large = scan_arithmetic("forward", 1 << 14), scan_arithmetic("forward", 1 << 22)
    ms = interleaved({"small": small, "large": large}, rounds=5, seconds=1)
    assert ms["large"] > 8 * ms["small"]
    assert memory_ms(1 << 28) > memory_ms(1 << 20)


def test_a_call_that_allocates_shows():
    held = peak_bytes(lambda: torch.ones(1 << 24))
    if held is None:
        pytest.skip("this system does not count a process's peak")
    assert held > 0.9 * 4 * (1 << 24)


def test_json_and_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "cases", lambda only, quick: iter([tiny()]))
    file = tmp_path / "rows.json"
    assert bench.main(["kernels", "--threads", "1", "--json", str(file)]) == 0
    assert len(json.loads(file.read_text())) == 2
    assert "tiny" in capsys.readouterr().out


def test_a_misspelt_op_is_named():
    with pytest.raises(UsageError, match="selective_scan"):
        bench.main(["kernels", "--only", "selectve_scan"])


def test_both_ways_to_convolve_are_the_same():
    case = next(crossover.cases(quick=True))
    want = case.ours(**case.inputs)
    for peer in case.peers.values():
        torch.testing.assert_close(peer(**case.inputs), want, rtol=1e-4, atol=1e-4)


def test_minimal_layers_compute_the_same(monkeypatch):
    monkeypatch.setattr(state_space, "SHORT", 256)
    for case in state_space.cases(quick=True):
        want = case.ours(**case.inputs)
        for peer in case.peers.values():
            torch.testing.assert_close(peer(**case.inputs), want, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("module", (crossover, length))
def test_draws_a_plot(module, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "LENGTHS", [256, 512])
    file = tmp_path / "plot.png"
    words = ["kernels", "--only", module.OP, "--threads", "1", "--plot", str(file)]
    assert bench.main(words) == 0
    assert file.read_bytes().startswith(b"\x89PNG")
    said = "per token at 512 steps as at 256"
    assert (said in capsys.readouterr().out) == (module is length)


def test_a_line_that_stops_says_so(monkeypatch, capsys):
    monkeypatch.setattr(length, "LENGTHS", [64, 128, 256])
    monkeypatch.setattr(length, "MOST_FOR_ATTENTION", 128)
    assert bench.main(["kernels", "--only", length.OP, "--threads", "1"]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if "per token at" in line]
    assert len(said) == 4
    stops = "not timed beyond: a call at 256 would take"
    assert all((stops in line) == ("attention" in line) for line in said)


def test_a_plot_needs_its_rows():
    with pytest.raises(UsageError, match=crossover.OP):
        bench.main(["kernels", "--only", "linear_scan", "--plot", "x.png"])


@pytest.mark.parametrize("family", drop_in.FAMILIES)
def test_transformers_models_agree_on_both_paths(family, monkeypatch):
    own = {"state_size": 4} | (
        {"num_heads": 4, "head_dim": 16, "n_groups": 2} if family == "Mamba2" else {}
    )
    monkeypatch.setitem(drop_in.FAMILIES, family, (drop_in.FAMILIES[family][0], own))
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 16, "pad_token_id": 0}
    prompt, training, token = drop_in.of_family(family, sizes, 9, quick=True)
    for case in (prompt, training, token):
        (peer,) = case.peers.values()
        with torch.no_grad():
            got, wanted = case.ours(**case.inputs), peer(**case.inputs)
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-4)
    (peer,) = training.peers.values()
    for got, wanted in zip(
        gradients(training, training.ours), gradients(training, peer), strict=True
    ):
        torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4)
    slow, fast = (found(model) for model in drop_in.models(family, sizes))
    assert fast is causal_conv1d_update and slow is not fast


def gradients(case, call):
    """Of the prompt and of every weight of the model that it goes through."""
    x = case.inputs["x"].clone().requires_grad_()
    (model,) = call.args
    out = call(x=x)
    return torch.autograd.grad(out.square().mean(), [x, *model.parameters()], allow_unused=True)


def found(model):
    """The function that a model's own module calls in a step of its convolution."""
    wrapper = inspect.unwrap(type(model).forward).__globals__["causal_conv1d_update"]
    return inspect.getclosurevars(wrapper).nonlocals["implementation"]
