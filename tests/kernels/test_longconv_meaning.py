"""Laws of the long convolution's reference, in float64, and what its border refuses."""

import pytest
import torch
from torch.nn import functional as F

from tristate.kernels.longconv import long_conv, two_sided

# Grid, taps, and which tap has lag 0 on each axis: causal, centred, two-sided; shorter than the
# grid and longer.
SHAPES = (
    ((1,), (1,), (0,)),
    ((2,), (5,), (3,)),
    ((7,), (7,), (0,)),
    ((65,), (9,), (4,)),
    ((65,), (200,), (199,)),
    ((100,), (199,), (100,)),
    ((5, 7), (5, 7), (0, 0)),
    ((5, 7), (10, 13), (5, 6)),
    ((9, 12), (3, 3), (1, 1)),
    ((3, 4, 5), (6, 3, 9), (3, 0, 8)),
)


def problem(grid, taps, n_out=2, batch=2, dim=3):
    generator = torch.Generator().manual_seed(sum(grid) + 7 * sum(taps))
    shapes = (batch, dim, *grid), (n_out, dim, *taps), (n_out, dim)
    return [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]


def summed(x, kernel, D, origin):
    """PyTorch's own convolution, which is a sum over taps."""
    n_axes = len(origin)
    convolve = (F.conv1d, F.conv2d, F.conv3d)[n_axes - 1]
    sides = [(k - 1 - o, o) for k, o in zip(kernel.shape[2:], origin, strict=True)]
    padded = F.pad(x, [amount for side in reversed(sides) for amount in side])
    flipped = kernel.flip(tuple(range(2, kernel.dim())))
    outs = [convolve(padded, k[:, None], groups=x.shape[1]) for k in flipped]
    return torch.stack(outs, 1) + D.reshape(*D.shape, *[1] * n_axes) * x[:, None]


@pytest.mark.parametrize(("grid", "taps", "origin"), SHAPES)
def test_is_a_sum_over_taps(grid, taps, origin):
    x, kernel, D = problem(grid, taps)
    wanted = summed(x, kernel, D, origin)
    torch.testing.assert_close(long_conv(x, kernel, D, origin=origin), wanted)
    alone = long_conv(x, kernel[1], D[1], origin=origin)
    torch.testing.assert_close(alone, wanted[:, 1])
    bare = long_conv(x, kernel, origin=origin)
    torch.testing.assert_close(bare, summed(x, kernel, torch.zeros_like(D), origin))


@pytest.mark.parametrize(("grid", "taps", "origin"), SHAPES)
def test_reverse_is_the_flip_of_the_flipped(grid, taps, origin):
    x, kernel, D = problem(grid, taps)
    axes = tuple(range(-len(grid), 0))
    out = long_conv(x, kernel, D, origin=origin, reverse=True)
    torch.testing.assert_close(out, long_conv(x.flip(axes), kernel, D, origin=origin).flip(axes))


@pytest.mark.parametrize("length", (1, 8, 31))
def test_two_kernels_are_one_two_sided(length):
    x, kernel, D = problem((20,), (length,))
    ahead, behind = kernel
    out = long_conv(x, two_sided(behind, ahead), D[0], origin=length)
    # What is ahead, without the position itself: S4's, and most others', pair of kernels.
    later = F.pad(x, (0, 1))[..., 1:]
    wanted = long_conv(x, behind, D[0]) + long_conv(later, ahead, reverse=True)
    torch.testing.assert_close(out, wanted)


def test_the_future_changes_a_causal_one_nowhere():
    x, kernel, _ = problem((30,), (30,))
    changed = x.clone()
    changed[..., 20:] = 5
    torch.testing.assert_close(long_conv(changed, kernel)[..., :20], long_conv(x, kernel)[..., :20])


def test_a_product_of_kernels_is_one_axis_after_the_other():
    """S4ND: a kernel of rank one needs no transform of the whole grid."""
    x, rows, _ = problem((9, 14), (6, 1), n_out=1)
    columns = problem((9, 14), (1, 11), n_out=1)[1]
    whole = long_conv(x, rows[0] * columns[0], origin=(2, 5))

    def along(x, axis, kernel, origin):  # (2, D, H, W)
        lines = x.movedim(axis, -1).movedim(2, 1)
        y = long_conv(lines.flatten(0, 1), kernel.flatten(1), origin=origin)
        return y.unflatten(0, lines.shape[:2]).movedim(1, 2).movedim(-1, axis)

    torch.testing.assert_close(along(along(x, 2, rows[0], 2), 3, columns[0], 5), whole)


@pytest.mark.parametrize("reverse", (False, True))
@pytest.mark.parametrize(("grid", "taps", "origin"), (SHAPES[1], SHAPES[-1]))
def test_gradients_and_their_gradients(grid, taps, origin, reverse):
    inputs = [t.requires_grad_() for t in problem(grid, taps, batch=1, dim=1)]

    def op(x, kernel, D):
        return long_conv(x, kernel, D, origin=origin, reverse=reverse)

    assert torch.autograd.gradcheck(op, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(op, inputs, fast_mode=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"x": torch.ones(2, 3)}, r"one to three axes, got \(2, 3\)"),
        ({"x": torch.ones(2, 3, 1, 1, 1, 1)}, "one to three axes"),
        ({"x": torch.ones(2, 3, 0)}, "at least one position"),
        ({"kernel": torch.ones(4, 5)}, r"kernel must be .* D = 3 .* got \(4, 5\)"),
        ({"kernel": torch.ones(5)}, "kernel must be"),
        ({"kernel": torch.ones(3, 0)}, "kernel must be"),
        ({"D": torch.ones(1, 3)}, r"D must be \(3,\), as the kernel's, got \(1, 3\)"),
        ({"origin": 4}, r"origin must be .* \(4,\), got \[4\]"),
        ({"origin": -1}, "origin must be"),
        ({"origin": (0, 0)}, "origin must be"),
        ({"x": torch.ones(2, 3, 5).long()}, "floating point"),
        ({"backend": "triton"}, "no triton backend"),
    ],
)
def test_refuses_what_cannot_be(change, said):
    arguments = {"x": torch.ones(2, 3, 5), "kernel": torch.ones(3, 4)}
    with pytest.raises(ValueError, match=said):
        long_conv(**{**arguments, **change})
