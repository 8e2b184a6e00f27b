"""What the kernels of attention and of sums over states say that they move, counted."""

import pytest
import torch

from tests.kernels.attention import problem as attention_problem
from tests.kernels.time_invariant import coefficients, states
from tests.kernels.traffic import counted
from tests.kernels.triton import DEVICE
from tests.kernels.wkv import problem as wkv_problem
from tristate.kernels.attention import triton as attention
from tristate.kernels.rwkv import triton as rwkv
from tristate.kernels.ssm_kernel import triton as sums
from tristate.kernels.triton.interpreter import interprets

pytestmark = pytest.mark.skipif(
    not interprets() or DEVICE.type != "cpu", reason="what is counted is what the interpreter does"
)


def size(*tensors):
    return sum(x.numel() * x.element_size() for x in tensors if x is not None)


def moved(traffic, *once):
    """Bytes, but for those of tensors that don't grow with the sequence."""
    return traffic.read + traffic.written - size(*once)


def test_vandermonde():
    z, length = states(1, 32, 0), 2048
    with counted() as traffic:
        out = sums.vandermonde(coefficients(1, 1, 32, seed=0), z, length)
    assert moved(traffic) / size(out) == pytest.approx(1.08, abs=0.01)
    with counted() as traffic:
        found = sums.moments(out, z)
    # One chunk's sums are added up.
    assert (moved(traffic) + size(*found)) / size(out) == pytest.approx(1.17, abs=0.01)


def test_cauchy():
    poles, v = states(8, 32, 0), coefficients(1, 8, 32, seed=0)
    nodes = 1j * torch.linspace(0, 9, 1024)
    with counted() as traffic:
        out = sums.cauchy(v, nodes, poles)
    assert moved(traffic) / size(out) == pytest.approx(1.19, abs=0.01)
    with counted() as traffic:
        grads = sums.cauchy_backward(out, v, nodes, poles)
    assert (moved(traffic) + 2 * size(grads[0])) / size(out) == pytest.approx(1.28, abs=0.01)


def test_wkv():
    tensors, cotangents = wkv_problem(128, dim=32, batch=1)
    k, v, w, u, state = tensors.values()
    with counted() as traffic:
        out, last, kept = rwkv.forward(k, v, w, u, state, None, False, True)
    least = size(k, v, out)
    assert moved(traffic, w, u, state, last) / least == pytest.approx(1.02, abs=0.01)
    with counted() as traffic:
        grad = cotangents["out"]
        dk, dv, *_, dstate = rwkv.backward(grad, None, k, v, w, u, state, None, last, kept, False)
    least = size(k, v, grad, dk, dv)
    assert moved(traffic, w, u, w, u, dstate) / least == pytest.approx(1.01, abs=0.01)


@pytest.mark.parametrize(
    ("gate", "rank_one", "forwards", "back"),
    # With rank one, what each token found lies in memory of the program's own meanwhile.
    [("", False, 1.13, 1.07), ("key", False, 1.10, 1.06), ("key", True, 1.07, 1.16)],
)
def test_linear_attention(gate, rank_one, forwards, back):
    sizes = {"batch": 1, "heads": 1, "d_key": 16, "d_value": 16}
    tensors, cotangents = attention_problem(64, **sizes, gate=gate, rank_one=rank_one)
    names = ("q", "k", "v", "g", "a", "b", "initial_state")
    *inputs, state = (tensors[name] for name in names)
    how = None, 1.0, False, False
    with counted() as traffic:
        out, last, kept = attention.forward(*inputs, state, *how, True)
    least = size(*inputs, out)
    assert moved(traffic, state, last) / least == pytest.approx(forwards, abs=0.01)
    with counted() as traffic:
        grad = cotangents["out"]
        *grads, dstate = attention.backward(grad, None, *inputs, state, None, kept, *how[1:])
    least = size(*inputs, grad, *grads)
    assert moved(traffic, dstate) / least == pytest.approx(back, abs=0.01)
