"""``tristate bench models``: what is timed computes the same as what it is compared with."""

import json

import pytest
import torch

from tristate.core.mixers import MIXERS
from tristate.kernels.backend import available_backends
from tristate.recipes import bench
from tristate.recipes.bench import models
from tristate.recipes.bench.pairs import FAMILIES
from tristate.recipes.usage import UsageError

pytestmark = pytest.mark.skipif(
    "cpu" not in available_backends(), reason="this processor has no fused multiply-add vectors"
)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(models, "PROMPTS", (9,))


@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_computes_the_same(family):
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    prompt, step = models.cases([f"transformers.{family}"], quick=True)
    for case in (prompt, step):
        (peer,) = case.peers.values()
        with torch.no_grad():
            got, wanted = case.ours(**case.inputs), peer(**case.inputs)
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["h3", "lru", "attention"])
def test_a_step_goes_on_from_the_prompt(name, monkeypatch):
    monkeypatch.setattr(models, "D_MODEL", 8)
    prompt, step = models.cases([name], quick=True)
    assert prompt.shape["L"] == step.shape["seen"] == 9 and "L" not in step.shape
    with torch.no_grad():
        assert prompt.ours(**prompt.inputs).shape == (1, 9, 8)
        assert step.ours(**step.inputs).shape == (1, 8)
    assert prompt.floor is not None and prompt.floor()
    # The floor of a step reads the weights and the state.
    weights = sum(x.numel() for k, x in prompt.inputs.items() if k != "x")
    assert step.input_bytes > 4 * weights


def test_json_and_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(models, "D_MODEL", 8)
    file = tmp_path / "rows.json"
    words = ["models", "--only", "lru", "--quick", "--threads", "1", "--json", str(file)]
    assert bench.main(words) == 0
    prompt, step = json.loads(file.read_text())
    assert prompt["ms"] > 0 and step["floor_ms"] > 0 and step["direction"] == "forward"
    out = capsys.readouterr().out
    assert "tokens/s" in out and " us" in out


def test_every_mixer_and_family_is_offered():
    assert {*MIXERS, *(f"transformers.{name}" for name in FAMILIES)} == set(models.names())


def test_what_has_no_state_or_no_name_is_told():
    with pytest.raises(UsageError, match="bimamba is not causal"):
        list(models.cases(["bimamba"], quick=True))
    with pytest.raises(UsageError, match="mamba2"):
        list(models.cases(["mamba_2"], quick=True))


def test_transformers_is_asked_for_only_where_it_is_named(monkeypatch):
    monkeypatch.setattr(models, "find_spec", lambda name: None)
    monkeypatch.setattr(models, "MIXERS", {})
    assert list(models.cases([], quick=True)) == []
    with pytest.raises(UsageError, match="isn't installed"):
        list(models.cases(["transformers.Mamba"], quick=True))
