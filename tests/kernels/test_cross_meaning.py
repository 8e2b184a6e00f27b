"""What scans along several routes mean, by their reference in float64."""

from typing import Any

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from tests.kernels.cross import both, branches, map_problem, sequence_problem
from tests.kernels.laws import double
from tests.kernels.selective import segments
from tristate.kernels.cross import (
    CROSS,
    bidirectional_selective_scan,
    cross_merge,
    cross_restore,
    cross_scan,
    selective_scan_2d,
)
from tristate.kernels.selective import selective_scan

CLOSE = {"rtol": 1e-10, "atol": 1e-10}
scan: Any = selective_scan
TRANSPOSED = ("columns", "rows", "columns_back", "rows_back")


def test_routes_by_hand():
    x = torch.arange(6).reshape(1, 1, 2, 3)
    wanted = [[0, 1, 2, 3, 4, 5], [0, 3, 1, 4, 2, 5], [5, 4, 3, 2, 1, 0], [5, 2, 4, 1, 3, 0]]
    assert cross_scan(x)[0, :, 0].tolist() == wanted
    assert cross_scan(x, ("columns", "columns"))[0, :, 0].tolist() == [wanted[1]] * 2


@pytest.mark.parametrize("routes", (CROSS, ("rows", "rows", "rows_back", "columns")))
def test_restoring_undoes_the_scan_and_merging_sums(routes):
    maps = torch.randn(2, 4, 3, 5, 7)
    sequences = cross_scan(maps, routes)
    assert torch.equal(cross_restore(sequences, 5, 7, routes), maps)
    torch.testing.assert_close(cross_merge(sequences, 5, 7, routes), maps.sum(1))


@pytest.mark.parametrize("one_map", (True, False))
def test_a_map_is_scanned_by_its_routes_and_merged(one_map):
    x = double(map_problem(3, 5, one_map=one_map)[0])
    routes = ("columns_back", "rows", "columns", "columns")
    read = {k: cross_scan(x[k], routes) for k in ("u", "delta", "B", "C")}
    y = scan(
        read["u"].flatten(1, 2),
        read["delta"].flatten(1, 2),
        x["A"].flatten(0, 1),
        read["B"],
        read["C"],
        x["D"].flatten(),
        delta_bias=x["delta_bias"].flatten(),
        delta_softplus=True,
    )
    wanted = cross_merge(y.unflatten(1, (4, -1)), 3, 5, routes)
    got = selective_scan_2d(**x, delta_softplus=True, routes=routes)
    torch.testing.assert_close(got, wanted, **CLOSE)


def test_transposing_the_map_swaps_rows_and_columns():
    x = double(map_problem(4, 7)[0])
    turned = {k: t.transpose(-1, -2) if t.shape[-2:] == (4, 7) else t for k, t in x.items()}
    got = selective_scan_2d(**turned, delta_softplus=True, routes=TRANSPOSED)
    wanted = selective_scan_2d(**x, delta_softplus=True)
    torch.testing.assert_close(got.transpose(-1, -2), wanted, **CLOSE)


@pytest.mark.parametrize("shared", ("z", "u delta B C D delta_bias z", "A delta"))
@pytest.mark.parametrize("packed", (False, True))
def test_two_directions_are_two_scans(shared, packed):
    inputs = double(sequence_problem(23, shared=shared)[0])
    options = {"delta_softplus": True, "seq_idx": segments(23) if packed else None}
    ahead, back = branches(inputs)
    total = scan(**ahead, **options) + scan(**back, **options, reverse=True)
    wanted = total * torch.nn.functional.silu(inputs["z"])
    torch.testing.assert_close(both(**inputs, **options), wanted, **CLOSE)


def test_a_flip_in_time_swaps_the_branches():
    inputs = double(sequence_problem(23)[0])
    flip = lambda name, x: x.flip(-1) if name in ("u", "delta", "B", "C") else x  # noqa: E731
    ahead, back = ({k: flip(k, x) for k, x in b.items()} for b in branches(inputs))
    packed = segments(23)
    got = bidirectional_selective_scan(
        **{k: (back[k], ahead[k]) for k in ahead},
        z=inputs["z"].flip(2),
        delta_softplus=True,
        seq_idx=packed.flip(1),
    )
    wanted = both(**inputs, delta_softplus=True, seq_idx=packed)
    torch.testing.assert_close(got.flip(2), wanted, **CLOSE)


