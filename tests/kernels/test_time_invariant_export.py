"""What time-invariant layers are made of leaves the package, in PyTorch's own operators."""

import pytest
import torch
from torch import Tensor, nn

from tests.kernels.laws import error
from tristate.kernels.longconv import long_conv, two_sided
from tristate.kernels.longconv.export import decompositions as conv_decompositions
from tristate.kernels.ssm_kernel import cauchy, vandermonde, vandermonde_transpose
from tristate.kernels.ssm_kernel.export import decompositions as kernel_decompositions


class Diagonal(nn.Module):
    """A two-sided diagonal model of any length, and its state; ``(B, L, 6)`` to the same."""

    def __init__(self) -> None:
        super().__init__()
        self.c = nn.Parameter(torch.randn(2, 6, 4, dtype=torch.complex64))
        self.rate = nn.Parameter(torch.rand(6, 4))
        self.turn = nn.Parameter(torch.randn(6, 4))
        self.D = nn.Parameter(torch.randn(6))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        length = x.shape[1]
        z = torch.complex(-self.rate, self.turn)
        k = vandermonde(self.c, z, length)
        x = x.transpose(1, 2)
        y = long_conv(x, two_sided(k[0], k[1]), self.D, origin=length)
        return y.transpose(1, 2), torch.view_as_real(vandermonde_transpose(x.flip(2), z))


class Rational(nn.Module):
    """A kernel made of simple fractions, on an image; ``(B, 6, H, W)`` to the same."""

    def __init__(self) -> None:
        super().__init__()
        self.v = nn.Parameter(torch.randn(6, 4, dtype=torch.complex64))
        self.w = nn.Parameter(torch.complex(-torch.rand(6, 4), torch.randn(6, 4)))
        self.nodes = nn.Buffer(1j * torch.linspace(0, 3, 5))

    def forward(self, x: Tensor) -> Tensor:
        k = cauchy(self.v, self.nodes, self.w)
        return long_conv(x, k.real[:, :, None] * k.imag[:, None], origin=2)


def models():
    length = torch.export.Dim("length", min=4, max=100)
    height = torch.export.Dim("height", min=6, max=100)
    return {
        "diagonal": (Diagonal(), torch.randn(2, 11, 6), torch.randn(2, 29, 6), {1: length}),
        "rational": (
            Rational(), torch.randn(2, 6, 7, 9), torch.randn(2, 6, 12, 9), {2: height},
        ),
    }  # fmt: skip


def exported(model, x, dynamic):
    program = torch.export.export(model.eval(), (x,), dynamic_shapes=(dynamic,))
    table = {**conv_decompositions(), **kernel_decompositions()}
    return program.run_decompositions({**torch.export.default_decompositions(), **table})


@pytest.mark.parametrize("name", ("diagonal", "rational"))
def test_nothing_of_ours_is_left_in_the_program(name):
    model, x, longer, dynamic = models()[name]
    program = exported(model, x, dynamic)
    targets = {str(node.target) for node in program.graph.nodes}
    assert not [target for target in targets if "tristate" in target]
    torch.testing.assert_close(program.module()(longer), model(longer), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ("diagonal", "rational"))
# PyTorch's exporter and the libraries behind it warn of their own affairs.
@pytest.mark.filterwarnings("ignore")
def test_onnxruntime_computes_the_same(name):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    model, x, longer, dynamic = models()[name]
    onnx = torch.onnx.export(exported(model, x, dynamic), dynamo=True, verbose=False)
    assert onnx is not None
    session = onnxruntime.InferenceSession(onnx.model_proto.SerializeToString())
    results = session.run(None, {session.get_inputs()[0].name: longer.numpy()})
    with torch.no_grad():
        wanted = model(longer)
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    for got, exact in zip(results, wanted, strict=True):
        assert error(torch.from_numpy(got), exact) < 1e-5
