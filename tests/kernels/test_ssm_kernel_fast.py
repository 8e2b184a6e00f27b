"""Every fast backend of the sums over states against the float64 reference."""

from functools import partial

import pytest
import torch
import torch.utils.checkpoint
from torch import nn

from tests.kernels.laws import GRADIENT_TOLERANCE, LENGTHS, assert_near, error
from tests.kernels.time_invariant import coefficients, exact, grads, second, states
from tristate.kernels.backend import available_backends
from tristate.kernels.ssm_kernel import cauchy, ops, vandermonde, vandermonde_transpose
from tristate.recipes.bench.measure import peak_bytes

pytestmark = pytest.mark.skipif(
    "cpu" not in available_backends(), reason="this processor has no fused multiply-add vectors"
)
# Odd; fewer than a vector's lanes and more; rows more than the blocks that go together.
SIZES = {"small": (3, 5, 2), "many states": (2, 37, 1), "one": (1, 1, 1), "many rows": (2, 4, 7)}


def problems(size: str, length: int):
    """Each op with its inputs and the cotangent of its output."""
    dim, n_states, n_rows = SIZES[size]
    z = states(dim, n_states, length)
    c = coefficients(n_rows, dim, n_states, seed=length)
    generator = torch.Generator().manual_seed(length)
    x = torch.randn(n_rows, dim, length, generator=generator)
    nodes = 1j * torch.linspace(0, 9, length)
    return {
        "vandermonde": (
            partial(vandermonde, length=length), {"coefficient": c, "exponent": z}, x,
        ),
        "transpose": (vandermonde_transpose, {"x": x, "exponent": z}, c),
        "cauchy": (
            lambda nodes=nodes, **inputs: cauchy(
                nodes=nodes.to(inputs["poles"].dtype), **inputs
            ),
            {"coefficient": c, "poles": z},
            coefficients(n_rows, dim, length, seed=length + 1),
        ),
    }  # fmt: skip


NAMES = ("vandermonde", "transpose", "cauchy")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("length", LENGTHS)
def test_equals_the_reference(length, size, name):
    op, inputs, cotangent = problems(size, length)[name]
    wanted = grads(partial(op, backend="reference"), exact(inputs), cotangent)
    assert_near(grads(partial(op, backend="cpu"), inputs, cotangent), wanted)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_gradients(name):
    op, inputs, cotangent = problems("small", 9)[name]
    wanted = second(partial(op, backend="reference"), exact(inputs), cotangent)
    got = second(partial(op, backend="cpu"), inputs, cotangent)
    for key, value in wanted.items():
        assert error(got[key], value) < GRADIENT_TOLERANCE, key


def test_real_states_are_summed_as_real_ones():
    c, z = coefficients(2, 3, 5, seed=0).real, states(3, 5, 0).real
    x = torch.randn(2, 3, 65)
    for op, inputs, cotangent in (
        (partial(vandermonde, length=65), {"coefficient": c, "exponent": z}, x),
        (vandermonde_transpose, {"x": x, "exponent": z}, c),
    ):
        wanted = grads(partial(op, backend="reference"), exact(inputs), cotangent)
        assert_near(grads(partial(op, backend="cpu"), inputs, cotangent), wanted)


def test_phases_stay_exact_over_a_million_steps():
    """A plain product of phase and position would be wrong by whole turns."""
    z = torch.complex(torch.tensor([[-1e-7, -1e-6, 0.0]]), torch.tensor([[3.1, 1.2345, 0.777]]))
    c, length = coefficients(1, 1, 3, seed=0), 10**6
    got = vandermonde(c, z, length, backend="cpu")
    x = torch.zeros(1, 1, length)
    x[..., -1] = 1
    last = torch.exp(z.cdouble() * (length - 1))
    wanted = 2 * (c * torch.exp(z.cdouble()[..., None] * torch.arange(length)).mT).sum(2).real
    assert error(got, wanted[:, None].reshape(got.shape)) < 3e-6
    assert error(
        torch.view_as_real(vandermonde_transpose(x, z, backend="cpu")[0]), torch.view_as_real(last)
    ) < 3e-6  # fmt: skip


