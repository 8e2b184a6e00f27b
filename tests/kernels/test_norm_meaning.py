"""Laws of the fused norms' references, in float64, and what their border refuses."""

import pytest
import torch
from torch.nn import functional as F

from tristate.kernels.norm import add_norm, gated_rms_norm


def randn(*shape: int, dtype: torch.dtype = torch.float64):
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("shape", [(6,), (3, 7), (2, 3, 5)])
@pytest.mark.parametrize("rms", (False, True))
def test_add_norm_is_the_sum_and_then_pytorchs_norm(shape, rms):
    x, residual = randn(*shape), randn(1, *shape)[0].flip(-1)
    weight, bias = randn(shape[-1]), randn(shape[-1]).flip(-1)
    out, total = add_norm(x, weight, bias, residual, rms=rms, eps=1e-3)
    torch.testing.assert_close(total, x + residual)
    if rms:
        wanted = F.rms_norm(x + residual, shape[-1:], weight, 1e-3) + bias
    else:
        wanted = F.layer_norm(x + residual, shape[-1:], weight, bias, 1e-3)
    torch.testing.assert_close(out, wanted)
    torch.testing.assert_close(
        add_norm(x, weight, bias, residual, rms=rms, eps=1e-3, prenorm=False), wanted
    )


def test_without_a_residual_the_stream_starts_with_x():
    x, weight = randn(2, 5), randn(5)
    out, total = add_norm(x, weight)
    torch.testing.assert_close(total, x)
    torch.testing.assert_close(out, F.rms_norm(x, (5,), weight, 1e-5))


@pytest.mark.parametrize(
    ("x", "residual", "in_fp32", "stream"),
    [
        (torch.bfloat16, None, False, torch.bfloat16),
        (torch.bfloat16, None, True, torch.float32),
        (torch.bfloat16, torch.bfloat16, True, torch.float32),
        (torch.bfloat16, torch.float32, False, torch.float32),
        (torch.float16, torch.float16, False, torch.float16),
        (torch.float32, torch.float32, False, torch.float32),
        (torch.float64, torch.float64, True, torch.float64),
    ],
)
@pytest.mark.parametrize("backend", ("auto", "reference"))
def test_dtypes_of_the_stream_and_of_the_output(x, residual, in_fp32, stream, backend):
    added = None if residual is None else randn(4, 8, dtype=residual)
    out, total = add_norm(
        randn(4, 8, dtype=x),
        torch.ones(8),
        residual=added,
        residual_in_fp32=in_fp32,
        backend=backend,
    )
    assert out.dtype == x
    assert total.dtype == stream


@pytest.mark.parametrize("groups", (1, 3))
@pytest.mark.parametrize("norm_before_gate", (False, True))
def test_gated_norm_is_pytorchs_norm_and_gate(groups, norm_before_gate):
    x, z, weight = randn(2, 5, 12), randn(2, 12, 5).mT, randn(12)
    size = 12 // groups

    def norm(values):
        rows = F.rms_norm(values.unflatten(-1, (groups, size)), (size,), None, 1e-5)
        return rows.flatten(-2) * weight

    wanted = norm(x) * F.silu(z) if norm_before_gate else norm(x * F.silu(z))
    got = gated_rms_norm(x, weight, z, group_size=size, norm_before_gate=norm_before_gate)
    torch.testing.assert_close(got, wanted)
    torch.testing.assert_close(gated_rms_norm(x, weight, group_size=size), norm(x))


@pytest.mark.parametrize("rms", (False, True))
def test_add_norm_gradients_and_their_gradients(rms):
    leaves = [
        t.requires_grad_() for t in (randn(2, 4), randn(4), randn(4).flip(0), randn(3, 4)[:2])
    ]

    def op(x, weight, bias, residual):
        return add_norm(x, weight, bias, residual, rms=rms)

    assert torch.autograd.gradcheck(op, leaves)
    assert torch.autograd.gradgradcheck(op, leaves)


@pytest.mark.parametrize("norm_before_gate", (False, True))
def test_gated_norm_gradients_and_their_gradients(norm_before_gate):
    leaves = [t.requires_grad_() for t in (randn(2, 4), randn(4), randn(3, 4)[:2])]

    def op(x, weight, z):
        return gated_rms_norm(x, weight, z, group_size=2, norm_before_gate=norm_before_gate)

    assert torch.autograd.gradcheck(op, leaves)
    assert torch.autograd.gradgradcheck(op, leaves)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: add_norm(torch.ones(2, 3), torch.ones(4)), r"weight must be .*\(3,\), got \(4,\)"),
        (lambda: add_norm(torch.ones(2, 3), torch.ones(3), torch.ones(1)), "bias must be"),
        (lambda: add_norm(torch.ones(2, 3), torch.ones(3), residual=torch.ones(3)), "residual"),
        (lambda: add_norm(torch.ones(2, 3).long(), torch.ones(3)), "floating point"),
        (lambda: gated_rms_norm(torch.ones(2, 3), torch.ones(3), torch.ones(2, 1)), "z must be"),
        (lambda: gated_rms_norm(torch.ones(2, 4), torch.ones(4), group_size=3), "divide D = 4"),
        (lambda: gated_rms_norm(torch.ones(2, 4), torch.ones(4), group_size=0), "got 0"),
        (lambda: gated_rms_norm(torch.ones(2, 4), torch.ones(4), backend="gpu"), "'gpu'"),
    ],
)
def test_refuses_what_cannot_be(call, said):
    with pytest.raises(ValueError, match=said):
        call()
