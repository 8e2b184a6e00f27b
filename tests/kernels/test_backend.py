"""Which backend is chosen, and in which words one that can't run is refused."""

from types import SimpleNamespace

import pytest
import torch

from tristate.kernels import backend
from tristate.kernels.backend import choose, use_backend

OFFERED = ("reference", "cpu", "triton")


def on(device, dtype=torch.float32):
    return SimpleNamespace(device=torch.device(device), dtype=dtype)


@pytest.fixture
def without_triton(monkeypatch):
    monkeypatch.setattr(backend, "_TRITON_IS_HERE", False)


def test_a_gpu_takes_triton_where_it_is(monkeypatch):
    monkeypatch.setattr(backend, "_TRITON_IS_HERE", True)
    for device in ("cuda", "xpu"):
        assert choose("op", on(device), "auto", OFFERED) == "triton"
        assert choose("op", on(device), "auto", ("reference", "cpu")) == "reference"
        assert choose("op", on(device, torch.float64), "auto", OFFERED) == "reference"


@pytest.mark.usefixtures("without_triton")
def test_without_triton_a_gpu_is_left_to_pytorch_in_so_many_words():
    with pytest.warns(UserWarning, match="left to PyTorch's operators.*triton isn't installed"):
        assert choose("op", on("cuda"), "auto", OFFERED) == "reference"
    # Nothing to tell where there was no choice.
    assert choose("op", on("cuda", torch.float64), "auto", OFFERED) == "reference"
    assert not backend.takes_triton(on("cuda"))


@pytest.mark.usefixtures("without_triton")
def test_triton_by_name_says_what_is_missing():
    for call in (
        lambda: choose("op", on("cuda"), "triton", OFFERED),
        use_backend("triton").__enter__,
    ):
        with pytest.raises(ValueError, match="the package triton isn't installed; here: reference"):
            call()


def test_triton_by_name_without_a_gpu(monkeypatch):
    monkeypatch.setattr(backend, "_TRITON_IS_HERE", True)
    monkeypatch.setattr(backend, "interprets", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.xpu, "is_available", lambda: False)
    with pytest.raises(ValueError, match="there is no GPU"):
        choose("op", on("cpu"), "triton", OFFERED)


def test_a_device_that_nothing_is_made_for(monkeypatch):
    monkeypatch.setattr(backend, "available_backends", lambda: OFFERED)
    assert choose("op", on("mps"), "auto", OFFERED) == "reference"
    with pytest.raises(ValueError, match="takes GPU tensors, got one on mps"):
        choose("op", on("mps"), "triton", OFFERED)


def test_a_misspelt_backend_is_named():
    for call in (lambda: choose("op", on("cpu"), "tritn", OFFERED), use_backend("tritn").__enter__):
        with pytest.raises(ValueError, match="did you mean triton"):
            call()
