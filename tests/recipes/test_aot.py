"""What ``tristate aot`` writes, and that no kernel spills registers or wants too much memory."""

import json
from importlib.util import find_spec

import pytest

from tristate.core.errors import UserError
from tristate.kernels.triton.cases import CASES
from tristate.kernels.triton.targets import TARGETS
from tristate.recipes import aot
from tristate.recipes.cli import main
from tristate.recipes.usage import UsageError

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="Triton isn't here")


def compiled(folder, *words):
    path = folder / "rows.json"
    status = main(["aot", "--json", str(path), *words])
    return status, json.loads(path.read_text())


def test_a_sample_fits(tmp_path, capsys):
    words = ["--target", "cuda:90", "--target", "hip:gfx942", "--only", "gated_rms_norm"]
    status, rows = compiled(tmp_path, *words)
    assert status == 0
    assert {row["target"] for row in rows} == {"cuda:90", "hip:gfx942"}
    names = {"kernel", "config", "target", "registers", "spill_bytes", "shared_bytes"}
    for row in rows:
        assert row.keys() == names and row["registers"] > 0
        assert aot.fits(row), row
    assert "gated_rms_norm.gated_backward" in capsys.readouterr().out


@pytest.mark.slow
def test_every_kernel_fits_every_gpu(tmp_path):
    status, rows = compiled(tmp_path)
    bad = [row for row in rows if not aot.fits(row)]
    assert not bad and status == 0
    assert {row["target"] for row in rows} == TARGETS.keys()
    assert {row["kernel"].partition(".")[0] for row in rows} == CASES.keys()


def test_a_page_for_the_docs():
    sizes = {"config": "", "registers": 40, "spill_bytes": 0, "shared_bytes": 1024}
    rows = [
        {"kernel": "op.forward", "target": "cuda:80"} | sizes,
        {"kernel": "op.forward", "target": "cuda:80"} | sizes | {"registers": 96},
        {"kernel": "op.forward", "target": "hip:gfx942"} | sizes | {"spill_bytes": 8},
        {"kernel": "op.backward", "target": "cuda:80"} | sizes,
    ]
    page = aot.markdown(rows).splitlines()
    assert "| `op.forward` | 2 | 96 / 0 / 1 | 40 / 8 / 1 |" in page
    assert "| `op.backward` | 1 | 40 / 0 / 1 |  |" in page
    assert "NVIDIA A100" in "".join(page) and "4 compiled, 1 of them" in page[-1]


def test_without_triton_there_is_nothing_to_compile_with(monkeypatch):
    monkeypatch.setattr(aot, "is_installed", lambda: False)
    with pytest.raises(UserError, match="triton isn't installed"):
        aot.main([])


def test_what_does_not_fit_is_told():
    row = {"target": "hip:gfx942", "spill_bytes": 0, "shared_bytes": 64 << 10}
    assert aot.fits(row)
    assert not aot.fits(row | {"spill_bytes": 4})
    assert not aot.fits(row | {"shared_bytes": (64 << 10) + 1})


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--target", "cuda:91"], "did you mean cuda:90"),
        (["--only", "selectiv_scan"], "did you mean selective_scan"),
    ],
)
def test_refuses_unknown_names(words, sentence):
    with pytest.raises(UsageError, match=sentence):
        aot.main(words)
