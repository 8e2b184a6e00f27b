"""What Mamba-2's scan means, by its reference in float64."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from tests.kernels.scans import wide
from tests.kernels.selective import segments
from tests.kernels.ssd import KINDS, problem
from tristate.kernels.selective import selective_scan, selective_state_update
from tristate.kernels.ssd import ssd_scan

CLOSE = {"rtol": 1e-10, "atol": 1e-10}
OF_TIME = ("x", "dt", "B", "C", "z")


def run(tensors, **options):
    return ssd_scan(**tensors, **{"dt_softplus": True, "return_final_states": True, **options})


def piece(tensors, first, end):
    """The inputs from one position to another, without an initial state."""
    cut = {k: tensors[k][:, first:end] for k in OF_TIME if tensors[k] is not None}
    return tensors | cut | {"initial_states": None}


@pytest.fixture(params=("all", "groups"))
def tensors(request):
    return wide(problem(23, **KINDS[request.param])[0])


def test_is_a_selective_scan_with_one_rate_a_head(tensors):
    heads, width = tensors["x"].shape[2:]
    repeated = lambda x: x.repeat_interleave(width, -1)  # noqa: E731
    channels = lambda x: x.flatten(2).transpose(1, 2)  # noqa: E731
    wanted, last = selective_scan(
        channels(tensors["x"]),
        repeated(tensors["dt"]).transpose(1, 2),
        repeated(tensors["A"])[:, None].expand(-1, tensors["B"].shape[3]),
        tensors["B"].permute(0, 2, 3, 1),
        tensors["C"].permute(0, 2, 3, 1),
        tensors["D"].flatten(),
        channels(tensors["z"]),
        repeated(tensors["dt_bias"]),
        delta_softplus=True,
        return_last_state=True,
        initial_state=tensors["initial_states"].flatten(1, 2),
    )
    out, state = run(tensors)
    torch.testing.assert_close(channels(out), wanted, **CLOSE)
    torch.testing.assert_close(state.flatten(1, 2), last, **CLOSE)


@pytest.mark.parametrize("reverse", (False, True))
def test_two_pieces_are_the_whole(tensors, reverse):
    whole, last = run(tensors, reverse=reverse)
    first, second = piece(tensors, 0, 9), piece(tensors, 9, 23)
    if reverse:
        first, second = second, first
    first["initial_states"] = tensors["initial_states"]
    head, state = run(first, reverse=reverse)
    tail, end = run(second | {"initial_states": state}, reverse=reverse)
    pieces = [tail, head] if reverse else [head, tail]
    torch.testing.assert_close(torch.cat(pieces, 1), whole, **CLOSE)
    torch.testing.assert_close(end, last, **CLOSE)


def test_reverse_is_a_flip(tensors):
    packed = segments(23)
    out, last = run(tensors, reverse=True, seq_idx=packed)
    flipped = tensors | {k: tensors[k].flip(1) for k in OF_TIME}
    mirrored, wanted = run(flipped, seq_idx=packed.flip(1))
    torch.testing.assert_close(out, mirrored.flip(1), **CLOSE)
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
            alone["initial_states"] = tensors["initial_states"]
        wanted, state = run(alone, reverse=reverse)
        torch.testing.assert_close(out[:, first:end], wanted, **CLOSE)
        if k == (0 if reverse else len(ends) - 1):
            torch.testing.assert_close(last, state, **CLOSE)


def test_cu_seqlens_says_where_segments_start():
    tensors = wide(problem(23, batch=1)[0])
    starts = torch.tensor([0, 4, 4, 5, 16, 23])
    index = torch.tensor([0, 2, 3, 4]).repeat_interleave(torch.tensor([4, 1, 11, 7])).int()
    wanted = run(tensors, seq_idx=index[None])
    torch.testing.assert_close(run(tensors, cu_seqlens=starts), wanted, rtol=0, atol=0)


@pytest.mark.parametrize("reverse", (False, True))
def test_padding_is_as_if_it_were_not_there(tensors, reverse):
    row = torch.tensor([-1, 3, 3, -1, -1, 3, 4, -5, 4, *[4] * 12, -1, -1]).int()
    real = row >= 0
    out, last = run(tensors, seq_idx=row.expand(2, 23), reverse=reverse)
    without = tensors | {k: tensors[k][:, real] for k in OF_TIME}
    wanted, state = run(without, seq_idx=row[real].expand(2, -1), reverse=reverse)
    assert (out[:, ~real] == 0).all()
    torch.testing.assert_close(out[:, real], wanted, **CLOSE)
    torch.testing.assert_close(last, state, **CLOSE)


def test_update_is_a_scan_step_by_step(tensors):
    whole, last = run(tensors)
    state = tensors["initial_states"].clone()
    _, heads, width, n_states = state.shape
    per_channel = lambda x: x[..., None].expand(*x.shape, width)  # noqa: E731
    for t in range(23):
        out = selective_state_update(
            state,
            tensors["x"][:, t],
            per_channel(tensors["dt"][:, t]),
            tensors["A"][:, None, None].expand(heads, width, n_states),
            tensors["B"][:, t],
            tensors["C"][:, t],
            tensors["D"],
            tensors["z"][:, t],
            per_channel(tensors["dt_bias"]),
            dt_softplus=True,
        )
        torch.testing.assert_close(out, whole[:, t], **CLOSE)
    torch.testing.assert_close(state, last, **CLOSE)


def test_steps_are_limited_after_the_softplus():
    tensors = wide(problem(9, absent=("dt_bias",))[0])
    got = run(tensors, dt_limit=(0.3, 0.9))
    steps = torch.nn.functional.softplus(tensors["dt"]).clamp(0.3, 0.9)
    wanted = run(tensors | {"dt": steps}, dt_softplus=False)
    torch.testing.assert_close(got, wanted, **CLOSE)


@pytest.mark.parametrize("kind", ("all", "groups", "D per head"))
def test_gradients_of_gradients(kind):
    options = KINDS[kind] | {"heads": 2, "width": 2, "n_states": 2, "batch": 1}
    if "groups" in options:
        options["groups"] = 2
    tensors = wide(problem(3, **options)[0])
    leaves = [x.clone().requires_grad_() for x in tensors.values()]
    packed = torch.tensor([[0, 1, 1]], dtype=torch.int32)

    def op(*inputs):
        return run(dict(zip(tensors, inputs, strict=True)), seq_idx=packed, dt_limit=(0.05, 5))

    assert gradcheck(op, leaves, fast_mode=True)
    assert gradgradcheck(op, leaves, fast_mode=True)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"x": torch.zeros(2, 5, 3)}, r"x must be \(B, L, H, P\)"),
        ({"dt": torch.zeros(2, 5, 4)}, r"dt must be \(B, L, H\) = \(2, 5, 3\)"),
        ({"A": torch.zeros(3, 5)}, r"A must be \(H,\) = \(3,\)"),
        ({"B": torch.zeros(2, 5, 2, 5)}, "2 groups, which don't divide 3"),
        ({"B": torch.zeros(2, 4, 1, 5)}, r"B must be \(B, L, G, N\) = \(2, 5, ...\)"),
        ({"C": torch.zeros(2, 5, 1, 6)}, r"C must be the shape of B = \(2, 5, 1, 5\)"),
        ({"D": torch.zeros(4)}, r"D must be \(H,\) = \(3,\) or \(H, P\) = \(3, 4\), got \(4,\)"),
        ({"x": torch.zeros(2, 5, 3, 4, dtype=torch.int64)}, "x must be floating point"),
        ({"seq_idx": torch.zeros(2, 5)}, "seq_idx must be int32 or int64, got torch.float32"),
        ({"cu_seqlens": torch.tensor([0, 5])}, "with x of batch 1"),
        ({"initial_states": torch.zeros(2, 3, 5, 4)}, r"initial_states must be \(B, H, P, N\)"),
        ({"z": torch.zeros(2, 5, 3, 4, device="meta")}, "z is on meta, but x is on cpu"),
        ({"dt_limit": (1.0, 0.5)}, r"dt_limit must be \(least, largest\)"),
        ({"chunk_size": 0}, "chunk_size must be at least 1"),
        ({"backend": "cuda"}, "unknown backend 'cuda'"),
    ],
)
def test_refuses_what_does_not_fit(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        ssd_scan(**{**problem(5)[0], **change})


@pytest.mark.parametrize("starts", ([0, 3], [1, 5], [0, 4, 2, 5]))
def test_refuses_segments_that_do_not_cover_the_sequence(starts):
    with pytest.raises(ValueError, match="cu_seqlens must rise from 0 to L = 5"):
        ssd_scan(**problem(5, batch=1)[0], cu_seqlens=torch.tensor(starts))


def test_named_cpu_backend_refuses_float64():
    with pytest.raises(ValueError, match="no cpu backend for these arguments"):
        ssd_scan(**wide(problem(5)[0]), backend="cpu")
