"""The Triton kernels of the sums over states against the float64 reference."""

from functools import partial

import pytest
import torch

from tests.kernels.laws import assert_near, error
from tests.kernels.time_invariant import coefficients, exact, grads, states
from tests.kernels.triton import DEVICE, no_triton
from tristate.kernels.ssm_kernel import cauchy, ops, vandermonde, vandermonde_transpose

pytestmark = no_triton

# More states than a block, more rows than go together, one of all.
SIZES = {"small": (3, 5, 2), "many states": (2, 37, 1), "one": (1, 1, 1), "many rows": (2, 4, 7)}


def problems(size: str, length: int):
    """Each op with its inputs and the cotangent of its output."""
    dim, n_states, n_rows = SIZES[size]
    z = states(dim, n_states, length)
    c = coefficients(n_rows, dim, n_states, seed=length)
    x = torch.randn(n_rows, dim, length)
    nodes = 1j * torch.linspace(0, 9, length)

    def sums(coefficient, poles, **options):
        return cauchy(coefficient, nodes.to(poles), poles, **options)

    powers = partial(vandermonde, length=length)
    lines = coefficients(n_rows, dim, length, seed=length + 1)
    return {
        "vandermonde": (powers, {"coefficient": c, "exponent": z}, x),
        "transpose": (vandermonde_transpose, {"x": x, "exponent": z}, c),
        "cauchy": (sums, {"coefficient": c, "poles": z}, lines),
    }


def agree(op, inputs, cotangent):
    wanted = grads(partial(op, backend="reference"), exact(inputs), cotangent)
    here = {name: x.to(DEVICE) for name, x in inputs.items()}
    got = grads(partial(op, backend="triton"), here, cotangent.to(DEVICE))
    assert_near({name: x.cpu() for name, x in got.items()}, wanted)


@pytest.mark.parametrize("name", ("vandermonde", "transpose", "cauchy"))
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("length", (1, 65, 500))
def test_equals_the_reference(length, size, name):
    agree(*problems(size, length)[name])


def test_long_rows_are_shared_out():
    for op, inputs, cotangent in problems("one", 2100).values():
        agree(op, inputs, cotangent)


def test_real_states_are_summed_as_real_ones():
    c, z = coefficients(2, 3, 5, seed=0).real, states(3, 5, 0).real
    x = torch.randn(2, 3, 65)
    agree(partial(vandermonde, length=65), {"coefficient": c, "exponent": z}, x)
    agree(vandermonde_transpose, {"x": x, "exponent": z}, c)


def test_strides_do_not_matter():
    z, x = states(3, 5, 1), torch.randn(2, 70, 6).transpose(1, 2)[:, ::2]
    c = coefficients(5, 3, 2, seed=1).permute(2, 1, 0).conj()
    agree(vandermonde_transpose, {"x": x, "exponent": z}, coefficients(2, 3, 5, seed=2))
    agree(partial(vandermonde, length=9), {"coefficient": c, "exponent": z}, torch.randn(2, 3, 9))


def test_phases_stay_exact_over_many_steps():
    """A plain product of phase and position would be wrong by whole turns."""
    z = torch.complex(torch.tensor([[-1e-7, -1e-6, 0.0]]), torch.tensor([[3.1, -1.2345, 0.777]]))
    c, length = coefficients(1, 1, 3, seed=0), 50_000
    got = vandermonde(c.to(DEVICE), z.to(DEVICE), length, backend="triton").cpu()
    wanted = 2 * (c * torch.exp(z.cdouble()[..., None] * torch.arange(length)).mT).sum(2).real
    assert error(got, wanted[:, None].reshape(got.shape)) < 3e-6
    x = torch.zeros(1, 1, length)
    x[..., -1] = 1
    got = vandermonde_transpose(x.to(DEVICE), z.to(DEVICE), backend="triton").cpu()
    last = torch.exp(z.cdouble() * (length - 1))
    assert error(torch.view_as_real(got[0]), torch.view_as_real(last)) < 3e-6


@pytest.mark.parametrize("rate", (-1e30, -200.0, -1e-30, 0.0))
def test_extreme_rates_give_numbers(rate):
    z = torch.full((2, 3), complex(rate, torch.pi), device=DEVICE)
    inputs = {"coefficient": torch.ones(1, 2, 3, dtype=z.dtype, device=DEVICE), "exponent": z}
    cotangent = torch.ones(1, 2, 300, device=DEVICE)
    found = grads(partial(vandermonde, length=300, backend="triton"), inputs, cotangent)
    assert all(value.isfinite().all() for value in found.values())
    if rate == -1e30:
        assert not found["out"][..., 1:].any()


def test_gradients_of_gradients_stay_on_the_device():
    z = states(2, 3, 0).to(DEVICE).requires_grad_()
    c = coefficients(1, 2, 3, seed=0).to(DEVICE)
    out = vandermonde(c, z, 9, backend="triton")
    (first,) = torch.autograd.grad(out.sum(), z, create_graph=True)
    (second,) = torch.autograd.grad(first.abs().square().sum(), z)
    leaf = z.detach().cpu().cdouble().requires_grad_()
    out = vandermonde(c.cpu().cdouble(), leaf, 9, backend="reference")
    (first,) = torch.autograd.grad(out.sum(), leaf, create_graph=True)
    (wanted,) = torch.autograd.grad(first.abs().square().sum(), leaf)
    assert error(torch.view_as_real(second.cpu()), torch.view_as_real(wanted)) < 2e-5


# opcheck itself looks at the .grad of tensors that are no leaves.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_are_well_behaved_ops():
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    z = states(2, 3, 0).to(DEVICE).requires_grad_()
    c = coefficients(1, 2, 3, seed=0).to(DEVICE).requires_grad_()
    x = torch.randn(1, 2, 9, device=DEVICE, requires_grad=True)
    nodes = 1j * torch.linspace(0, 9, 9, device=DEVICE)
    grad = coefficients(1, 2, 9, seed=1).to(DEVICE).requires_grad_()
    for op, inputs in (
        (ops.triton_vandermonde, (c, z, 9)),
        (ops.triton_moments, (x, z)),
        (ops.triton_cauchy, (c, nodes, z)),
        (ops.triton_cauchy_backward, (grad, c, nodes, z)),
    ):
        torch.library.opcheck(op, inputs, test_utils=checks)
