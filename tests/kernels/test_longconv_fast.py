"""Every fast backend of the long convolution against the float64 reference."""

from functools import partial

import pytest
import torch
import torch.utils.checkpoint
from torch import nn

from tests.kernels.laws import GRADIENT_TOLERANCE, LENGTHS, assert_near, error, stored
from tests.kernels.time_invariant import exact, grads, second
from tristate.kernels.backend import available_backends
from tristate.kernels.longconv import cpu, cpu_direct, long_conv, ops
from tristate.kernels.longconv.sizes import direct_is_faster, grid_size, line_size
from tristate.recipes.bench.measure import peak_bytes

pytestmark = pytest.mark.skipif(
    "cpu" not in available_backends(), reason="this processor has no fused multiply-add vectors"
)
WAYS = ("fft", "direct")


@pytest.fixture(params=WAYS)
def way(request, monkeypatch):
    """Either way of computing, whatever the size."""
    monkeypatch.setattr(cpu, "direct_is_faster", lambda *sizes: request.param == "direct")
    return request.param


def problem(grid, taps, *, n_out=1, batch=2, dim=3):
    """Inputs and the cotangent of the output."""
    generator = torch.Generator().manual_seed(sum(grid) + 7 * sum(taps))
    randn = partial(torch.randn, generator=generator)
    inputs = {
        "x": randn(batch, dim, *grid), "kernel": randn(n_out, dim, *taps), "D": randn(n_out, dim),
    }  # fmt: skip
    return inputs, randn(batch, n_out, dim, *grid)


def agree(inputs, cotangent, **options):
    op = partial(long_conv, **options)
    wanted = grads(partial(op, backend="reference"), exact(inputs), cotangent)
    assert_near(grads(partial(op, backend="cpu"), inputs, cotangent), wanted)


@pytest.mark.parametrize("kind", ("causal", "reversed", "two-sided", "two outputs"))
@pytest.mark.parametrize("length", LENGTHS)
def test_equals_the_reference(length, kind, way):
    taps = 2 * length - 1 if kind == "two-sided" else length
    problem_ = problem((length,), (taps,), n_out=2 if kind == "two outputs" else 1)
    agree(*problem_, origin=taps - length, reverse=kind == "reversed")


@pytest.mark.parametrize(
    ("grid", "taps", "origin"),
    [
        ((65,), (7,), (3,)),
        ((65,), (300,), (100,)),
        ((63,), (257,), (256,)),
        ((9, 7), (17, 13), (8, 6)),
        ((9, 70), (3, 5), (1, 2)),
        ((1, 33), (4, 4), (3, 0)),
        ((4, 5, 6), (7, 9, 11), (3, 4, 5)),
        ((4, 5, 18), (2, 3, 4), (0, 2, 1)),
    ],
)
def test_grids_of_any_shape(grid, taps, origin, way):
    agree(*problem(grid, taps), origin=origin)


@pytest.mark.parametrize("layout", ("channel-last", "slice"))
def test_any_storage(layout, way):
    inputs, cotangent = problem((70,), (70,), dim=19)
    inputs["x"] = stored(inputs["x"], layout)
    agree(inputs, cotangent)
    x, kernel = inputs["x"].requires_grad_(), inputs["kernel"][0]
    out = long_conv(x, kernel, backend="cpu")
    if layout == "channel-last":
        assert out.stride() == x.stride()
        (grad,) = torch.autograd.grad(out, x, torch.ones_like(out))
        assert grad.stride() == x.stride()


def test_many_parts(monkeypatch):
    """Channels and sequences that don't fit together are done one part after the other."""
    monkeypatch.setattr(cpu, "direct_is_faster", lambda *sizes: False)
    for block, batch, dim in ((1, 5, 9), (256 * 6, 3, 6), (256 * 12, 5, 5)):
        monkeypatch.setattr(cpu, "BLOCK", block)
        agree(*problem((6, 7), (6, 7), batch=batch, dim=dim, n_out=2))


@pytest.mark.parametrize("batch", (1, 2, 3))
@pytest.mark.parametrize("size", (256, 512, 768, 1024, 1280, 1536, 2048, 2560))
def test_transforms_of_every_kind_of_size(size, batch):
    """Powers of two and of four, with 3 and with 5, and pairs of sequences with one left over."""
    inputs, cotangent = problem((size // 2,), (size // 2 + 1,), batch=batch, n_out=2)
    assert line_size(size)[0] == size
    agree(inputs, cotangent)


@pytest.mark.parametrize("threads", (1, 2))
def test_the_number_of_threads_changes_nothing(threads, way, monkeypatch):
    monkeypatch.setattr(cpu_direct, "SMALL", 0)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        agree(*problem((100,), (50,), dim=5))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float16))
