"""The laws of the Triton kernels on a GPU: the whole table of each op, and what needs real sizes.

The files of the ops run the same laws wherever Triton runs, at sizes that its interpreter bears;
here sequences are long. One case of each is run by the interpreter, so that the tests are known to.
"""

from functools import partial
from importlib import import_module

import pytest
import torch

from tests.kernels.laws import error
from tests.kernels.scans import results
from tests.kernels.selective import problem
from tests.kernels.triton import DEVICE, no_triton, on_device
from tristate.kernels.conv import causal_conv1d
from tristate.kernels.linear import linear_scan
from tristate.kernels.selective import selective_scan
from tristate.kernels.triton import tune
from tristate.kernels.triton.cases import CASES
from tristate.recipes import doctor

pytestmark = no_triton

# Op: the file with its table of options, and the law that each row must obey. A line an op.
LAWS = {
    "causal_conv1d": "test_conv_triton",
    "gated_delta_rule": "test_delta_triton",
    "linear_attention": "test_attention_triton",
    "linear_scan": "test_linear_triton",
    "selective_scan": "test_selective_triton",
    "ssd_scan": "test_ssd_triton",
    "wkv": "test_wkv_triton",
}
# Their tables are of sizes, and are run on a GPU as they are.
OTHERS = {"add_norm", "gated_rms_norm", "vandermonde", "cauchy"}
LENGTHS = (257, 1000, 64)

gpu = pytest.mark.gpu


def rows(op):
    """The op's rows, each with a longer sequence."""
    options = import_module(f"tests.kernels.{LAWS[op]}").OPTIONS
    return [row | {"length": LENGTHS[k % len(LENGTHS)]} for k, row in enumerate(options)]


def obey(op, row, monkeypatch):
    law = import_module(f"tests.kernels.{LAWS[op]}").test_equals_the_reference
    # What sets the number of programs needs the means to.
    law(row, monkeypatch) if "programs" in row else law(row)


@gpu
@pytest.mark.parametrize("op", LAWS)
def test_every_row_of_every_table(op, monkeypatch, subtests):
    for row in rows(op):
        with subtests.test(row=row), monkeypatch.context() as patch:
            obey(op, row, patch)


@pytest.mark.parametrize("op", ["causal_conv1d", "linear_scan"])
def test_one_row_interpreted(op, monkeypatch):
    obey(op, rows(op)[0] | {"length": 3}, monkeypatch)


def test_every_op_with_kernels_has_its_law():
    assert set(CASES) <= LAWS.keys() | OTHERS


def compare(op, tensors, cotangents):
    """A float32 op by Triton and by the kernels of the CPU."""
    wanted = results(partial(op, backend="cpu"), tensors, cotangents)
    got = results(partial(op, backend="triton"), on_device(tensors), on_device(cotangents))
    for name, x in wanted.items():
        assert error(got[name].cpu(), x) < 1e-4, name


def long_problems(length):
    """Ops of few channels over many steps, in the layouts of the models."""
    tensors, cotangents = problem(length, dim=40, n_states=8, batch=1, layout="channel-last")
    scan = partial(selective_scan, delta_softplus=True, return_last_state=True)
    yield scan, tensors, cotangents
    x, y = torch.randn(2, 1, 8, length).unbind(0)
    inputs = {"x": x, "weight": torch.randn(8, 4), "bias": torch.randn(8)}
    yield lambda **given: (causal_conv1d(**given),), inputs, {"out": y}
    a, b, h = torch.rand(3, 1, length, 8).unbind(0)
    yield linear_scan, {"a": a, "b": b}, {"out": h, "last": torch.ones(1, 8)}


@gpu
def test_long_sequences_equal_the_cpu():
    for op, tensors, cotangents in long_problems(1 << 17):
        compare(op, tensors, cotangents)


@gpu
def test_more_tiles_than_an_axis_of_the_grid_has():
    length = 65_536 * 33
    x, weight = torch.randn(1, 1, length, device=DEVICE), torch.randn(1, 4, device=DEVICE)
    got = causal_conv1d(x, weight, backend="triton")
    wanted = torch.nn.functional.conv1d(x, weight[:, None], padding=3)[..., :length]
    assert error(got, wanted) < 1e-5


def test_a_long_problem_interpreted():
    _, (op, tensors, cotangents), other = long_problems(40)
    compare(op, tensors, cotangents)
    compare(*other)


@gpu
def test_every_plan_gives_the_same(monkeypatch, tmp_path):
    """Each plan in turn is taken for the fastest."""
    monkeypatch.setattr(tune, "_folder", lambda: tmp_path)
    torch.use_deterministic_algorithms(False)
    try:
        for place in (0, 1):
            monkeypatch.setattr(tune, "_places", {})
            monkeypatch.setattr(tune, "fastest", lambda op, plans, *_, k=place: k % len(plans))
            for problem_ in long_problems(3000):
                compare(*problem_)
        assert tune._places
    finally:
        torch.use_deterministic_algorithms(True)


@gpu
def test_a_choice_is_kept_and_told(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(tune, "_folder", lambda: tmp_path)
    monkeypatch.setattr(tune, "_places", {})
    torch.use_deterministic_algorithms(False)
    try:
        a, b = torch.rand(2, 4, 2000, 64, device=DEVICE).unbind(0)
        h, _ = linear_scan(a, b, backend="triton")
        assert torch.equal(h, linear_scan(a, b, backend="triton")[0])
        (choice,) = tune.choices(DEVICE)
        assert choice["op"] == "linear_scan" and min(choice["ms"]) > 0
    finally:
        torch.use_deterministic_algorithms(True)


@gpu
def test_a_side_stream_has_its_own_order():
    a, b = torch.rand(2, 2, 500, 64, device=DEVICE).unbind(0)
    wanted, _ = linear_scan(a, b, backend="triton")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        got, _ = linear_scan(a, b, backend="triton")
    stream.synchronize()
    assert torch.equal(got, wanted)


@gpu
def test_a_graph_captures_the_ops():
    tensors, _ = problem(100, dim=16, batch=1)
    here = on_device(tensors)
    scan = partial(selective_scan, delta_softplus=True, backend="triton")
    wanted = scan(**here)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = scan(**here)
    got.zero_()
    graph.replay()
    torch.testing.assert_close(got, wanted, rtol=0, atol=0)


@gpu
def test_doctor_finds_every_op_right(capsys):
    assert doctor.main([]) == 0, capsys.readouterr().out
