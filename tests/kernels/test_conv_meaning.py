"""Laws of the causal convolution's reference, in float64, and what its border refuses."""

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from tristate.kernels import conv
from tristate.kernels.conv import causal_conv1d_update

causal_conv1d: Any = conv.causal_conv1d  # a tensor or two, as it is asked

WIDTHS = (1, 2, 3, 4, 7)


def tensors(length: int, width: int, *, batch: int = 2, dim: int = 5):
    generator = torch.Generator().manual_seed(length * 10 + width)
    shapes = (batch, dim, length), (dim, width), (dim,), (batch, dim, width - 1)
    return [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("length", (1, 2, 7, 65))
def test_is_a_padded_convolution(width, length):
    x, weight, bias, state = tensors(length, width)
    plain = F.conv1d(torch.cat([state, x], 2), weight[:, None], bias, groups=x.shape[1])
    torch.testing.assert_close(causal_conv1d(x, weight, bias, initial_states=state), plain)
    for name in ("silu", "swish"):
        out = causal_conv1d(x, weight, bias, initial_states=state, activation=name)
        torch.testing.assert_close(out, F.silu(plain))
    first = causal_conv1d(x, weight)
    torch.testing.assert_close(
        first, F.conv1d(F.pad(x, (width - 1, 0)), weight[:, None], groups=x.shape[1])
    )


@pytest.mark.parametrize("reverse", (False, True))
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("cut", (1, 2, 9, 16))
def test_two_pieces_with_the_state_handed_over_are_the_whole(width, cut, reverse):
    x, weight, bias, state = tensors(17, width)
    options = {"reverse": reverse, "return_final_states": True, "activation": "silu"}
    whole, last = causal_conv1d(x, weight, bias, initial_states=state, **options)
    pieces = x[:, :, :cut], x[:, :, cut:]
    outs = []
    for piece in reversed(pieces) if reverse else pieces:
        out, state = causal_conv1d(piece, weight, bias, initial_states=state, **options)
        outs.append(out)
    torch.testing.assert_close(torch.cat(outs[::-1] if reverse else outs, 2), whole)
    torch.testing.assert_close(state, last)


@pytest.mark.parametrize("width", WIDTHS)
def test_reverse_is_the_flip_of_the_flipped(width):
    x, weight, bias, state = tensors(19, width)
    segments = torch.tensor([[0] * 4 + [1] * 8 + [-1] * 3 + [1] * 4, [-1] * 2 + [5] * 17])
    out, last = causal_conv1d(
        x.flip(2),
        weight,
        bias,
        seq_idx=segments.flip(1),
        initial_states=state,
        return_final_states=True,
    )
    got, got_last = causal_conv1d(
        x,
        weight,
        bias,
        seq_idx=segments,
        initial_states=state,
        return_final_states=True,
        reverse=True,
    )
    torch.testing.assert_close(got, out.flip(2))
    torch.testing.assert_close(got_last, last)


@pytest.mark.parametrize("width", WIDTHS)
def test_packed_sequences_are_separate_ones(width):
    x, weight, bias, state = tensors(20, width, batch=1)
    lengths = (3, 1, 1, 9, 6)
    # The third segment bears the first one's number: what counts is that it changed.
    segments = torch.tensor([4, 0, 4, 2, 7]).repeat_interleave(torch.tensor(lengths))[None]
    out, last = causal_conv1d(
        x, weight, bias, seq_idx=segments, initial_states=state, return_final_states=True
    )
    parts = x.split(lengths, 2)
    alone = [
        causal_conv1d(part, weight, bias, initial_states=state if i == 0 else None)
        for i, part in enumerate(parts)
    ]
    torch.testing.assert_close(out, torch.cat(alone, 2))
    _, alone_last = causal_conv1d(parts[-1], weight, bias, return_final_states=True)
    torch.testing.assert_close(last, alone_last)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("reverse", (False, True))
def test_padding_is_as_if_it_were_not_there(width, reverse):
    x, weight, bias, state = tensors(12, width, batch=1)
    real = torch.tensor([0, 0, 1, 1, 0, 1, 0, 1, 1, 1, 0, 0]).bool()
    segments = torch.where(real, 3, -1)[None]
    x = x.where(real, torch.nan)  # what stands in the padding must not matter
    options = {"initial_states": state, "return_final_states": True, "reverse": reverse}
    out, last = causal_conv1d(x, weight, bias, seq_idx=segments, activation="silu", **options)
    alone, alone_last = causal_conv1d(x[:, :, real], weight, bias, activation="silu", **options)
    torch.testing.assert_close(out[:, :, real], alone)
    torch.testing.assert_close(last, alone_last)
    assert not out[:, :, ~real].any()


def test_all_padding_hands_the_state_through():
    x, weight, bias, state = tensors(6, 4)
    segments = torch.full((2, 6), -1)
    out, last = causal_conv1d(
        x, weight, bias, seq_idx=segments, initial_states=state, return_final_states=True
    )
    assert not out.any()
    torch.testing.assert_close(last, state)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("steps", (1, 3))
@pytest.mark.parametrize("ring", (False, True))
def test_update_is_the_convolution_step_by_step(width, steps, ring):
    x, weight, bias, _ = tensors(12, width)
    whole = causal_conv1d(x, weight, bias, activation="silu")
    state = x.new_zeros(2, x.shape[1], max(width - 1, steps) + 2)
    outs = []
    for start in range(0, 12, steps):
        piece = x[:, :, start : start + steps]
        piece = piece[:, :, 0] if steps == 1 else piece
        seen = torch.full((2,), start, dtype=torch.int32) if ring else None
        out = causal_conv1d_update(piece, state, weight, bias, "silu", cache_seqlens=seen)
        outs.append(out[:, :, None] if steps == 1 else out)
    torch.testing.assert_close(torch.cat(outs, 2), whole)


def test_ring_rows_may_have_seen_different_numbers_of_inputs():
    x, weight, bias, _ = tensors(9, 3)
    whole = causal_conv1d(x, weight, bias)
    seen = torch.tensor([4, 8])
    state = x.new_zeros(2, x.shape[1], 5)
    for row, n in enumerate(seen.tolist()):
        for position in range(max(0, n - 5), n):
            state[row, :, position % 5] = x[row, :, position]
    new = torch.stack([x[row, :, n] for row, n in enumerate(seen.tolist())])
    out = causal_conv1d_update(new, state, weight, bias, None, seen)
    torch.testing.assert_close(out, torch.stack([whole[0, :, 4], whole[1, :, 8]]))


@pytest.mark.parametrize("reverse", (False, True))
@pytest.mark.parametrize("packed", (False, True))
def test_gradients_and_their_gradients(packed, reverse):
    x, weight, bias, state = (t.requires_grad_() for t in tensors(5, 3, dim=2))
    segments = torch.tensor([[0, 0, 1, -1, 1], [-1, 2, 2, 2, 3]]) if packed else None

    def op(x, weight, bias, state):
        return causal_conv1d(
            x,
            weight,
            bias,
            seq_idx=segments,
            initial_states=state,
            activation="silu",
            return_final_states=True,
            reverse=reverse,
        )

    assert torch.autograd.gradcheck(op, (x, weight, bias, state))
    assert torch.autograd.gradgradcheck(op, (x, weight, bias, state))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"x": torch.ones(2, 3)}, r"x must be \(B, D, L\), got \(2, 3\)"),
        ({"weight": torch.ones(4, 4)}, r"weight must be .* D = 3"),
        ({"bias": torch.ones(2)}, r"bias must be .*\(3,\), got \(2,\)"),
        ({"initial_states": torch.ones(2, 3, 4)}, r"initial_states must be .*\(2, 3, 3\)"),
        ({"seq_idx": torch.ones(2, 6, dtype=torch.int32)}, r"seq_idx must be .*\(2, 5\)"),
        ({"seq_idx": torch.ones(2, 5)}, "seq_idx must be int32 or int64"),
        ({"activation": "gelu"}, "'gelu'"),
        ({"x": torch.ones(2, 3, 5).long()}, "floating point"),
        ({"backend": "cuda"}, "unknown backend"),
        ({"weight": torch.ones(3, 9), "backend": "cpu"}, "no cpu backend for these arguments"),
    ],
)
def test_refuses_what_cannot_be(change, said):
    arguments = {"x": torch.ones(2, 3, 5), "weight": torch.ones(3, 4)}
    with pytest.raises(ValueError, match=said):
        causal_conv1d(**{**arguments, **change})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"x": torch.ones(2)}, "x must be"),
        ({"conv_state": torch.ones(2, 3, 2)}, "at least 3"),
        ({"cache_seqlens": torch.ones(3).int()}, r"cache_seqlens must be .*\(2,\)"),
        ({"x": torch.ones(2, 3, 9), "cache_seqlens": torch.ones(2).int()}, "9 steps at once"),
    ],
)
def test_update_refuses_what_cannot_be(change, said):
    arguments = {
        "x": torch.ones(2, 3),
        "conv_state": torch.ones(2, 3, 4),
        "weight": torch.ones(3, 4),
    }
    with pytest.raises(ValueError, match=said):
        causal_conv1d_update(**{**arguments, **change})
