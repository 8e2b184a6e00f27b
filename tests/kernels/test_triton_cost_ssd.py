"""What the docstrings of the Triton kernels of Mamba-2's scan say that they move, counted."""

import pytest

from tests.kernels.ssd import problem
from tests.kernels.traffic import counted, size
from tests.kernels.triton import DEVICE
from tristate.kernels.ssd import triton as ssd
from tristate.kernels.triton.interpreter import interprets

pytestmark = pytest.mark.skipif(
    not interprets() or DEVICE.type != "cpu", reason="what is counted is what the interpreter does"
)

FLAGS = (True, 0.0, float("inf"), False)


def inputs_and_grad(gate):
    """A head a group: each has its own B and C."""
    absent = () if gate else ("z",)
    sizes = {"heads": 2, "groups": 2, "width": 32, "n_states": 16}
    tensors, cotangents = problem(128, batch=1, absent=absent, **sizes)
    return (*tensors.values(), None), cotangents["out"]


@pytest.mark.parametrize(("gate", "stated"), [(False, 1.125), (True, 1.083)])
def test_ssd_scan_forward(gate, stated):
    inputs, _ = inputs_and_grad(gate)
    x, dt, A, B, C, D, z, bias, initial, _ = inputs
    with counted() as traffic:
        out, last, _, _ = ssd.forward(*inputs, *FLAGS, False)
    # The state stays in the second cache: read once, and written once, whatever the tiles.
    once = size(A, D, initial, last)
    assert traffic.read + traffic.written - once == size(x, dt, B, C, z, out)
    with counted() as traffic:
        out, _, _, kept = ssd.forward(*inputs, *FLAGS, True)
    moved = traffic.read + traffic.written - once - size(dt, B, C)
    assert moved == size(x, z, out, kept)
    assert moved / size(x, z, out) == pytest.approx(stated, abs=0.01)
    n_states, width, tile = 16, 32, 64
    assert traffic.operations / x.numel() == 4 * n_states + 2 * tile * (1 + n_states / width)


@pytest.mark.parametrize("gate", (False, True))
def test_ssd_scan_backward(gate):
    inputs, grad = inputs_and_grad(gate)
    x, dt, A, B, C, D, z, bias, initial, _ = inputs
    _, _, y, kept = ssd.forward(*inputs, *FLAGS, True)
    with counted() as traffic:
        dx, ddt, dA, dB, dC, dD, dz, dbias, dinitial = ssd.backward(
            grad, None, *inputs, y, kept, *FLAGS
        )
    # Of each head's program: one state.
    slopes, own = kept, dinitial
    assert traffic.written == size(dx, ddt, dA, dB, dC, dD, dz, slopes, own, dinitial)
    heads = size(x, dt, grad, z, A, B, C, D, kept, dinitial)
    weights = size(x, dt, grad, z, B, C, kept, slopes)
    assert traffic.read - heads - weights == 2 * size(A)  # once a tile
    if not gate:
        least = size(x, grad, dx)
        moved = size(x, grad, dx, kept, slopes) + size(x, grad, kept, slopes)
        assert moved / least == pytest.approx(2.0, abs=0.01)


@pytest.mark.parametrize(("length", "n_states"), [(64, 16), (256, 64)])
def test_operations_of_ssd_scan_backward(length, n_states):
    """One part between kept states, of two tiles and of eight."""
    width, heads = 32, 2
    sizes = {"heads": heads, "groups": 1, "width": width, "n_states": n_states}
    tensors, cotangents = problem(length, batch=1, absent=("z",), **sizes)
    inputs = *tensors.values(), None
    _, _, y, kept = ssd.forward(*inputs, *FLAGS, True)
    with counted() as traffic:
        ssd.backward(cotangents["out"], None, *inputs, y, kept, *FLAGS)
    tile, n_tiles = 32, length // 32
    saved = min(4, n_tiles)
    again = 2 * n_states * (1 - saved / n_tiles) + n_states * (saved - 1)
    of_heads = 6 * n_states + again + 4 * tile * (1 + n_states / width)
    tile, n_tiles = 64, length // 64
    of_group = 2 * tile * n_states * (n_tiles + 1) / (heads * width)
    of_weights = 4 * n_states + 2 * tile * (n_tiles + 1) + of_group
    assert traffic.operations / tensors["x"].numel() == of_heads + of_weights