def test_packed_is_separate():
    inputs = double(sequence_problem(23)[0])
    index = torch.tensor([7, 2, 30]).repeat_interleave(torch.tensor([4, 1, 18])).int()
    got = both(**inputs, delta_softplus=True, seq_idx=index.expand(2, 23))
    steps = lambda name: name.removesuffix("_back") in ("u", "delta", "B", "C", "z")  # noqa: E731
    for first, end in ((0, 4), (4, 5), (5, 23)):
        alone = {k: x[..., first:end] if steps(k) else x for k, x in inputs.items()}
        wanted = both(**alone, delta_softplus=True)
        torch.testing.assert_close(got[:, :, first:end], wanted, **CLOSE)


def test_padding_is_as_if_it_were_not_there():
    inputs = double(sequence_problem(23)[0])
    row = torch.tensor([-1, 3, 3, -1, -1, 3, 4, -5, 4, *[4] * 12, -1, -1]).int()
    real = row >= 0
    got = both(**inputs, delta_softplus=True, seq_idx=row.expand(2, 23))
    without = {k: x[..., real] if x.shape[-1] == 23 else x for k, x in inputs.items()}
    wanted = both(**without, delta_softplus=True, seq_idx=row[real].expand(2, -1))
    assert (got[:, :, ~real] == 0).all()
    torch.testing.assert_close(got[:, :, real], wanted, **CLOSE)


@pytest.mark.parametrize("op", ("sequence", "map"))
def test_gradients_of_gradients(op):
    sizes = {"dim": 2, "n_states": 2, "batch": 1}
    problem = sequence_problem(3, **sizes) if op == "sequence" else map_problem(2, 2, **sizes)
    op = both if op == "sequence" else selective_scan_2d
    tensors = double(problem[0])

    def function(*leaves):
        return op(**dict(zip(tensors, leaves, strict=True)), delta_softplus=True)

    leaves = [x.clone().requires_grad_() for x in tensors.values()]
    assert gradcheck(function, leaves, fast_mode=True)
    assert gradgradcheck(function, leaves, fast_mode=True)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"u": (torch.zeros(2, 19, 5),) * 3}, "u must be a tensor or a pair, got 3 tensors"),
        ({"A": (torch.zeros(19, 4), torch.zeros(19, 3))}, r"both A must be alike, got .*\(19, 4\)"),
        ({"A": -torch.ones(19, 4) + 0j}, "A must be real, got torch.complex64"),
        ({"delta": torch.zeros(2, 19, 6)}, r"delta must be \(B, D, L\) = \(2, 19, 5\)"),
        ({"seq_idx": torch.zeros(2, 5)}, "seq_idx must be int32 or int64"),
        ({"z": torch.zeros(2, 19, 5, device="meta")}, "z is on meta, but u is on cpu"),
        ({"backend": "cuda"}, "unknown backend 'cuda'"),
    ],
)
def test_two_directions_refuse_what_does_not_fit(change, sentence):
    plain = branches(sequence_problem(5)[0])[0]
    with pytest.raises(ValueError, match=sentence):
        bidirectional_selective_scan(**{**plain, **change})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"u": torch.zeros(2, 19, 5)}, r"u must be \(B, D, H, W\) or \(B, K, D, H, W\)"),
        ({"u": torch.zeros(2, 3, 19, 2, 3)}, r"u must be \(B, K, D, H, W\) = \(2, 4, 19, 2, 3\)"),
        ({"delta": torch.zeros(2, 4, 19, 3, 2)}, r"delta must be .* = \(2, 4, 19, 2, 3\)"),
        ({"A": torch.zeros(76, 4)}, r"A must be \(K, D, N\) = \(4, 19, N\), got \(76, 4\)"),
        ({"B": torch.zeros(2, 4, 3, 2, 3)}, r"B must be \(B, K, N, H, W\) = \(2, 4, 4, 2, 3\)"),
        ({"D": torch.zeros(76)}, r"D must be \(K, D\) = \(4, 19\)"),
        ({"routes": ("rows", "colums")}, "unknown route 'colums'; did you mean columns"),
        ({"routes": ()}, "at least one route"),
        ({"A": torch.zeros(4, 19, 4).long()}, "A must be floating point"),
    ],
)
def test_a_map_refuses_what_does_not_fit(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        selective_scan_2d(**{**map_problem(2, 3)[0], **change})


def test_cross_scan_and_merge_refuse_what_does_not_fit():
    with pytest.raises(ValueError, match=r"x must be \(B, D, H, W\) or \(B, 4, D, H, W\)"):
        cross_scan(torch.zeros(2, 3, 3, 2, 2))
    with pytest.raises(ValueError, match=r"y must be \(B, 4, D, 6\), got \(2, 4, 3, 5\)"):
        cross_merge(torch.zeros(2, 4, 3, 5), 2, 3)
