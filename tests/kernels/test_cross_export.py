"""Scans along several routes leave the package: in PyTorch's own operators, and as ONNX."""

import pytest
import torch
from torch import nn

from tests.kernels.laws import error
from tristate.kernels.cross import bidirectional_selective_scan, selective_scan_2d
from tristate.kernels.export import decompositions


class Sequence(nn.Module):
    """Both directions of ``(B, L, 8)``, of any length."""

    dynamic = {1: torch.export.Dim("length", min=2, max=1000)}

    def __init__(self) -> None:
        super().__init__()
        self.A = nn.Parameter(-torch.rand(8, 4))
        self.weights = nn.Linear(8, 8)

    def forward(self, x):
        u = x.transpose(1, 2)
        B, C = self.weights(x).transpose(1, 2).chunk(2, 1)
        A = (self.A, 2 * self.A)
        return bidirectional_selective_scan(u, (u - 1, u - 2), A, B, C, z=u, delta_softplus=True)


class Map(nn.Module):
    """The four routes of a map ``(B, 8, 3, 4)``."""

    dynamic = None

    def __init__(self) -> None:
        super().__init__()
        self.A = nn.Parameter(-torch.rand(4, 8, 2))
        self.weights = nn.Conv2d(8, 16, 1)

    def forward(self, x):
        B, C = self.weights(x).unflatten(1, (4, 4)).chunk(2, 2)
        return selective_scan_2d(x, x[:, None].expand(-1, 4, -1, -1, -1), self.A, B, C)


INPUTS = {Sequence: (torch.randn(2, 11, 8), torch.randn(2, 70, 8)), Map: (torch.rand(2, 8, 3, 4),)}


def exported(model):
    x = INPUTS[type(model)][0]
    shapes = None if model.dynamic is None else (model.dynamic,)
    program = torch.export.export(model.eval(), (x,), dynamic_shapes=shapes)
    return program.run_decompositions(decompositions())


@pytest.mark.parametrize("kind", (Sequence, Map))
def test_nothing_of_ours_is_left_in_the_program(kind):
    model = kind()
    program = exported(model)
    targets = {str(node.target) for node in program.graph.nodes}
    assert not [target for target in targets if "tristate" in target]
    x = INPUTS[kind][-1]
    assert error(program.module()(x), model(x)) < 1e-5


# PyTorch's exporter and the libraries behind it warn of their own affairs.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "n_scans"), ((Sequence, 2), pytest.param(Map, 4, marks=pytest.mark.slow))
)
def test_onnxruntime_computes_the_same(kind, n_scans):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    model, x = kind(), INPUTS[kind][-1]
    onnx = torch.onnx.export(exported(model), dynamo=True, verbose=False)
    assert onnx is not None
    scans = [node for node in onnx.model_proto.graph.node if node.op_type == "Scan"]
    assert len(scans) == n_scans
    session = onnxruntime.InferenceSession(onnx.model_proto.SerializeToString())
    (result,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        assert error(torch.from_numpy(result), model(x)) < 1e-5
