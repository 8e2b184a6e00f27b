"""Attention against its formula, with each option, and rows of unequal length from a cache."""

import pytest
import torch

from tristate.core.mixers.attention import Attention
from tristate.core.parts.attention import Rotary, attend

H, G, P = 4, 2, 6


def places_of(seq_idx):
    """Each position's place in its own sequence, and a number of that sequence; -1 at padding."""
    places, numbers = torch.full_like(seq_idx, -1), torch.full_like(seq_idx, -1)
    for row, ids in enumerate(seq_idx.tolist()):
        last, number, place = None, -1, 0
        for t, name in enumerate(ids):
            if name < 0:
                continue
            if name != last:
                last, number, place = name, number + 1, 0
            places[row, t], numbers[row, t] = place, number
            place += 1
    return places, numbers


def plain(q, k, v, places, numbers, causal, window, rotary):
    """Softmax attention by its definition, a pair of positions at a time."""
    if rotary is not None:
        half = rotary.width // 2
        turn = rotary.base ** (-torch.arange(half).double() / half)

        def rotated(x):
            pairs = torch.complex(x[..., :half], x[..., half : 2 * half])
            pairs = pairs * torch.polar(torch.ones(()).double(), places[..., None, None] * turn)
            return torch.cat([pairs.real, pairs.imag, x[..., 2 * half :]], -1)

        q, k = rotated(q), rotated(k)
    y = torch.zeros_like(q)
    for b in range(q.shape[0]):
        for t in range(q.shape[1]):
            far = places[b] - places[b, t]
            seen = numbers[b] == numbers[b, t]
            seen &= (far <= 0) if causal else torch.ones_like(seen)
            seen &= far.abs() < (window or 10**6)
            if numbers[b, t] < 0:
                continue
            for h in range(H):
                scores = k[b, seen, h * G // H] @ q[b, t, h] * P**-0.5
                y[b, t, h] = scores.softmax(0) @ v[b, seen, h * G // H]
    return y


SEGMENTS = [[0] * 23, [4] * 5 + [-1] * 3 + [4] * 4 + [2, 2, -1] + [4] * 8, [-1] * 4 + [7] * 19]


@pytest.mark.parametrize("rotary", [None, Rotary(100.0, 4), Rotary(10_000.0, 6)])
@pytest.mark.parametrize("window", [None, 1, 4, 30])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("packed", [True, False])
def test_is_the_formula(causal, window, rotary, packed):
    torch.manual_seed(0)
    seq_idx = torch.tensor(SEGMENTS) if packed else torch.zeros(3, 23, dtype=torch.int64)
    q = torch.randn(3, 23, H, P).double()
    k, v = torch.randn(2, 3, 23, G, P).double()
    expected = plain(q, k, v, *places_of(seq_idx), causal, window, rotary)
    options = {"causal": causal, "window": window, "rotary": rotary}
    got = attend(q, k, v, seq_idx=seq_idx if packed else None, **options)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("window", [None, 1, 2, 5, 40])
def test_rows_of_unequal_length_go_on_as_they_would_alone(window):
    torch.manual_seed(0)
    mixer = Attention(12, n_heads=4, n_kv_heads=2, window=window).double()
    lengths, more = (9, 1, 0, 5), 11
    rows = [torch.randn(1, n + more, 12).double() for n in lengths]
    batch, seq_idx = torch.randn(4, 9, 12).double(), torch.full((4, 9), -1)
    for index, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        # Padding in front, behind and in between.
        places = torch.randperm(9)[:length].sort().values
        batch[index, places], seq_idx[index, places] = row[0, :length], 3
    rest = torch.cat([row[:, n:] for row, n in zip(rows, lengths, strict=True)])
    expected = torch.cat([mixer(row)[:, -more:] for row in rows])

    _, state = mixer.forward_state(batch, seq_idx=seq_idx)
    together, _ = mixer.forward_state(rest, state)
    torch.testing.assert_close(together, expected)
    steps = []
    for t in range(more):
        y, state = mixer.step(rest[:, t], state)
        steps.append(y)
    torch.testing.assert_close(torch.stack(steps, 1), expected)
    if window is not None:
        assert state.keys.shape == (4, window - 1, 2, 3)


def test_a_new_sequence_forgets_what_a_state_holds():
    torch.manual_seed(0)
    mixer, x = Attention(12, window=6).double(), torch.randn(2, 10, 12).double()
    _, state = mixer.forward_state(x[:, :4])
    seq_idx = torch.tensor([[0] * 3 + [1] * 3, [0] * 6])
    y, state = mixer.forward_state(x[:, 4:], state, seq_idx=seq_idx)
    torch.testing.assert_close(y[1], mixer(x)[1, 4:])
    torch.testing.assert_close(y[0, :3], mixer(x)[0, 4:7])
    torch.testing.assert_close(y[0, 3:], mixer(x[:1, 7:])[0])
    assert state.present.tolist() == [[0, 0, 1, 1, 1], [1] * 5]


def test_a_window_takes_no_more_memory_than_it_needs():
    mixer = Attention(12, window=16)
    shapes = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                shapes.append(out.numel())
            return out

    with torch.no_grad(), Watch():
        mixer(torch.randn(1, 512, 12))
    assert max(shapes) <= 4 * 512 * 2 * 16  # heads times length times two windows


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n_heads": 5}, "5 heads"),
        ({"n_kv_heads": 3}, "4 heads with 3"),
        ({"window": 0}, "window must be at least 1"),
        ({"rotary_fraction": 2.0}, "share"),
    ],
)
def test_refuses(options, words):
    with pytest.raises(ValueError, match=words):
        Attention(12, **options)
