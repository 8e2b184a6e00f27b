"""What the docstrings of the Triton kernels say that they move, counted."""

import pytest
import torch

from tests.kernels.conv import problem as conv_problem
from tests.kernels.linear import problem as linear_problem
from tests.kernels.selective import problem as selective_problem
from tests.kernels.traffic import counted, size
from tests.kernels.triton import DEVICE
from tristate.kernels.conv import triton as conv
from tristate.kernels.linear import triton as linear
from tristate.kernels.norm import triton as norm
from tristate.kernels.selective import triton as selective
from tristate.kernels.triton.interpreter import interprets

pytestmark = pytest.mark.skipif(
    not interprets() or DEVICE.type != "cpu", reason="what is counted is what the interpreter does"
)


def selective_inputs(dim, dtype=torch.float32):
    sizes = {"dim": dim, "n_states": 16, "batch": 1}
    tensors, cotangents = selective_problem(64, layout="channel-last", **sizes)
    for name in ("u", "delta", "z", "B", "C"):
        tensors[name] = tensors[name].to(dtype)
    inputs = (*tensors.values(), None, True, False)
    return inputs, cotangents["out"].to(dtype)


@pytest.mark.parametrize(("keep", "stated"), [(False, 1.13), (True, 1.25)])
def test_selective_scan_forward(keep, stated):
    inputs, _ = selective_inputs(64)
    with counted() as traffic:
        out, last, kept = selective.forward(*inputs, keep)
    u, delta, A, _, _, D, z, bias, initial, *_ = inputs
    least = size(u, delta, z, out)
    once = size(A, D, bias, initial, last)  # whatever the length
    ratio = (traffic.read + traffic.written - once) / least
    assert ratio == pytest.approx(stated, abs=0.01)
    assert traffic.written == size(out, last, kept)


@pytest.mark.parametrize(("dtype", "dim"), [(torch.float32, 64), (torch.bfloat16, 128)])
def test_selective_scan_backward(dtype, dim):
    inputs, grad = selective_inputs(dim, dtype)
    kept = selective.forward(*inputs, True)[2]
    with counted() as traffic:
        grads = selective.backward(grad, None, *inputs[:10], kept, *inputs[10:])
    u, delta, A, B, _, D, z, bias, *_ = inputs
    du, ddelta, dA, _, _, dD, dz, dbias, dinitial = grads
    least = size(u, delta, z, grad, du, ddelta, dz)
    once = size(A, D, bias, dA, dD, dbias, dinitial)
    # Two blocks of channels add up their gradients of B and C afterwards.
    added_up = 2 * 2 * size(B.float())
    ratio = (traffic.read + traffic.written + added_up - once) / least
    assert ratio == pytest.approx(1.5, abs=0.01)


@pytest.mark.parametrize("constant", (False, True))
def test_linear_scan(constant):
    tensors, cotangents = linear_problem(64, dim=64, batch=1, constant=constant)
    a, b, state = tensors.values()
    with counted() as traffic:
        h, last = linear.forward(a, b, state, None, False)
    assert traffic.read + traffic.written == size(a, b, state, h, last)
    with counted() as traffic:
        da, db, dstate = linear.backward(*cotangents.values(), a, h, state, None, False)
    moved = size(*cotangents.values(), a, h, state, da, db, dstate)
    # The last state is read for nothing.
    assert moved - size(last) <= traffic.read + traffic.written <= moved


def test_causal_conv1d():
    tensors, cotangents = conv_problem(120, 4, "channel-last", batch=1, dim=64)
    x, weight, bias, state = tensors.values()
    with counted() as traffic:
        out, _ = conv.forward(x, weight, bias, None, state, True, False)
    ratio = (traffic.read + traffic.written) / size(x, out)
    assert 1 <= ratio <= 1.05 + 8 * size(weight, bias, state) / size(x, out)
    with counted() as traffic:
        grads = conv.backward(*cotangents.values(), x, weight, bias, None, state, True, False)
    ratio = (traffic.read + traffic.written) / size(x, cotangents["out"], grads[0])
    assert 1 <= ratio <= 1.1


def test_norms():
    x, z, residual = torch.randn(3, 64, 32).unbind(0)
    weight = torch.randn(32)
    with counted() as traffic:
        out, total = norm.add_norm(x, weight, None, residual, True, 1e-5, torch.float32)
    assert traffic.written == size(out, total)
    assert traffic.read <= size(x, residual) + 4 * size(weight)
    with counted() as traffic:
        dtotal, *_ = norm.add_norm_backward(out, out, total, weight, None, True, 1e-5)
    # Rows of sums, two a program.
    assert size(dtotal) < traffic.written <= size(dtotal) + 8 * size(weight)
    assert traffic.read <= size(out, out, total) + 4 * size(weight)
    with counted() as traffic:
        norm.gated_rms_norm(x, weight, z, 1e-5, 32, True)
    assert traffic.read + traffic.written <= size(x, z, out) + 4 * size(weight)
    with counted() as traffic:
        norm.gated_rms_norm_backward(out, x, weight, z, 1e-5, 32, True)
    assert traffic.read + traffic.written <= size(out, x, z, x, z) + 8 * size(weight)
