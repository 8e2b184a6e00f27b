"""Laws of the sums over states, in float64, and what their border refuses."""

import pytest
import torch

from tests.kernels.time_invariant import coefficients, states
from tristate.kernels.ssm_kernel import cauchy, vandermonde, vandermonde_transpose

DIM, N = 3, 5


def parameters(*rows: int, seed: int = 0):
    return coefficients(*rows, DIM, N, seed=seed).cdouble(), states(DIM, N, seed).cdouble()


def test_a_kernel_is_the_impulse_response_of_its_recurrence():
    c, z = parameters(2)
    h = torch.ones(DIM, N, dtype=torch.complex128)
    response = []
    for _ in range(20):
        response.append(2 * (c * h).sum(2).real)
        h = torch.exp(z) * h
    torch.testing.assert_close(vandermonde(c, z, 20), torch.stack(response, 2))


def test_pairs_are_a_full_set_with_its_conjugates():
    c, z = parameters()
    full = torch.cat([c, c.conj()], 1), torch.cat([z, z.conj()], 1)
    torch.testing.assert_close(vandermonde(full[0] / 2, full[1], 9), vandermonde(c, z, 9))


def test_real_states_stand_for_themselves():
    c, z = (x.real for x in parameters(2))
    powers = torch.exp(z)[:, :, None] ** torch.arange(7)
    torch.testing.assert_close(vandermonde(c, z, 7), torch.einsum("rdn,dnl->rdl", c, powers))
    # As complex ones they are pairs.
    torch.testing.assert_close(vandermonde(c, z.cdouble(), 7), 2 * vandermonde(c, z, 7))
    x = torch.randn(2, DIM, 7, dtype=torch.float64)
    pairs = vandermonde_transpose(x, z.cdouble())
    torch.testing.assert_close(vandermonde_transpose(x, z), pairs.real)
    assert not pairs.imag.any()


@pytest.mark.parametrize("cut", (1, 7, 19))
def test_the_state_carries(cut):
    """Convolution with the kernel, a piece at a time, with the state handed over."""
    c, z = parameters()
    x = torch.randn(2, DIM, 20, dtype=torch.float64)
    kernel = vandermonde(c, z, 20)

    def outputs(x):
        return torch.stack(
            [(x[..., : t + 1] * kernel[:, : t + 1].flip(1)).sum(2) for t in range(x.shape[2])], 2
        )

    def state(x, before):
        return torch.exp(z * x.shape[2]) * before + vandermonde_transpose(x.flip(2), z)

    head, tail = x[..., :cut], x[..., cut:]
    handed = state(head, torch.zeros(2, DIM, N))
    from_before = vandermonde(c * handed * torch.exp(z), z, 20 - cut)
    torch.testing.assert_close(outputs(tail) + from_before, outputs(x)[..., cut:])
    torch.testing.assert_close(state(tail, handed), state(x, torch.zeros(2, DIM, N)))


def test_the_transpose_is_the_adjoint():
    c, z = parameters(2)
    x = torch.randn(2, DIM, 11, dtype=torch.float64)
    there = (vandermonde(c, z, 11) * x).sum()
    torch.testing.assert_close(2 * (c * vandermonde_transpose(x, z)).sum().real, there)


def test_simple_fractions_are_the_transform_of_a_kernel():
    """The generating function of a kernel of any length is a sum of simple fractions."""
    c, z = parameters(2)
    unit = torch.exp(1j * torch.linspace(0, 3, 8, dtype=torch.float64))  # where it is evaluated
    kernel = vandermonde(c, z, 20_000)
    sums = torch.einsum("rdl,lk->rdk", kernel.cdouble(), unit ** torch.arange(20_000)[:, None])
    # sum_l c (e^z u)^l = c / (1 - e^z u) = (c / u) / (1 / u - e^z)
    torch.testing.assert_close(cauchy(c, 1 / unit, torch.exp(z)) / unit, sums)


@pytest.mark.parametrize("rows", ((), (2,), (2, 3)))
def test_axes_in_front_are_rows(rows):
    c, z = parameters(*rows)
    nodes = 1j * torch.linspace(0, 3, 4, dtype=torch.float64)
    x = torch.randn(*rows, DIM, 6, dtype=torch.float64)
    whole = vandermonde(c, z, 6), vandermonde_transpose(x, z), cauchy(c, nodes, z)
    for i, index in enumerate(torch.cartesian_prod(*map(torch.arange, rows)) if rows else [[]]):
        at = tuple(int(j) for j in index) if len(rows) != 1 else (i,)
        torch.testing.assert_close(whole[0][at], vandermonde(c[at], z, 6))
        torch.testing.assert_close(whole[1][at], vandermonde_transpose(x[at], z))
        torch.testing.assert_close(whole[2][at], cauchy(c[at], nodes, z))


def test_gradients_and_their_gradients():
    c, z = (x.requires_grad_() for x in parameters(2))
    x = torch.randn(2, DIM, 4, dtype=torch.float64, requires_grad=True)
    nodes = 1j * torch.linspace(0, 3, 4, dtype=torch.float64)
    for op, inputs in (
        (lambda c, z: vandermonde(c, z, 4), (c, z)),
        (vandermonde_transpose, (x, z)),
        (lambda c, z: cauchy(c, nodes, z), (c, z)),
    ):
        assert torch.autograd.gradcheck(op, inputs)
        assert torch.autograd.gradgradcheck(op, inputs)


@pytest.mark.parametrize(
    ("op", "change", "said"),
    [
        (vandermonde, {"exponent": torch.ones(5)}, r"exponent must be \(D, N\), got \(5,\)"),
        (vandermonde, {"coefficient": torch.ones(3, 4)}, r"coefficient must be .*\(3, 5\)"),
        (vandermonde, {"length": -1}, "must not be negative, got -1"),
        (vandermonde, {"backend": "cuda"}, "unknown backend 'cuda'"),
        (vandermonde_transpose, {"x": torch.ones(3, 4).cfloat()}, "x must be real"),
        (vandermonde_transpose, {"x": torch.ones(4, 2)}, r"got \(4, 2\) and \(3, 5\)"),
        (cauchy, {"coefficient": torch.ones(3, 5)}, "coefficient must be complex"),
        (cauchy, {"poles": torch.ones(3, 4).cfloat()}, r"coefficient must be .*\(3, 4\)"),
        (cauchy, {"nodes": torch.ones(2, 2).cfloat()}, r"nodes must be \(L,\)"),
        (cauchy, {"nodes": torch.ones(2).cfloat().requires_grad_()}, "nodes are constants"),
    ],
)
def test_refuses_what_cannot_be(op, change, said):
    pair = torch.ones(3, 5, dtype=torch.complex64)
    arguments = {
        vandermonde: {"coefficient": pair, "exponent": pair, "length": 4},
        vandermonde_transpose: {"x": torch.ones(3, 4), "exponent": pair},
        cauchy: {"coefficient": pair, "nodes": pair[0], "poles": pair},
    }[op]
    with pytest.raises(ValueError, match=said):
        op(**{**arguments, **change})
