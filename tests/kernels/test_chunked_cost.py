"""What the docstrings of the chunked scans' Triton kernels say that they move, counted."""

import pytest
import torch

from tests.kernels.delta import problem as delta_problem
from tests.kernels.ssd import problem as ssd_problem
from tests.kernels.traffic import counted
from tests.kernels.triton import DEVICE
from tristate.kernels.delta import triton as delta
from tristate.kernels.ssd import triton as ssd
from tristate.kernels.triton.interpreter import interprets

pytestmark = pytest.mark.skipif(
    not interprets() or DEVICE.type != "cpu", reason="what is counted is what the interpreter does"
)

FLAGS = (True, 0.0, float("inf"), False)


def size(*tensors):
    return sum(x.numel() * x.element_size() for x in tensors if x is not None)


def ssd_inputs(gate):
    """A head a group: each has its own B and C."""
    absent = () if gate else ("z",)
    sizes = {"heads": 2, "groups": 2, "width": 32, "n_states": 16}
    tensors, cotangents = ssd_problem(128, batch=1, absent=absent, **sizes)
    return (*tensors.values(), None), cotangents["out"]


@pytest.mark.parametrize(("gate", "stated"), [(False, 1.125), (True, 1.083)])
def test_ssd_scan_forward(gate, stated):
    inputs, _ = ssd_inputs(gate)
    x, dt, A, B, C, D, z, bias, initial, _ = inputs
    with counted() as traffic:
        out, last, _, _ = ssd.forward(*inputs, *FLAGS, False)
    # The state stays in the second cache: read once, and written over by each of two tiles.
    once = size(A, D, initial, last, last)
    assert traffic.read + traffic.written - once == size(x, dt, B, C, z, out)
    with counted() as traffic:
        out, _, _, kept = ssd.forward(*inputs, *FLAGS, True)
    moved = traffic.read + traffic.written - once - size(dt, B, C)
    assert moved == size(x, z, out, kept)
    assert moved / size(x, z, out) == pytest.approx(stated, abs=0.01)


@pytest.mark.parametrize("gate", (False, True))
def test_ssd_scan_backward(gate):
    inputs, grad = ssd_inputs(gate)
    x, dt, A, B, C, D, z, bias, initial, _ = inputs
    _, _, y, kept = ssd.forward(*inputs, *FLAGS, True)
    with counted() as traffic:
        dx, ddt, dA, dB, dC, dD, dz, dbias, dinitial = ssd.backward(
            grad, None, *inputs, y, kept, *FLAGS
        )
    slopes = kept
    # The gradient of the state is written over by each of four tiles, as the state is forward.
    written = size(dx, ddt, dA, dB, dC, dD, slopes) + 4 * size(dinitial)
    assert traffic.written == written + (size(dz) if gate else 0)
    heads = size(x, dt, grad, z, A, B, C, D, kept, dinitial)
    weights = size(x, dt, grad, z, B, C, kept, slopes)
    assert traffic.read - heads - weights == 2 * size(A)  # once a tile
    if not gate:
        least = size(x, grad, dx)
        moved = size(x, grad, dx, kept, slopes) + size(x, grad, kept, slopes)
        assert moved / least == pytest.approx(2.0, abs=0.01)


def delta_inputs():
    sizes = {"d_key": 32, "d_value": 32, "heads": 1, "batch": 1}
    tensors, cotangents = delta_problem(128, **sizes)
    return (*tensors.values(), None), cotangents["out"]


def test_gated_delta_rule_forward():
    inputs, _ = delta_inputs()
    q, k, v, beta, g, initial, _ = inputs
    with counted() as traffic:
        out, last, _ = delta.forward(*inputs, 1.0, False, False)
    once = size(initial, last)
    assert traffic.read + traffic.written - once == size(q, k, v, beta, g, out)
    with counted() as traffic:
        out, _, kept = delta.forward(*inputs, 1.0, False, True)
    moved = traffic.read + traffic.written - once
    assert moved == size(q, k, v, beta, g, out, kept)
    assert moved / size(q, k, v, beta, g, out) == pytest.approx(1.125, abs=0.01)


def test_gated_delta_rule_backward():
    inputs, grad = delta_inputs()
    q, k, v, beta, g, initial, _ = inputs
    kept = delta.forward(*inputs, 1.0, False, True)[2]
    with counted() as traffic:
        dq, dk, dv, dbeta, dg, dinitial = delta.backward(grad, None, *inputs, kept, 1.0, False)
    # The errors stay in the second cache: they are read of memory that is written over and over.
    part = 64
    errors = torch.empty(part, 32)
    assert traffic.written - size(dinitial) == size(dq, dk, dv, dbeta, dg) + 2 * size(errors)
    assert traffic.read == size(q, k, v, beta, g, grad, kept, errors)
    least = size(q, k, v, beta, g, grad, dq, dk, dv, dbeta, dg)
    moved = traffic.read + traffic.written - size(dinitial) - 3 * size(errors)
    assert moved / least == pytest.approx(1.07, abs=0.01)
