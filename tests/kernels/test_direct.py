"""The short way past PyTorch's dispatcher does what the op does."""

import pytest
import torch

from tests.kernels.every_op import OPS, computed
from tristate.kernels import causal_conv1d, direct
from tristate.kernels.backend import available_backends

pytestmark = pytest.mark.skipif(
    "cpu" not in available_backends(), reason="this processor has no fused multiply-add vectors"
)


@pytest.mark.parametrize("name", OPS)
def test_both_ways_give_the_same(name, monkeypatch):
    short = computed(name, "cpu")
    monkeypatch.setattr(direct, "unobserved", lambda tensors: False)
    whole = computed(name, "cpu")
    assert short.keys() == whole.keys()
    for key, wanted in whole.items():
        assert torch.equal(short[key], wanted), key


@pytest.mark.parametrize("with_grad", (False, True))
def test_an_output_that_is_a_view_may_be_changed_in_place(with_grad):
    x = torch.randn(2, 9, 16, requires_grad=with_grad)
    with torch.set_grad_enabled(with_grad):
        y = causal_conv1d(x.mT, torch.randn(16, 4), backend="cpu")
    # The axes lie in another order than those of what was allocated.
    assert y.stride(1) == 1
    factor = torch.ones(y.shape, requires_grad=True)
    (y.mul_(2) * factor).sum().backward()
    assert torch.equal(factor.grad, y)
    assert not with_grad or x.grad.isfinite().all()


def test_gradients_are_differentiated_by_the_ops():
    x = torch.randn(1, 16, 8, requires_grad=True)
    weight = torch.randn(16, 4, requires_grad=True)
    y = causal_conv1d(x, weight, activation="silu", backend="cpu")
    (grad,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    again = torch.autograd.grad(grad.square().sum(), (x, weight))
    y = causal_conv1d(x, weight, activation="silu", backend="reference")
    (grad,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    wanted = torch.autograd.grad(grad.square().sum(), (x, weight))
    torch.testing.assert_close(again, wanted)
