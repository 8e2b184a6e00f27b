"""The conformance runner itself, on a few golden files written here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from tests.conformance import run
from tests.conformance.compare import Mismatch, relative_errors, too_far, weighted_sum
from tests.conformance.execute import _check_filled, _shared
from tests.conformance.golden import load


def write_convolution(path: Path, *, entry="ops.causal_conv1d", output_shift=0.0, grad_shift=0.0):
    """A golden file as the originals' authors would write it: PyTorch's own convolution."""
    generator = torch.Generator().manual_seed(0)
    x, weight, bias, cotangent = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((2, 3, 9), (3, 4), (3,), (2, 3, 9))
    )
    leaves = {"x": x, "weight": weight, "bias": bias}
    for leaf in leaves.values():
        leaf.requires_grad_()
    out = F.silu(F.conv1d(F.pad(x, (3, 0)), weight[:, None], bias, groups=3))
    grads = torch.autograd.grad((out * cotangent).sum(), list(leaves.values()))
    tensors = {f"input.{name}": leaf.detach() for name, leaf in leaves.items()}
    tensors |= {f"grad.input.{name}": g for name, g in zip(leaves, grads, strict=True)}
    tensors["grad.input.weight"] = tensors["grad.input.weight"] + grad_shift
    tensors |= {"input.cotangent": cotangent, "output.out": out.detach() + output_shift}
    tolerance = {"output": 1e-8, "grad": 1e-8}, {"output": 1e-5, "grad": 1e-4}
    metadata = {
        "entry": entry,
        "kind": "op",
        "call": json.dumps({"activation": "silu", "width": 4}),
        "cotangents": json.dumps({"cotangent": "out"}),
        "tolerance": json.dumps(dict(zip(("float64", "float32"), tolerance, strict=True))),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in tensors.items()}, path, metadata)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    golden = tmp_path / "golden"
    write_convolution(golden / "a" / "right.safetensors")
    write_convolution(golden / "a" / "wrong_output.safetensors", output_shift=1e-6)
    write_convolution(golden / "b" / "wrong_grad.safetensors", grad_shift=1e-3)
    write_convolution(golden / "b" / "unknown.safetensors", entry="ops.not_yet")
    return golden


def rows(folder: Path, *arguments: str) -> tuple[int, dict[str, dict]]:
    report = folder.parent / "report.json"
    status = run.main(["--golden", str(folder), "--json", str(report), *arguments])
    return status, {row["file"]: row for row in json.loads(report.read_text())}


def test_each_file_gets_its_verdict(folder, capsys):
    status, results = rows(folder)
    assert status == 1
    assert {file: row["status"] for file, row in results.items()} == {
        "a/right.safetensors": "PASS",
        "a/wrong_output.safetensors": "FAIL",
        "b/wrong_grad.safetensors": "FAIL",
        "b/unknown.safetensors": "UNSUPPORTED",
    }
    for row in results.values():
        assert row.keys() == {"file", "status", "output_error", "grad_error", "reason"}
    assert results["a/right.safetensors"]["grad_error"] < 1e-12
    assert 1e-8 < results["a/wrong_output.safetensors"]["output_error"] < 1e-5
    assert "grad.input.weight" in results["b/wrong_grad.safetensors"]["reason"]
    assert "ops.not_yet" in results["b/unknown.safetensors"]["reason"]
    assert results["b/unknown.safetensors"]["output_error"] is None
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "1 passed, 2 failed, 1 unsupported"
    assert sum(line.startswith("PASS  a/right") for line in lines) == 1


def test_exit_status_asks_only_for_what_the_index_demands(folder):
    assert rows(folder, "--only", "*right*")[0] == 0
    assert rows(folder, "--only", "*unknown*")[0] == 0
    assert rows(folder, "--only", "a/*")[0] == 1
    wrong = [{"file": f"{name}.safetensors"} for name in ("a/wrong_output", "b/wrong_grad")]
    (folder / "index.json").write_text(json.dumps([row | {"scope": "stretch"} for row in wrong]))
    assert rows(folder)[0] == 0
    (folder / "index.json").write_text(json.dumps([row | {"scope": "must"} for row in wrong]))
    assert rows(folder)[0] == 1


def test_float32_has_its_own_tolerance(folder):
    status, results = rows(folder, "--dtype", "float32", "--only", "a/*")
    assert status == 0
    assert results["a/right.safetensors"]["output_error"] > 1e-9  # it did run in float32


def test_damaged_file_fails_and_the_others_still_run(folder):
    (folder / "a" / "damaged.safetensors").write_bytes(b"\x00" * 40)
    _, results = rows(folder)
    assert results["a/damaged.safetensors"]["status"] == "FAIL"
    assert results["a/right.safetensors"]["status"] == "PASS"


def test_layouts_are_no_results_and_tables_are_named(folder):
    (folder / "layouts").mkdir()
    (folder / "layouts" / "big.json").write_text(json.dumps({"keys": {"w": [[2], "F32"]}}))
    (folder / "tokens.json").write_text(json.dumps({"vocab": {}}))
    _, results = rows(folder)
    assert "layouts/big.json" not in results
    assert results["tokens.json"]["status"] == "UNSUPPORTED"


def test_refuses_what_is_not_there(folder, tmp_path, capsys):
    for arguments in (["--golden", str(tmp_path / "no")], ["--golden", str(folder), "--only", "z"]):
        with pytest.raises(SystemExit) as stop:
            run.main(arguments)
        assert stop.value.code == 2
    assert "no folder" in capsys.readouterr().err


def test_runs_as_a_program_from_anywhere(folder, tmp_path):
    program = Path(run.__file__)
    command = [sys.executable, str(program), "--golden", str(folder), "--only", "a/right*"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("1 passed, 0 failed, 0 unsupported\n")


def test_complex_tensors_are_read_and_weighed_as_pairs(tmp_path):
    path = tmp_path / "complex.safetensors"
    pairs = torch.tensor([[3.0, 4.0], [0.0, 1.0]], dtype=torch.float64)
    metadata = {
        "entry": "ops.any",
        "kind": "op",
        "tolerance": "{}",
        "complex": json.dumps(["output.y"]),
        "cotangents": json.dumps({"cotangent": "y"}),
    }
    save_file({"output.y": pairs, "input.cotangent": pairs.clone()}, path, metadata)
    golden = load(path)
    y = golden.tensors["output.y"]
    assert torch.equal(y, torch.complex(pairs[:, 0], pairs[:, 1]))
    assert golden.inputs() == {}
    assert weighted_sum(golden, {"y": y}).item() == 3 * 3 + 4 * 4 + 1
    assert relative_errors({"y": y + 1j}, {"y": y})["y"] == pytest.approx(1 / 5)


def test_errors_are_relative_to_each_tensor_with_a_floor():
    golden = {"large": torch.tensor([1e4]), "small": torch.tensor([1e-3])}
    got = {"large": torch.tensor([1e4]), "small": torch.tensor([2e-3])}
    assert relative_errors(got, golden)["small"] == pytest.approx(1)
    assert relative_errors(got, golden, floor=1e-4)["small"] == pytest.approx(1e-3)
    assert relative_errors({"zero": torch.tensor([1e-3])}, {"zero": torch.zeros(1)})[
        "zero"
    ] == pytest.approx(1e-3)
    assert too_far({"a": 1e-3, "b": 2.0}, 1.0).startswith("b is off by 2.0e+00")
    assert not too_far({"a": 1e-3, "b": 1.0}, 1.0)


@pytest.mark.parametrize(
    ("got", "golden", "said"),
    [
        ({}, {"y": torch.ones(2)}, "no y"),
        ({"y": torch.ones(3)}, {"y": torch.ones(2)}, r"\(3,\), golden \(2,\)"),
        ({"y": torch.tensor([1.0, torch.nan])}, {"y": torch.ones(2)}, "not finite"),
        ({"y": torch.tensor([1, 3])}, {"y": torch.tensor([1, 2])}, "integers must be equal"),
        ({"y": torch.ones(2)}, {"y": torch.ones(2, dtype=torch.complex64)}, "complex"),
    ],
)
def test_what_cannot_be_compared_is_named(got, golden, said):
    with pytest.raises(Mismatch, match=said):
        relative_errors(got, golden)


def test_infinities_and_nans_that_agree_are_equal():
    values = torch.tensor([1.0, torch.inf, torch.nan])
    assert relative_errors({"y": values.double()}, {"y": values})["y"] == 0


def test_tied_parameters_share_one_tensor():
    shared = torch.randn(3)
    state = {"a": shared, "b": shared.clone(), "c": torch.randn(3)}
    tied = _shared(state, {"state.a": torch.ones(3), "state.c": torch.ones(3)})
    assert tied["b"] is tied["a"] is state["a"]
    assert tied["c"] is state["c"]


def test_parameters_left_at_random_are_refused():
    module = nn.Linear(2, 2)
    _check_filled(module, {"weight": torch.ones(2, 2), "bias": torch.ones(2)})
    with pytest.raises(Mismatch, match="bias"):
        _check_filled(module, {"weight": torch.ones(2, 2)})
    with pytest.raises(Mismatch, match="scale"):
        _check_filled(
            module, {"weight": torch.ones(2, 2), "bias": torch.ones(2), "scale": torch.ones(1)}
        )
