"""The convolution and the norms leave the package: in PyTorch's own operators, and as ONNX."""

import pytest
import torch
from torch import nn

from tests.kernels.laws import error
from tristate.kernels import conv, norm
from tristate.kernels.conv.export import decompositions as conv_decompositions
from tristate.kernels.norm.export import decompositions as norm_decompositions


class Block(nn.Module):
    """Every op both ways, ``(B, L, 8)`` to ``(B, L, 8)`` and a state."""

    def __init__(self, *, reverse: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 4))
        self.scale = nn.Parameter(torch.rand(8))
        self.reverse = reverse

    def forward(self, x):
        y, _ = norm.add_norm(x, self.scale, rms=False)
        y, state = conv.causal_conv1d(
            y.transpose(1, 2),
            self.weight,
            self.scale,
            activation="silu",
            return_final_states=True,
            reverse=self.reverse,
        )
        y, x = norm.add_norm(y.transpose(1, 2), self.scale, residual=x)
        return norm.gated_rms_norm(y, self.scale, x), state


def exported(model: nn.Module, x: torch.Tensor) -> torch.export.ExportedProgram:
    length = torch.export.Dim("length", min=4, max=100)
    program = torch.export.export(model.eval(), (x,), dynamic_shapes=({1: length},))
    table = {**conv_decompositions(), **norm_decompositions()}
    return program.run_decompositions({**torch.export.default_decompositions(), **table})


@pytest.mark.parametrize("reverse", (False, True))
def test_nothing_of_ours_is_left_in_the_program(reverse):
    model, longer = Block(reverse=reverse), torch.randn(2, 29, 8)
    program = exported(model, torch.randn(2, 11, 8))
    targets = {str(node.target) for node in program.graph.nodes}
    assert not [target for target in targets if "tristate" in target]
    torch.testing.assert_close(program.module()(longer), model(longer))


@pytest.mark.parametrize("reverse", (False, True))
# PyTorch's exporter and the libraries behind it warn of their own affairs.
@pytest.mark.filterwarnings("ignore")
def test_onnxruntime_computes_the_same(reverse):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    model, longer = Block(reverse=reverse), torch.randn(2, 29, 8)
    onnx = torch.onnx.export(exported(model, torch.randn(2, 11, 8)), dynamo=True, verbose=False)
    assert onnx is not None
    session = onnxruntime.InferenceSession(onnx.model_proto.SerializeToString())
    results = session.run(None, {session.get_inputs()[0].name: longer.numpy()})
    with torch.no_grad():
        wanted = model(longer)
    for got, exact in zip(results, wanted, strict=True):
        assert error(torch.from_numpy(got), exact) < 1e-5
