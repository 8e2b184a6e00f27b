"""What the selective scan means, by its reference in float64."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from tests.kernels.laws import double
from tests.kernels.selective import problem, segments
from tristate.kernels.selective import selective_scan, selective_state_update

KINDS = {
    "real": {},
    "groups": {"dim": 6, "groups": 3},
    "complex": {"complex_A": True},
    "constant": {"constant": "BC"},
}
CLOSE = {"rtol": 1e-10, "atol": 1e-10}


def run(tensors, **options):
    options = {"delta_softplus": True, "return_last_state": True, **options}
    return selective_scan(**tensors, **options)


def piece(tensors, first, end):
    """The inputs from one position to another, without an initial state."""
    steps = {"u", "delta", "z"} | {k for k in "BC" if tensors[k].dim() > 2}
    found = {}
    for name, x in tensors.items():
        doubled = 2 if name in "BC" and tensors["A"].is_complex() else 1
        found[name] = x[..., doubled * first : doubled * end] if name in steps else x
    return found | {"initial_state": None}


@pytest.fixture(params=KINDS, ids=str)
def tensors(request):
    exact = double(problem(23, **KINDS[request.param])[0])
    return {k: v.to(torch.complex128) if v.is_complex() else v for k, v in exact.items()}


def test_one_channel_and_state_by_hand():
    u, delta, z = (torch.randn(3, dtype=torch.float64) for _ in range(3))
    a, b, c, d = (torch.randn((), dtype=torch.float64) for _ in range(4))
    h, wanted = 0.0, []
    for t in range(3):
        h = torch.exp(delta[t] * a) * h + delta[t] * b * u[t]
        wanted.append((c * h + d * u[t]) * z[t] * torch.sigmoid(z[t]))
    row = lambda x: x.reshape(1, 1, -1)  # noqa: E731
    got = selective_scan(
        row(u), row(delta), a.reshape(1, 1), b.reshape(1, 1), c.reshape(1, 1), d[None], row(z)
    )
    torch.testing.assert_close(got, row(torch.stack(wanted)))


@pytest.mark.parametrize("reverse", (False, True))
def test_two_pieces_are_the_whole(tensors, reverse):
    whole, last = run(tensors, reverse=reverse)
    first, second = piece(tensors, 0, 9), piece(tensors, 9, 23)
    if reverse:
        first, second = second, first
    head, state = run(first | {"initial_state": tensors["initial_state"]}, reverse=reverse)
    tail, end = run(second | {"initial_state": state}, reverse=reverse)
    pieces = [tail, head] if reverse else [head, tail]
    torch.testing.assert_close(torch.cat(pieces, 2), whole, **CLOSE)
    torch.testing.assert_close(end, last, **CLOSE)


def test_reverse_is_a_flip(tensors):
    packed = segments(23)
    flipped = dict(tensors)
    for name in ("u", "delta", "z", "B", "C"):
        x = tensors[name]
        if x.dim() > 2 and name in "BC" and tensors["A"].is_complex():
            flipped[name] = x.unflatten(-1, (-1, 2)).flip(-2).flatten(-2)
        elif x.dim() > 2:
            flipped[name] = x.flip(-1)
    out, last = run(tensors, reverse=True, seq_idx=packed)
    mirrored, wanted = run(flipped, seq_idx=packed.flip(1))
    torch.testing.assert_close(out, mirrored.flip(2), **CLOSE)
    torch.testing.assert_close(last, wanted, **CLOSE)


@pytest.mark.parametrize("reverse", (False, True))
def test_packed_is_separate(tensors, reverse):
    bounds = [0, 4, 5, 16, 23]
    index = torch.tensor([7, 2, 2**30, 0]).repeat_interleave(torch.tensor([4, 1, 11, 7])).int()
    out, last = run(tensors, seq_idx=index.expand(2, 23), reverse=reverse)
    ends = list(zip(bounds, bounds[1:], strict=False))
    for k, (first, end) in enumerate(ends):
        alone = piece(tensors, first, end)
        if k == (len(ends) - 1 if reverse else 0):
            alone["initial_state"] = tensors["initial_state"]
        wanted, state = run(alone, reverse=reverse)
        torch.testing.assert_close(out[:, :, first:end], wanted, **CLOSE)
        if k == (0 if reverse else len(ends) - 1):
            torch.testing.assert_close(last, state, **CLOSE)


@pytest.mark.parametrize("reverse", (False, True))
def test_padding_is_as_if_it_were_not_there(reverse):
    tensors = double(problem(23)[0])
    row = torch.tensor([-1, 3, 3, -1, -1, 3, 4, -5, 4, *[4] * 12, -1, -1]).int()
    real = row >= 0
    out, last = run(tensors, seq_idx=row.expand(2, 23), reverse=reverse)
    without = {k: x[..., real] if x.shape[-1] == 23 else x for k, x in tensors.items()}
    wanted, state = run(without, seq_idx=row[real].expand(2, -1), reverse=reverse)
    assert (out[:, :, ~real] == 0).all()
    torch.testing.assert_close(out[:, :, real], wanted, **CLOSE)
    torch.testing.assert_close(last, state, **CLOSE)


@pytest.mark.parametrize("groups", (1, 2))
def test_update_is_a_scan_step_by_step(groups):
    tensors = double(problem(12, dim=6, groups=groups)[0])
    whole, last = run(tensors)
    state = tensors["initial_state"].reshape(2, groups, -1, 4).clone()
    heads = lambda x: x.reshape(*x.shape[:-1], groups, -1)  # noqa: E731
    of_channel = lambda x: x.reshape(groups, -1, *x.shape[1:])  # noqa: E731
    for t in range(12):
        out = selective_state_update(
            state,
            *(heads(tensors[k][:, :, t]) for k in ("u", "delta")),
            of_channel(tensors["A"]),
            *(tensors[k][..., t] for k in "BC"),
            of_channel(tensors["D"]),
            heads(tensors["z"][:, :, t]),
            of_channel(tensors["delta_bias"]),
            dt_softplus=True,
        )
        torch.testing.assert_close(out.flatten(1), whole[:, :, t], **CLOSE)
    torch.testing.assert_close(state.flatten(1, 2), last, **CLOSE)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_gradients(kind):
    options = {"dim": 2, "n_states": 2, "batch": 1} | KINDS[kind]
    if "groups" in options:
        options |= {"dim": 2, "groups": 2}
    tensors = double(problem(3, **options)[0])
    exact = [x.to(torch.complex128) if x.is_complex() else x for x in tensors.values()]
    leaves = [x.clone().requires_grad_() for x in exact]
    packed = torch.tensor([[0, 1, 1]], dtype=torch.int32)

    def op(*inputs):
        return run(dict(zip(tensors, inputs, strict=True)), seq_idx=packed)

    assert gradcheck(op, leaves, fast_mode=True)
    assert gradgradcheck(op, leaves, fast_mode=True)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"u": torch.zeros(2, 19)}, r"u must be \(B, D, L\)"),
        ({"delta": torch.zeros(2, 19, 6)}, r"delta must be \(B, D, L\) = \(2, 19, 5\)"),
        ({"A": torch.zeros(18, 4)}, r"A must be \(D, N\) with D = 19"),
        ({"B": torch.zeros(2, 3, 4, 5)}, "3 groups, which don't divide 19"),
        ({"C": torch.zeros(2, 4, 10)}, r"C must be \(B, N, L\) = \(2, 4, 5\), got \(2, 4, 10\)"),
        ({"B": torch.zeros(19, 4, dtype=torch.complex64)}, "B of 2 axes must be like A"),
        ({"u": torch.zeros(2, 19, 5, dtype=torch.int64)}, "u must be floating point"),
        ({"seq_idx": torch.zeros(2, 5)}, "seq_idx must be int32 or int64, got torch.float32"),
        ({"initial_state": torch.zeros(2, 19, 3)}, r"initial_state must be \(B, D, N\)"),
        ({"z": torch.zeros(2, 19, 5, device="meta")}, "z is on meta, but u is on cpu"),
        ({"backend": "cuda"}, "unknown backend 'cuda'"),
    ],
)
def test_refuses_what_does_not_fit(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        selective_scan(**{**problem(5)[0], **change})


def test_named_cpu_backend_refuses_float64():
    with pytest.raises(ValueError, match="no cpu backend for these arguments"):
        selective_scan(**double(problem(5)[0]), backend="cpu")
