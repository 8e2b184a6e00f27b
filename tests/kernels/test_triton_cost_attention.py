"""What the kernels of attention and of sums over states say that they move, counted."""

import numpy as np
import pytest
import torch

from tests.kernels.attention import problem as attention_problem
from tests.kernels.delta import problem as delta_problem
from tests.kernels.time_invariant import coefficients, states
from tests.kernels.traffic import counted, size
from tests.kernels.triton import DEVICE
from tests.kernels.wkv import problem as wkv_problem
from tristate.kernels.attention import triton as attention
from tristate.kernels.delta import triton as delta
from tristate.kernels.rwkv import triton as rwkv
from tristate.kernels.ssm_kernel import triton as sums
from tristate.kernels.triton.interpreter import interprets

pytestmark = pytest.mark.skipif(
    not interprets() or DEVICE.type != "cpu", reason="what is counted is what the interpreter does"
)


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


def attention_work(length, gate, rank_one, width=16):
    """What forward and backward move and multiply; and the least bytes there are."""
    sizes = {"batch": 1, "heads": 1, "d_key": width, "d_value": width}
    tensors, cotangents = attention_problem(length, **sizes, gate=gate, rank_one=rank_one)
    names = ("q", "k", "v", "g", "a", "b", "initial_state")
    *inputs, state = (tensors[name] for name in names)
    how = None, 1.0, False, False
    with counted() as forward:
        out, _, kept = attention.forward(*inputs, state, *how, True)
    with counted() as backward:
        grad = cotangents["out"]
        *grads, _ = attention.backward(grad, None, *inputs, state, None, kept, *how[1:])
    return np.array(
        [
            [moved(forward), forward.operations, size(*inputs, out)],
            [moved(backward), backward.operations, size(*inputs, grad, *grads)],
        ]
    )


def delta_work(length, gate, d_value, d_key=16):
    """What forward and backward move and multiply; and the least bytes there are."""
    sizes = {"batch": 1, "heads": 1, "d_key": d_key, "d_value": d_value}
    tensors, cotangents = delta_problem(length, **sizes, gate=gate)
    names = ("q", "k", "v", "beta", "g", "initial_state")
    *inputs, state = (tensors[name] for name in names)
    with counted() as forward:
        out, _, kept = delta.forward(*inputs, state, None, 1.0, False, True)
    with counted() as backward:
        grad = cotangents["out"]
        *grads, _ = delta.backward(grad, None, *inputs, state, None, kept, 1.0, False)
    return np.array(
        [
            [moved(forward), forward.operations, size(*inputs, out)],
            [moved(backward), backward.operations, size(*inputs, grad, *grads)],
        ]
    )


def growth(count, *how):
    """How many times the least there is is moved for a longer sequence, forward and backward.

    States that come and go and a program's own memory are there once, whatever the length.
    """
    more, _, least = (count(96, *how) - count(32, *how)).T
    return more / least


def operations(count, *how):
    """Of a token and value channel, of 32, forward and backward, behind the first tokens."""
    return (count(128, *how) - count(64, *how))[:, 1] / 64 / 32


@pytest.mark.parametrize(
    ("gate", "rank_one", "stated"),
    [("", False, (1.13, 1.07)), ("key", False, (1.10, 1.06)), ("key", True, (1.07, 1.04))],
)
def test_linear_attention(gate, rank_one, stated):
    assert growth(attention_work, gate, rank_one) == pytest.approx(stated, abs=0.01)


@pytest.mark.parametrize(
    # Forward, keys and queries count for each of the two blocks of 64 values that read them.
    ("gate", "d_value", "stated"),
    [("head", 16, (1.12, 1.07)), ("key", 16, (1.10, 1.06)), ("head", 64, (1.41, 1.12))],
)
def test_gated_delta_rule(gate, d_value, stated):
    assert growth(delta_work, gate, d_value) == pytest.approx(stated, abs=0.01)


@pytest.mark.parametrize(
    ("gate", "rank_one", "stated"),
    [
        ("head", False, (4 * 32 + 4 * 16, 10 * 32 + 10 * 16)),
        ("key", False, (4 * 32 + 4 * 16, 10 * 32 + 12 * 16)),
        ("head", True, (8 * 32 + 16 * 16 + 16 * 8, 26 * 32 + 48 * 16 + 36 * 8)),
    ],
)
def test_operations_of_linear_attention(gate, rank_one, stated):
    assert operations(attention_work, gate, rank_one, 32) == pytest.approx(stated)


@pytest.mark.parametrize(
    ("gate", "stated"),
    [
        ("head", (6 * 32 + 8 * 16 + 12 * 8, 18 * 32 + 26 * 16 + 24 * 8)),
        ("key", (6 * 32 + 10 * 16 + 12 * 8, 18 * 32 + 28 * 16 + 24 * 8)),
    ],
)
def test_operations_of_gated_delta_rule(gate, stated):
    assert operations(delta_work, gate, 32, 32) == pytest.approx(stated)
