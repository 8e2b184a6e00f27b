"""The gated delta rule leaves the package: in PyTorch's own operators, and as ONNX."""

import pytest
import torch
from torch import nn
from torch.nn.functional import logsigmoid, normalize

from tests.kernels.laws import error
from tristate.kernels.delta import gated_delta_rule
from tristate.kernels.export import decompositions


class Layer(nn.Module):
    """A rule, or a product of two, ``(B, L, 8)`` to ``(B, L, 2, 4)`` and the last state."""

    def __init__(self, *, n: int, by_channel: bool, reverse: bool, packed: bool) -> None:
        super().__init__()
        self.keys = nn.Linear(8, 8 * n)
        self.n, self.by_channel, self.reverse, self.packed = n, by_channel, reverse, packed

    def forward(self, x):
        q = x.unflatten(2, (2, 4))
        keys = self.keys(x).unflatten(2, (self.n, 2, 4)).flatten(1, 2)
        seq_idx = (x[:, :, 0].cumsum(1) // 2).int() if self.packed else None
        return gated_delta_rule(
            q,
            normalize(keys, dim=3),
            keys,
            beta=(keys if self.by_channel else keys[..., 0]).sigmoid(),
            g=logsigmoid(q if self.by_channel else q[..., 0]),
            seq_idx=seq_idx,
            reverse=self.reverse,
        )


def exported(model: nn.Module) -> torch.export.ExportedProgram:
    length = torch.export.Dim("length", min=2, max=1000)
    x = torch.randn(2, 11, 8)
    program = torch.export.export(model.eval(), (x,), dynamic_shapes=({1: length},))
    return program.run_decompositions(decompositions())


@pytest.mark.parametrize("packed", (False, True))
@pytest.mark.parametrize("n", (1, 2))
def test_nothing_of_ours_is_left_in_the_program(n, packed):
    model = Layer(n=n, by_channel=packed, reverse=packed, packed=packed)
    longer, program = torch.randn(2, 70, 8), exported(model)
    targets = {str(node.target) for node in program.graph.nodes}
    assert not [target for target in targets if "tristate" in target]
    for got, wanted in zip(program.module()(longer), model(longer), strict=True):
        assert error(got, wanted) < 1e-5


# PyTorch's exporter and the libraries behind it warn of their own affairs.
@pytest.mark.filterwarnings("ignore")
def test_onnxruntime_computes_the_same_at_another_length():
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    model = Layer(n=2, by_channel=False, reverse=True, packed=False)
    longer = torch.randn(2, 70, 8)
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
