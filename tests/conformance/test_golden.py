"""Every golden file whose original has a counterpart here, when the golden vectors are at hand."""

import os
from pathlib import Path

import pytest
import torch

from tests.conformance.execute import check
from tests.conformance.run import golden_files
from tristate.kernels.backend import available_backends

FOLDER = Path(os.environ.get("TRISTATE_GOLDEN", Path(__file__).parents[3] / "shared" / "golden"))


@pytest.mark.skipif(not FOLDER.is_dir(), reason="no golden vectors; set TRISTATE_GOLDEN to theirs")
@pytest.mark.parametrize(
    ("backend", "dtype"), [("reference", torch.float64), ("cpu", torch.float32)]
)
def test_equals_the_originals(backend, dtype):
    if backend not in available_backends():
        pytest.skip(f"the {backend} backend can't run here")
    results = [
        check(path, path.relative_to(FOLDER).as_posix(), backend, dtype)
        for path in golden_files(FOLDER)
    ]
    failed = [f"{r.file}: {r.reason}" for r in results if r.status == "FAIL"]
    assert not failed, "\n".join(failed)
    assert any(r.status == "PASS" for r in results)
