"""A model leaves Python whole: compiled, exported, and as ONNX in another runtime."""

import pytest
import torch

import tristate
from tristate.kernels.export import decompositions


@pytest.fixture
def model():
    torch.manual_seed(0)
    return tristate.create_model("vim_micro_patch4_28", n_layers=2).eval()


@pytest.fixture
def image():
    return torch.randn(2, 3, 28, 28)


@pytest.mark.slow
def test_compiles_without_a_graph_break(model, image):
    compiled = torch.compile(model, fullgraph=True)
    torch.testing.assert_close(compiled(image), model(image), rtol=1e-5, atol=1e-5)


def test_exports(model, image, tmp_path):
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model, (image,), dynamic_shapes=({0: batch},))
    torch.export.save(program, tmp_path / "vim.pt2")
    again = torch.export.load(tmp_path / "vim.pt2").module()
    for n in (2, 5):
        other = torch.randn(n, 3, 28, 28)
        torch.testing.assert_close(again(other), model(other), rtol=1e-5, atol=1e-5)


def test_runs_as_onnx(model, tmp_path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    image = torch.randn(1, 3, 28, 28)
    program = torch.export.export(model, (image,)).run_decompositions(decompositions())
    torch.onnx.export(program, f=str(tmp_path / "vim.onnx"), dynamo=True)
    session = runtime.InferenceSession(tmp_path / "vim.onnx", providers=["CPUExecutionProvider"])
    (name,) = [i.name for i in session.get_inputs()]
    (logits,) = session.run(None, {name: image.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), model(image), rtol=1e-4, atol=1e-4)
