"""The selective scan leaves the package: in PyTorch's own operators, and as ONNX."""

import pytest
import torch
from torch import nn

from tests.kernels.laws import error
from tristate.kernels.export import decompositions
from tristate.kernels.selective import selective_scan


class Layer(nn.Module):
    """A scan with everything, ``(B, L, 8)`` to ``(B, L, 8)`` and the last state."""

    def __init__(self, *, reverse: bool, packed: bool = False) -> None:
        super().__init__()
        self.A, self.D = nn.Parameter(-torch.rand(8, 4)), nn.Parameter(torch.randn(8))
        self.weights = nn.Linear(8, 8)
        self.constant = nn.Parameter(torch.randn(8, 4))
        self.reverse, self.packed = reverse, packed

    def forward(self, x):
        B, C = self.weights(x).transpose(1, 2).chunk(2, 1)
        u = x.transpose(1, 2)
        seq_idx = (x[:, :, 0].cumsum(1) // 2).int() if self.packed else None
        return selective_scan(
            u,
            u - 1,
            self.A,
            B,
            self.constant if self.packed else C,
            self.D,
            u,
            self.D,
            True,
            True,
            seq_idx=seq_idx,
            reverse=self.reverse,
        )


def exported(model: nn.Module) -> torch.export.ExportedProgram:
    length = torch.export.Dim("length", min=2, max=1000)
    x = torch.randn(2, 11, 8)
    program = torch.export.export(model.eval(), (x,), dynamic_shapes=({1: length},))
    return program.run_decompositions(decompositions())


@pytest.mark.parametrize("packed", (False, True))
@pytest.mark.parametrize("reverse", (False, True))
def test_nothing_of_ours_is_left_in_the_program(reverse, packed):
    model, longer = Layer(reverse=reverse, packed=packed), torch.randn(2, 70, 8)
    program = exported(model)
    targets = {str(node.target) for node in program.graph.nodes}
    assert not [target for target in targets if "tristate" in target]
    for got, wanted in zip(program.module()(longer), model(longer), strict=True):
        assert error(got, wanted) < 1e-5


@pytest.mark.parametrize("reverse", (False, True))
# PyTorch's exporter and the libraries behind it warn of their own affairs.
@pytest.mark.filterwarnings("ignore")
def test_onnxruntime_computes_the_same_at_another_length(reverse):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    model, longer = Layer(reverse=reverse), torch.randn(2, 70, 8)
    onnx = torch.onnx.export(exported(model), dynamo=True, verbose=False)
    assert onnx is not None
    scans = [node for node in onnx.model_proto.graph.node if node.op_type == "Scan"]
    assert len(scans) == 1
    session = onnxruntime.InferenceSession(onnx.model_proto.SerializeToString())
    results = session.run(None, {session.get_inputs()[0].name: longer.numpy()})
    with torch.no_grad():
        wanted = model(longer)
    for got, exact in zip(results, wanted, strict=True):
        assert error(torch.from_numpy(got), exact) < 1e-5
