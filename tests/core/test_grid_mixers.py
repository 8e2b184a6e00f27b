"""What every mixer of images and volumes promises."""

import pytest
import torch

from tristate.core.mixers import GRID_MIXERS
from tristate.core.mixers.s4nd import AxisKernels
from tristate.core.rate import set_rate
from tristate.core.ssm.diagonal import DiagonalSSM
from tristate.core.training.optim import parameter_groups
from tristate.kernels.longconv import long_conv

# Float32 on two paths that round differently.
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
D_MODEL = 6
GRIDS = {1: [(1,), (2,), (33,)], 2: [(1, 1), (1, 7), (5, 8)], 3: [(1, 1, 2), (3, 4, 5)]}


def make(name, n_axes, **options):
    torch.manual_seed(1)
    return GRID_MIXERS[name](D_MODEL, n_axes=n_axes, **options)


@pytest.fixture(params=list(GRID_MIXERS))
def name(request):
    return request.param


@pytest.mark.parametrize("n_axes", [1, 2, 3])
def test_keeps_shape_and_reaches_every_parameter(name, n_axes):
    mixer = make(name, n_axes)
    for grid in GRIDS[n_axes]:
        x = torch.randn(2, *grid, D_MODEL, requires_grad=True)
        y = mixer(x)
        assert y.shape == x.shape
        y.square().sum().backward()
        for parameter, p in [("input", x), *mixer.named_parameters()]:
            assert p.grad is not None and p.grad.isfinite().all(), parameter


