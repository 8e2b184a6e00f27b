"""Mamba-2's scan leaves the package: in PyTorch's own operators, and as ONNX."""

import pytest
import torch
from torch import nn

from tests.kernels.laws import error
from tristate.kernels.export import decompositions
from tristate.kernels.ssd import ssd_scan


class Layer(nn.Module):
    """A scan with everything, ``(B, L, 8)`` to ``(B, L, 4, 2)`` and the last states."""

    def __init__(self, *, reverse: bool, packed: bool = False) -> None:
        super().__init__()
        self.A, self.D = nn.Parameter(-torch.rand(4)), nn.Parameter(torch.randn(4, 2))
        self.weights = nn.Linear(8, 12)
        self.reverse, self.packed = reverse, packed

    def forward(self, x):
        B, C = self.weights(x).unflatten(2, (2, 2, 3)).unbind(2)
        values = x.unflatten(2, (4, 2))
        return ssd_scan(
            values,
            values[..., 0] - 1,
            self.A,
            B,
            C,
            D=self.D,
            z=values,
            dt_bias=self.A,
            dt_softplus=True,
            dt_limit=(0.01, 2.0),
            seq_idx=(x[:, :, 0].cumsum(1) // 2).int() if self.packed else None,
            return_final_states=True,
            reverse=self.reverse,
        )


def exported(model: nn.Module) -> torch.export.ExportedProgram:
    length = torch.export.Dim("length", min=2, max=1000)
    x = torch.randn(2, 11, 8)
    program = torch.export.export(model.eval(), (x,), dynamic_shapes=({1: length},))
    return program.run_decompositions(decompositions())


@pytest.mark.parametrize("packed", (False, True))
def test_nothing_of_ours_is_left_in_the_program(packed):
    model, longer = Layer(reverse=packed, packed=packed), torch.randn(2, 70, 8)
    program = exported(model)
    targets = {str(node.target) for node in program.graph.nodes}
    assert not [target for target in targets if "tristate" in target]
    for got, wanted in zip(program.module()(longer), model(longer), strict=True):
        assert error(got, wanted) < 1e-5


# PyTorch's exporter and the libraries behind it warn of their own affairs.
@pytest.mark.filterwarnings("ignore")
def test_onnxruntime_computes_the_same_at_another_length():
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    model, longer = Layer(reverse=True), torch.randn(2, 70, 8)
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