@pytest.mark.parametrize("rate", (-1e30, -200.0, -1e-30, 0.0))
def test_extreme_rates_give_numbers(rate):
    z = torch.full((2, 3), complex(rate, 1.0))
    c = torch.ones(1, 2, 3, dtype=torch.complex64)
    inputs = {"coefficient": c, "exponent": z}
    cotangent = torch.ones(1, 2, 300)
    found = grads(partial(vandermonde, length=300, backend="cpu"), inputs, cotangent)
    assert all(value.isfinite().all() for value in found.values())
    if rate == -1e30:
        assert not found["out"][..., 1:].any()


def test_strides_do_not_matter():
    z = states(3, 5, 1)
    x = torch.randn(2, 70, 6).transpose(1, 2)[:, ::2]
    c = coefficients(5, 3, 2, seed=1).permute(2, 1, 0).conj()
    torch.testing.assert_close(
        vandermonde_transpose(x, z, backend="cpu"),
        vandermonde_transpose(x.contiguous(), z, backend="cpu"),
    )
    for op in (
        partial(vandermonde, exponent=z, length=9),
        partial(cauchy, nodes=1j * torch.linspace(0, 3, 9), poles=z),
    ):
        torch.testing.assert_close(
            op(c, backend="cpu"), op(c.resolve_conj().contiguous(), backend="cpu")
        )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("threads", (1, 2))
def test_the_number_of_threads_changes_nothing(threads, name, monkeypatch):
    monkeypatch.setattr("tristate.kernels.ssm_kernel.cpu.SMALL", 0)
    op, inputs, cotangent = problems("small", 65)[name]
    wanted = grads(partial(op, backend="reference"), exact(inputs), cotangent)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert_near(grads(partial(op, backend="cpu"), inputs, cotangent), wanted)
    finally:
        torch.set_num_threads(before)


def test_memory_is_that_of_inputs_and_outputs():
    dim, n_states, length = 16, 64, 1 << 16
    inputs = {
        "coefficient": coefficients(1, dim, n_states, seed=0), "exponent": states(dim, n_states, 0),
    }  # fmt: skip
    cotangent = torch.randn(1, dim, length)
    op = partial(vandermonde, length=length, backend="cpu")
    grads(op, inputs, cotangent)
    held = peak_bytes(lambda: grads(op, inputs, cotangent))
    if held is None:
        pytest.skip("this system does not count a process's peak")
    # One term for each channel, state and position would take 512 MB.
    assert held < 8 * cotangent.nbytes


@pytest.mark.parametrize("gradient", (False, True))
# opcheck itself looks at the .grad of tensors that are no leaves.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_are_well_behaved_ops(gradient):
    c, z = (coefficients(*shape, seed=3) for shape in ((2, 3, 5), (3, 5)))
    z = torch.complex(-z.real.abs(), z.imag)
    x, nodes = torch.randn(2, 3, 7), 1j * torch.linspace(0, 3, 7)
    for tensor in (c, z, x):
        tensor.requires_grad_(gradient)
    torch.library.opcheck(ops.vandermonde, (c, z, 7))
    torch.library.opcheck(ops.moments, (x, z))
    torch.library.opcheck(ops.cauchy, (c, nodes, z))
    torch.library.opcheck(ops.cauchy_backward, (coefficients(2, 3, 7, seed=4), c, nodes, z))


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.c = nn.Parameter(coefficients(4, 3, seed=0))
        self.z = nn.Parameter(states(4, 3, 0))

    def forward(self, x):  # (B, D, L)
        nodes = 1j * torch.linspace(0, 3, x.shape[2])
        y = x * vandermonde(self.c, self.z, x.shape[2]) + cauchy(self.c, nodes, self.z).imag
        return y, torch.view_as_real(vandermonde_transpose(x.flip(2), self.z))


def test_compiles_whole_with_gradients():
    layer, x = Layer(), torch.randn(2, 4, 11)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for length in (11, 6):
        torch.testing.assert_close(compiled(x[..., :length]), layer(x[..., :length]))
    found = [
        torch.autograd.grad(f(x)[0].square().sum(), list(layer.parameters()))
        for f in (layer, compiled)
    ]
    torch.testing.assert_close(*found)


def test_checkpointing_and_autocast_run_through():
    layer, x = Layer(), torch.randn(2, 4, 11, requires_grad=True)
    plain = torch.autograd.grad(layer(x)[0].square().sum(), layer.c)
    again = torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=False)
    torch.testing.assert_close(torch.autograd.grad(again[0].square().sum(), layer.c), plain)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out, state = layer(x)
    assert out.dtype == state.dtype == torch.float32