@pytest.mark.parametrize("n_axes", [2, 3])
def test_each_position_sees_all_others(name, n_axes):
    x = torch.randn(1, *GRIDS[n_axes][-1], D_MODEL, requires_grad=True)
    middle = tuple(n // 2 for n in x.shape[1:-1])
    make(name, n_axes)(x)[(0, *middle)].sum().backward()
    assert (x.grad.abs().sum(-1) > 0).all()


def test_what_looks_back_along_an_axis_sees_nothing_ahead(name):
    mixer = make(name, 2, bidirectional=[True, False])
    x = torch.randn(2, 5, 9, D_MODEL)
    other = x.clone()
    other[:, :, 6:] = torch.randn(2, 5, 3, D_MODEL)
    torch.testing.assert_close(mixer(x)[:, :, :6], mixer(other)[:, :, :6], **CLOSE)
    assert not torch.allclose(mixer(x)[:, :, 6:], mixer(other)[:, :, 6:])


def test_moves_with_its_input(name):
    """What lies in the middle of nothing gives the same wherever it lies."""
    mixer = make(name, 2)
    inputs, outputs = torch.zeros(2, 9, 11, D_MODEL), torch.randn(3, 4, D_MODEL)
    inputs[0, 1:4, 2:6] = inputs[1, 5:8, 4:8] = outputs
    y = mixer(inputs)
    torch.testing.assert_close(y[0, :5, :9], y[1, 4:, 2:], **CLOSE)


def test_refuses_another_grid(name):
    with pytest.raises(ValueError, match="2 axes"):
        make(name, 2)(torch.randn(1, 4, D_MODEL))
    with pytest.raises(ValueError, match="D_MODEL|, 6"):
        make(name, 2)(torch.randn(1, 4, 4, D_MODEL + 1))


def test_time_constants_are_spared_weight_decay(name):
    mixer = make(name, 2)
    names = {id(p): n for n, p in mixer.named_parameters()}
    groups = parameter_groups(mixer, weight_decay=0.1)
    decayed = {names[id(p)] for group in groups if group["weight_decay"] for p in group["params"]}
    assert decayed and all(n.endswith((".C", "linear.weight")) for n in decayed)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_flip_of_the_image_is_a_flip_of_the_kernel(axis):
    halves = [torch.randn(2, D_MODEL, 9) for _ in range(2)]
    # The last lag that is looked back at has no counterpart ahead: 7 or 8 positions reach none.
    x = torch.randn(2, 7, 8, D_MODEL)

    def convolve(kernels, x):
        torch.manual_seed(3)
        return AxisKernels([Given(k) for k in kernels])(x)

    exchanged = list(halves)
    exchanged[axis] = mirror(halves[axis])
    torch.testing.assert_close(
        convolve(halves, x.flip(1 + axis)), convolve(exchanged, x).flip(1 + axis), **CLOSE
    )


class Given(torch.nn.Module):
    """A kernel as it is given, ``(2, D, taps)``, both halves from their first lag on."""

    rate, channels, d_model = 1.0, 2, D_MODEL

    def __init__(self, taps):
        super().__init__()
        self.taps = taps

    def kernel(self, length):
        return self.taps[..., :length]


def mirror(taps):
    """The kernel read backwards: what weighed lag ``l`` weighs ``-l``."""
    ahead, back = taps  # from lag 0, and from lag -1
    moved = torch.nn.functional.pad(ahead[..., 1:], (0, 1))
    return torch.stack([torch.cat([ahead[..., :1], back[..., :-1]], -1), moved])


def test_axes_may_be_exchanged():
    torch.manual_seed(0)
    models = [DiagonalSSM(D_MODEL, d_state=8, channels=4) for _ in range(2)]
    x = torch.randn(2, 5, 9, D_MODEL)
    one, other = (AxisKernels(order, n_terms=2) for order in (models, list(reversed(models))))
    other.D = one.D
    y, swapped = one(x), other(x.transpose(1, 2))
    torch.testing.assert_close(y, swapped.transpose(1, 2), **CLOSE)


@pytest.mark.parametrize("n_terms", [1, 2])
def test_axis_by_axis_is_the_whole_kernel(n_terms):
    torch.manual_seed(0)
    outputs = 2 * n_terms * 3
    models = [DiagonalSSM(D_MODEL, d_state=8, channels=outputs) for _ in range(3)]
    conv = AxisKernels(models, n_terms=n_terms, channels=3, kernel_lengths=[None, 2, None])
    x = torch.randn(2, 4, 5, 3, D_MODEL)
    kernel, origin = conv.kernel(x.shape[1:-1])
    assert origin == [4, 2, 3]
    whole = long_conv(x.movedim(-1, 1), kernel, conv.D, origin=origin)
    torch.testing.assert_close(conv(x), whole.flatten(1, 2).movedim(1, -1), **CLOSE)


def test_terms_are_averaged():
    torch.manual_seed(0)
    models = [DiagonalSSM(D_MODEL, d_state=8, channels=3) for _ in range(2)]
    conv = AxisKernels(models, n_terms=3, bidirectional=False)
    kernel, origin = conv.kernel((4, 5))
    factors = [model.kernel(n) for model, n in zip(models, (4, 5), strict=True)]
    want = torch.einsum("rdi,rdj->dij", *factors) / 3
    torch.testing.assert_close(kernel[0], want)
    assert origin == [0, 0]


@pytest.mark.parametrize("ssm", ["low_rank", "diagonal"])
@pytest.mark.parametrize("sides", [False, True])
@torch.no_grad()
def test_a_finer_grid_shows_the_same_kernel(ssm, sides):
    """A smooth image on finer and finer grids: outputs at the same places come together."""
    torch.manual_seed(0)
    options = {"ssm": ssm, "bandlimit": 0.2, "d_state": 16, "dt_min": 0.02, "dt_max": 0.1}
    mixer = make("s4nd", 2, bidirectional=sides, **options).double()
    torch.nn.init.zeros_(mixer.conv.D)
    base, finest = 8, 128
    outputs = {}
    n = base
    while n <= finest:
        set_rate(mixer, base / n)
        place = torch.arange(n, dtype=torch.float64) / n
        image = torch.sin(2 * torch.pi * place)[:, None] * torch.cos(4 * place)[None]
        x = image[None, :, :, None].expand(1, n, n, D_MODEL)
        outputs[n] = mixer.conv(x)[:, :: n // base, :: n // base]
        n *= 2
    errors = [float((outputs[n] - outputs[finest]).abs().max()) for n in (8, 16, 32)]
    # Of first order: half of the error, against a finest grid that isn't perfect either.
    assert errors[1] < 0.62 * errors[0] and errors[2] < 0.62 * errors[1], errors
