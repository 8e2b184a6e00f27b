"""What ``tristate doctor`` says of a machine that is well, and of one that isn't."""

import json

import pytest
import torch

from tristate.kernels import OPS, causal_conv1d
from tristate.recipes import doctor
from tristate.recipes.doctor import cases, plans


@pytest.fixture
def few(monkeypatch):
    """Two quick ops."""
    names = ("causal_conv1d", "causal_conv1d_update")
    monkeypatch.setattr(doctor, "CASES", {name: cases.CASES[name] for name in names})


@pytest.mark.usefixtures("few")
def test_a_machine_that_is_well(tmp_path, capsys):
    path = tmp_path / "rows.json"
    assert doctor.main(["--json", str(path)]) == 0
    rows = json.loads(path.read_text())
    assert {row["op"] for row in rows} == {"causal_conv1d", "causal_conv1d_update"}
    for row in rows:
        assert row["output_error"] < 1e-5 and row["ms"] > 0 and not row["reason"]
    told = capsys.readouterr().out
    assert torch.__version__.partition("+")[0] in told
    assert f"{len(rows)} of {len(rows)} are right" in told


def test_what_is_wrong_is_told(monkeypatch, capsys):
    op, tensors, options = cases.causal_conv1d()
    broken = lambda x, **inputs: tuple(  # noqa: E731
        y + (y.dtype == torch.float32) * 1e-3 for y in causal_conv1d(x, **inputs)
    )
    monkeypatch.setattr(doctor, "CASES", {"causal_conv1d": lambda: (broken, tensors, options)})
    assert doctor.main([]) == 1
    assert "causal_conv1d is wrong on cpu" in capsys.readouterr().out


def test_every_op_has_a_problem():
    checked = {name.partition(",")[0] for name in cases.CASES}
    # Plain functions of PyTorch, and the transpose that another's gradient runs.
    others = {"cross_merge", "cross_scan", "two_sided", "vandermonde_transpose"}
    assert checked == set(OPS) - others
    assert all(callable(problem) for problem in cases.CASES.values())


def test_plans_that_were_chosen_are_told(monkeypatch):
    gpu = torch.device("cuda", 0)
    told = {"op": "linear_scan", "device": "a GPU", "sizes": "float32, up to 4 x 64 x 256"}
    times = {"plans": ["32 x 64, 8 warps", "32 x 32, 4 warps", "32 x 32, 8 warps"]}
    choice = told | times | {"kind": "", "ms": [0.5, 0.25, None], "chosen": 1}
    monkeypatch.setattr(plans, "available_backends", lambda: ("reference", "triton"))
    monkeypatch.setattr(plans, "choices", lambda device: iter([choice]))
    (line,) = plans.lines([gpu])
    assert line == (
        "cuda:0: linear_scan (float32, up to 4 x 64 x 256) by 32 x 32, 4 warps: 0.250 ms "
        "(not 32 x 64, 8 warps: 0.500 ms; 32 x 32, 8 warps: does not fit)"
    )
    monkeypatch.setattr(plans, "choices", lambda device: iter([]))
    assert "by their default" in next(plans.lines([gpu]))
    assert "no GPU" in next(plans.lines([]))