def test_half_precision_is_as_good_as_pytorchs(dtype, way):
    inputs, cotangent = problem((200,), (200,))
    inputs = {name: x.to(dtype) for name, x in inputs.items()}
    cotangent = cotangent.to(dtype)

    def plain(x, kernel, D):  # its transforms know no 16 bits
        spectra = [torch.fft.rfft(t.float(), 400) for t in (x[:, None], kernel)]
        y = torch.fft.irfft(spectra[0] * spectra[1], 400)[..., :200].to(dtype)
        return y + D[..., None] * x[:, None]

    wanted = grads(partial(long_conv, backend="reference"), exact(inputs), cotangent)
    theirs = grads(plain, inputs, cotangent)
    ours = grads(partial(long_conv, backend="cpu"), inputs, cotangent)
    for name, value in wanted.items():
        assert ours[name].dtype == dtype
        assert error(ours[name], value) <= 2 * error(theirs[name], value), name


def test_gradients_of_gradients(way):
    inputs, cotangent = problem((9,), (12,), n_out=2)
    op = partial(long_conv, origin=4)
    wanted = second(partial(op, backend="reference"), exact(inputs), cotangent)
    got = second(partial(op, backend="cpu"), inputs, cotangent)
    for name, value in wanted.items():
        assert error(got[name], value) < GRADIENT_TOLERANCE, name


def test_a_million_steps():
    x = torch.randn(1, 1, 10**6)
    decay = torch.exp(-0.001 * torch.arange(10**6))[None]
    out = long_conv(x, decay, backend="cpu")
    wanted = long_conv(x.double(), decay.double())
    assert error(out, wanted) < 3e-6


def test_no_sequence_at_all(way):
    kernel = torch.randn(3, 5, requires_grad=True)
    out = long_conv(torch.ones(0, 3, 7), kernel, backend="cpu")
    assert out.shape == (0, 3, 7)
    (grad,) = torch.autograd.grad(out.sum(), kernel)
    assert not grad.any()


@pytest.mark.parametrize("least", (1, 2, 8, 9, 100, 1025, 16385, 32767, 10**6 + 1))
def test_sizes_are_good_ones(least):
    for size, smallest in ((grid_size(least), 8), (line_size(least)[0], 256)):
        assert size >= least and size % smallest == 0
        assert size <= 1.34 * least + smallest
        rest = size
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        assert rest == 1


def test_short_filters_are_summed_directly():
    for batch in (1, 4):
        assert direct_is_faster(batch, 1, (16384,), (64,), (0,), (20480,))
        assert not direct_is_faster(batch, 1, (16384,), (256,), (0,), (20480,))
        assert direct_is_faster(batch, 1, (56, 56), (7, 7), (3, 3), (64, 64))
        assert not direct_is_faster(batch, 1, (56, 56), (55, 55), (27, 27), (96, 96))
    # A transform takes two sequences at a time.
    assert direct_is_faster(1, 1, (256,), (256,), (0,), (512,))
    assert not direct_is_faster(4, 1, (256,), (256,), (0,), (512,))


def test_memory_is_that_of_inputs_and_outputs():
    inputs, cotangent = problem((1 << 14,), (1 << 14,), batch=8, dim=64)
    op = partial(long_conv, backend="cpu")
    grads(op, inputs, cotangent)
    held = peak_bytes(lambda: grads(op, inputs, cotangent))
    if held is None:
        pytest.skip("this system does not count a process's peak")
    # The output, a gradient, the kernel's own; spectra would be eight times as much.
    assert held < 4 * cotangent.nbytes


# opcheck itself looks at the .grad of tensors that are no leaves.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("layout", ("time-last", "channel-last"))
def test_is_a_well_behaved_op(layout):
    inputs, cotangent = problem((12,), (7,), n_out=2)
    x = stored(inputs["x"], layout).requires_grad_()
    kernel = inputs["kernel"].requires_grad_()
    torch.library.opcheck(ops.forward, (x, kernel, [2]))
    torch.library.opcheck(ops.backward, (cotangent, x, kernel, [2]))


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(8, 100))
        self.D = nn.Parameter(torch.randn(8))

    def forward(self, x):  # (B, L, D)
        kernel = self.kernel[:, : x.shape[1]]
        return long_conv(x.transpose(1, 2), kernel, self.D, origin=3).transpose(1, 2)


def test_compiles_whole_with_gradients():
    layer, x = Layer(), torch.randn(2, 11, 8)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for length in (11, 6):
        torch.testing.assert_close(compiled(x[:, :length]), layer(x[:, :length]))
    found = [
        torch.autograd.grad(f(x).square().sum(), list(layer.parameters()))
        for f in (layer, compiled)
    ]
    torch.testing.assert_close(*found)


def test_exports_with_a_dynamic_length():
    layer, x = Layer().eval(), torch.randn(2, 11, 8)
    length = torch.export.Dim("length", min=4, max=99)
    program = torch.export.export(layer, (x,), dynamic_shapes=({1: length},))
    longer = torch.randn(2, 29, 8)
    torch.testing.assert_close(program.module()(longer), layer(longer))


def test_checkpointing_and_autocast_run_through():
    layer, x = Layer(), torch.randn(2, 11, 8, requires_grad=True)
    plain = torch.autograd.grad(layer(x).square().sum(), x)
    again = torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=False)
    torch.testing.assert_close(torch.autograd.grad(again.square().sum(), x), plain)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(x.bfloat16())
    assert out.dtype == torch.bfloat16
