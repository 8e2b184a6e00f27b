"""What the linear scan means, by its reference in float64."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from tests.kernels.linear import KINDS, problem
from tests.kernels.scans import wide
from tests.kernels.selective import segments
from tristate.kernels.linear import linear_scan, reference

CLOSE = {"rtol": 1e-10, "atol": 1e-10}


@pytest.fixture(params=KINDS, ids=str)
def tensors(request):
    return wide(problem(23, **KINDS[request.param])[0])


def piece(tensors, first, end):
    """The inputs from one position to another, without an initial state."""
    of_time = {k: x[:, first:end] for k, x in tensors.items() if x.dim() == 3}
    return tensors | of_time | {"initial_state": None}


def flipped(tensors):
    return tensors | {k: x.flip(1) for k, x in tensors.items() if x.dim() == 3}


def test_one_channel_by_hand():
    a, b = torch.randn(2, 3, dtype=torch.float64)
    h, last = linear_scan(a.reshape(1, 3, 1), b.reshape(1, 3, 1))
    wanted = [b[0], a[1] * b[0] + b[1], a[2] * (a[1] * b[0] + b[1]) + b[2]]
    torch.testing.assert_close(h.flatten(), torch.stack(wanted))
    torch.testing.assert_close(last.flatten(), wanted[-1][None])


@pytest.mark.parametrize("reverse", (False, True))
def test_two_pieces_are_the_whole(tensors, reverse):
    whole, last = linear_scan(**tensors, reverse=reverse)
    first, second = piece(tensors, 0, 9), piece(tensors, 9, 23)
    if reverse:
        first, second = second, first
    first["initial_state"] = tensors["initial_state"]
    head, state = linear_scan(**first, reverse=reverse)
    tail, end = linear_scan(**second | {"initial_state": state}, reverse=reverse)
    pieces = [tail, head] if reverse else [head, tail]
    torch.testing.assert_close(torch.cat(pieces, 1), whole, **CLOSE)
    torch.testing.assert_close(end, last, **CLOSE)


def test_reverse_is_a_flip(tensors):
    packed = segments(23)
    h, last = linear_scan(**tensors, reverse=True, seq_idx=packed)
    mirrored, wanted = linear_scan(**flipped(tensors), seq_idx=packed.flip(1))
    torch.testing.assert_close(h, mirrored.flip(1), **CLOSE)
    torch.testing.assert_close(last, wanted, **CLOSE)


@pytest.mark.parametrize("reverse", (False, True))
def test_packed_is_separate(tensors, reverse):
    bounds = [0, 4, 5, 16, 23]
    index = torch.tensor([7, 2, 2**30, 0]).repeat_interleave(torch.tensor([4, 1, 11, 7])).int()
    h, last = linear_scan(**tensors, seq_idx=index.expand(2, 23), reverse=reverse)
    ends = list(zip(bounds, bounds[1:], strict=False))
    for k, (first, end) in enumerate(ends):
        alone = piece(tensors, first, end)
        if k == (len(ends) - 1 if reverse else 0):
            alone["initial_state"] = tensors["initial_state"]
        wanted, state = linear_scan(**alone, reverse=reverse)
        torch.testing.assert_close(h[:, first:end], wanted, **CLOSE)
        if k == (0 if reverse else len(ends) - 1):
            torch.testing.assert_close(last, state, **CLOSE)


@pytest.mark.parametrize("reverse", (False, True))
def test_padding_is_as_if_it_were_not_there(tensors, reverse):
    row = torch.tensor([-1, 3, 3, -1, -1, 3, 4, -5, 4, *[4] * 12, -1, -1]).int()
    real = row >= 0
    h, last = linear_scan(**tensors, seq_idx=row.expand(2, 23), reverse=reverse)
    without = {k: x[:, real] if x.dim() == 3 else x for k, x in tensors.items()}
    wanted, state = linear_scan(**without, seq_idx=row[real].expand(2, -1), reverse=reverse)
    assert (h[:, ~real] == 0).all()
    torch.testing.assert_close(h[:, real], wanted, **CLOSE)
    torch.testing.assert_close(last, state, **CLOSE)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_gradients(kind):
    tensors = wide(problem(3, dim=2, batch=1, **KINDS[kind])[0])
    leaves = [x.clone().requires_grad_() for x in tensors.values()]
    packed = torch.tensor([[0, 1, 1]], dtype=torch.int32)

    def op(*inputs):
        return linear_scan(**dict(zip(tensors, inputs, strict=True)), seq_idx=packed)

    assert gradcheck(op, leaves, fast_mode=True)
    assert gradgradcheck(op, leaves, fast_mode=True)


@pytest.mark.parametrize("packed", (False, True))
@pytest.mark.parametrize("reverse", (False, True))
def test_the_gradients_written_out_are_those_of_autograd(tensors, packed, reverse):
    seq_idx = segments(23) if packed else None
    leaves = [x.requires_grad_() for x in tensors.values()]
    returned = linear_scan(**tensors, seq_idx=seq_idx, reverse=reverse)
    weights = [torch.randn_like(x) for x in returned]
    wanted = torch.autograd.grad(returned, leaves, weights)
    a, _, state = (x.detach() for x in leaves)
    h = returned[0].detach()
    got = reference.gradients(*weights, a, h, state, seq_idx, reverse)
    torch.testing.assert_close(got, wanted, **CLOSE)


def test_real_and_complex_together():
    a, b = torch.rand(2, 5, 3), torch.randn(2, 5, 3, dtype=torch.complex64)
    wanted = linear_scan(a + 0j, b)
    torch.testing.assert_close(linear_scan(a, b), wanted)
    h, last = linear_scan(b * 0.1, a.bfloat16())
    assert h.dtype == last.dtype == torch.complex64


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"b": torch.zeros(2, 17)}, r"b must be \(B, L, D\)"),
        ({"a": torch.zeros(2, 5, 16)}, r"a must be \(B, L, D\) = \(2, 5, 17\) or \(D,\) = \(17,\)"),
        ({"b": torch.zeros(2, 5, 17, dtype=torch.int64)}, "b must be floating point or complex"),
        ({"seq_idx": torch.zeros(2, 5)}, "seq_idx must be int32 or int64, got torch.float32"),
        ({"initial_state": torch.zeros(2, 3)}, r"initial_state must be \(B, D\) = \(2, 17\)"),
        ({"initial_state": torch.zeros(2, 17) + 0j}, "initial_state is torch.complex64, but"),
        ({"a": torch.zeros(2, 5, 17, device="meta")}, "a is on meta, but b is on cpu"),
        ({"backend": "cuda"}, "unknown backend 'cuda'"),
    ],
)
def test_refuses_what_does_not_fit(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        linear_scan(**{**problem(5)[0], **change})


def test_named_cpu_backend_refuses_float64():
    with pytest.raises(ValueError, match="no cpu backend for these arguments"):
        linear_scan(**wide(problem(5)[0]), backend="cpu")
