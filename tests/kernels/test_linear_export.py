"""The linear scan leaves the package: in PyTorch's own operators, and as ONNX."""

import pytest
import torch
from torch import nn

from tests.kernels.laws import error
from tristate.kernels.export import decompositions
from tristate.kernels.linear import linear_scan


class Layer(nn.Module):
    """A scan, real inside or complex, ``(B, L, 8)`` to ``(B, L, 4)`` and the last state."""

    def __init__(self, *, complex_: bool, constant: bool, reverse: bool, packed: bool) -> None:
        super().__init__()
        self.decay = nn.Parameter(torch.rand(8))
        self.complex, self.constant, self.reverse, self.packed = complex_, constant, reverse, packed

    def forward(self, x):
        b, a = x, self.decay if self.constant else x.sigmoid()
        if self.complex:
            a, b = (torch.view_as_complex(y.unflatten(-1, (4, 2)) * 0.7) for y in (a, b))
        seq_idx = (x[:, :, 0].cumsum(1) // 2).int() if self.packed else None
        h, last = linear_scan(a, b, seq_idx=seq_idx, reverse=self.reverse)
        return tuple(torch.view_as_real(y) if self.complex else y for y in (h, last))


def exported(model: nn.Module) -> torch.export.ExportedProgram:
    length = torch.export.Dim("length", min=2, max=1000)
    x = torch.randn(2, 11, 8)
    program = torch.export.export(model.eval(), (x,), dynamic_shapes=({1: length},))
    return program.run_decompositions(decompositions())


@pytest.mark.parametrize("complex_", (False, True))
@pytest.mark.parametrize("constant", (False, True))
@pytest.mark.parametrize("packed", (False, True))
def test_nothing_of_ours_is_left_in_the_program(complex_, constant, packed):
    model = Layer(complex_=complex_, constant=constant, reverse=packed, packed=packed)
    longer, program = torch.randn(2, 70, 8), exported(model)
    targets = {str(node.target) for node in program.graph.nodes}
    assert not [target for target in targets if "tristate" in target]
    for got, wanted in zip(program.module()(longer), model(longer), strict=True):
        assert error(got, wanted) < 1e-5


@pytest.mark.parametrize("complex_", (False, True))
# PyTorch's exporter and the libraries behind it warn of their own affairs.
@pytest.mark.filterwarnings("ignore")
def test_onnxruntime_computes_the_same_at_another_length(complex_):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    model = Layer(complex_=complex_, constant=complex_, reverse=True, packed=False)
    longer = torch.randn(2, 70, 8)
    onnx = torch.onnx.export(exported(model), dynamo=True, verbose=False)
    assert onnx is not None
    session = onnxruntime.InferenceSession(onnx.model_proto.SerializeToString())
    results = session.run(None, {session.get_inputs()[0].name: longer.numpy()})
    with torch.no_grad():
        wanted = model(longer)
    for got, exact in zip(results, wanted, strict=True):
        assert error(torch.from_numpy(got), exact) < 1e-5
