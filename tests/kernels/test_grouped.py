"""Products by groups of rows: their meaning, their gradients, programs that hold them."""

import pytest
import torch

from tristate.kernels.export import decompositions
from tristate.kernels.grouped import grouped_linear, ops

SIZES = [3, 0, 1, 4]


def problem(dtype=torch.float64):
    torch.manual_seed(0)
    x, weight = torch.randn(8, 5, dtype=dtype), torch.randn(4, 3, 5, dtype=dtype)
    return x, weight, torch.tensor(SIZES)


def test_each_row_meets_the_matrix_of_its_group():
    x, weight, sizes = problem()
    own = weight[torch.arange(4).repeat_interleave(sizes)]
    torch.testing.assert_close(grouped_linear(x, weight, sizes), (own @ x[:, :, None])[..., 0])


def test_gradients_of_both_orders():
    x, weight, sizes = problem()
    leaves = x.requires_grad_(), weight.requires_grad_()
    assert torch.autograd.gradcheck(lambda *a: grouped_linear(*a, sizes), leaves)
    assert torch.autograd.gradgradcheck(lambda *a: grouped_linear(*a, sizes), leaves)


# opcheck itself looks at the .grad of tensors that are no leaves.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("op", (ops.linear, ops.outer))
def test_pytorch_finds_the_ops_in_order(op):
    x, weight, sizes = problem(torch.float32)
    second = weight if op is ops.linear else torch.randn(8, 3)
    torch.library.opcheck(op, (x.requires_grad_(), second.requires_grad_(), sizes))


def test_sizes_are_free_in_a_program():
    x, weight, _ = problem()

    class Layer(torch.nn.Module):
        def forward(self, x, weight, sizes):
            return grouped_linear(x, weight, sizes)

    example = x, weight, torch.tensor([2, 2, 2, 2])
    program = torch.export.export(Layer(), example).run_decompositions(decompositions())
    assert not [n for n in program.graph.nodes if "tristate" in str(n.target)]
    compiled = torch.compile(Layer(), fullgraph=True, backend="aot_eager")
    for sizes in (SIZES, [0, 8, 0, 0], [0, 0, 0, 8]):
        want = grouped_linear(x, weight, torch.tensor(sizes))
        for made in (program.module(), compiled):
            torch.testing.assert_close(made(x, weight, torch.tensor(sizes)), want)


def test_autocast_narrows_both():
    x, weight, sizes = problem(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = grouped_linear(x.requires_grad_(), weight, sizes)
    assert y.dtype == torch.bfloat16
    y.sum().backward()
    assert x.grad is not None and x.grad.dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x, w, s: (x.long(), w, s), "x must be floating point"),
        (lambda x, w, s: (x[0], w, s), r"x is \(M, K\)"),
        (lambda x, w, s: (x[:, :4], w, s), r"weight must be \(E, N, K\) = \(4, 3, 4\)"),
        (lambda x, w, s: (x, w, s[:3]), r"sizes must be \(E,\) = \(4,\)"),
        (lambda x, w, s: (x.float(), w, s), "one dtype"),
    ],
)
def test_what_does_not_fit_is_refused(change, said):
    with pytest.raises(ValueError, match=said):
        grouped_linear(*change(*problem()))
