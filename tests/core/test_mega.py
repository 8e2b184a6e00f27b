"""Mega: its moving average and its chunks of attention, against loops."""

import math

import pytest
import torch
from torch.nn import functional as F

from tristate.core.activation import laplace, relu2
from tristate.core.mixers.ema import DampedEMA
from tristate.core.mixers.mega import Mega, MegaLayer
from tristate.core.parts.chunked_attention import ChunkedAttention, RotaryBias, SimpleBias

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def averages(ema, x, direction=0):
    """The recurrence, position by position, of one direction; ``x (B, L, D)``."""
    size = ema.d_model
    part = slice(direction * size, (direction + 1) * size)
    alpha, delta = ema.alpha[part].sigmoid(), ema.delta[part].sigmoid()
    h, outputs = torch.zeros(x.shape[0], size, ema.d_state, dtype=x.dtype), []
    for step in x.unbind(1):
        h = (1 - alpha * delta) * h + delta * ema.beta[part] * step[..., None]
        outputs.append((h * ema.gamma[part]).sum(-1) / math.sqrt(ema.d_state))
    return torch.stack(outputs, 1)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_average_is_its_recurrence(bidirectional):
    ema = DampedEMA(5, d_state=3, bidirectional=bidirectional).double()
    x = torch.randn(2, 17, 5, dtype=torch.float64)
    total = averages(ema, x)
    if bidirectional:
        total = total + averages(ema, x.flip(1), 1).flip(1)
    torch.testing.assert_close(ema(x), F.silu(total + ema.omega * x))


@pytest.mark.parametrize("bidirectional", [False, True])
def test_packed_averages_equal_separate_ones(bidirectional):
    ema = DampedEMA(5, d_state=3, bidirectional=bidirectional)
    parts = [torch.randn(1, n, 5) for n in (4, 1, 9)]
    seq_idx = torch.tensor([[0] * 4 + [1] + [-1] * 2 + [2] * 9])
    row = torch.cat([parts[0], parts[1], torch.randn(1, 2, 5), parts[2]], 1)
    y = ema(row, seq_idx=seq_idx)
    assert (y[:, 5:7] == 0).all()
    wanted = torch.cat([ema(part) for part in parts], 1)
    torch.testing.assert_close(y[:, seq_idx[0] >= 0], wanted, **CLOSE)


def test_a_truncated_average_forgets():
    ema = DampedEMA(4, truncation=5)
    assert ema.memory == "window" and not ema.packs
    x = torch.randn(1, 20, 4)
    other = x.clone()
    other[:, :4] += 1
    torch.testing.assert_close(ema(x)[:, 8:], ema(other)[:, 8:], **CLOSE)
    state, outputs = ema.init_state(1), []
    for t in range(20):
        y, state = ema.step(x[:, t], state)
        outputs.append(y)
    torch.testing.assert_close(torch.stack(outputs, 1), ema(x), **CLOSE)
    assert state.inputs.shape == (1, 4, 4)


def test_a_saturated_average_is_still_finite():
    ema = DampedEMA(2)
    with torch.no_grad():
        ema.alpha.fill_(40.0)
        ema.delta.fill_(40.0)
    x = torch.randn(1, 9, 2, requires_grad=True)
    ema(x).sum().backward()
    assert x.grad.isfinite().all() and ema.alpha.grad.isfinite().all()


def test_average_begins_as_released():
    ema = DampedEMA(2000, d_state=4)
    assert ema.beta.mean(0).round().tolist() == [1, -1, 1, -1]
    decays = 1 - ema.alpha.sigmoid() * ema.delta.sigmoid()
    assert decays.mean().item() == pytest.approx(0.75, abs=0.01)


def attention_by_hand(attention, q, k, v):
    """One chunk after another, one query after another."""
    size, outputs = attention.chunk_size or q.shape[1], []
    for start in range(0, q.shape[1], size):
        part = slice(start, min(start + size, q.shape[1]))
        qs, ks, vs = (x[:, part] for x in (q, k, v))
        n = qs.shape[1]
        bias = attention.bias(torch.arange(n), n)
        for i in range(n):
            seen = slice(0, i + 1 if attention.causal else n)
            scores = (qs[:, i : i + 1] * ks[:, seen]).sum(-1)
            if attention.attention == "softmax":
                w = (scores / math.sqrt(q.shape[2]) + bias[i, seen]).softmax(-1)
            else:
                f = {"laplace": laplace, "relu2": relu2}[attention.attention]
                w = f(scores / scores.shape[1] + bias[i, seen])
            outputs.append((w[..., None] * vs[:, seen]).sum(1))
    return torch.stack(outputs, 1)


@pytest.mark.parametrize("bias", [lambda: SimpleBias(16), lambda: RotaryBias(6)])
@pytest.mark.parametrize("attention", ["softmax", "laplace", "relu2"])
@pytest.mark.parametrize(
    ("chunk_size", "causal"), [(None, True), (4, True), (4, False), (5, False)]
)
def test_attention_is_its_sum(chunk_size, causal, attention, bias):
    model = ChunkedAttention(bias(), chunk_size=chunk_size, causal=causal, attention=attention)
    q, k, v = (torch.randn(2, 14, n) for n in (6, 6, 3))
    torch.testing.assert_close(model(q, k, v), attention_by_hand(model, q, k, v), **CLOSE)


def test_a_rotary_bias_depends_on_distances():
    bias = RotaryBias(8)
    with torch.no_grad():
        bias.alpha.normal_()
        bias.beta.normal_()
    table = bias(torch.arange(30), 30)
    torch.testing.assert_close(table[5:, 5:], table[:-5, :-5], **CLOSE)


def test_a_simple_bias_ends():
    with pytest.raises(ValueError, match="knows 8 positions, got 9"):
        SimpleBias(8)(torch.arange(9), 9)
    with pytest.raises(ValueError, match="larger max_positions, or attend in chunks"):
        Mega(4, chunk_size=None, max_positions=8)(torch.zeros(1, 9, 4))


VARIANTS = [
    {"chunk_size": 4},
    {"chunk_size": 4, "attention": "laplace", "position_bias": "rotary"},
    {"chunk_size": 5, "attention": "relu2"},
    {"chunk_size": 1},
    {"chunk_size": None},
    {"chunk_size": None, "attention": "laplace"},
    {"chunk_size": 4, "truncation": 3},
]


@pytest.mark.parametrize("options", VARIANTS)
@pytest.mark.parametrize("cut", [1, 3, 4, 7, 8, 13])
def test_pieces_and_steps_equal_the_whole(options, cut):
    mixer = Mega(6, d_attention=4, d_state=2, **options)
    x = torch.randn(2, 14, 6)
    whole = mixer(x)
    head, state = mixer.forward_state(x[:, :cut])
    tail, _ = mixer.forward_state(x[:, cut:], state)
    torch.testing.assert_close(torch.cat([head, tail], 1), whole, **CLOSE)
    for t in range(cut, 14):
        y, state = mixer.step(x[:, t], state)
        torch.testing.assert_close(y, whole[:, t], **CLOSE)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("attention", ["softmax", "laplace"])
def test_each_packed_sequence_has_chunks_of_its_own(attention, bidirectional):
    options = {"attention": attention, "bidirectional": bidirectional}
    mixer = Mega(6, d_attention=4, d_state=2, chunk_size=4, **options)
    lengths = (5, 1, 4, 9)
    parts = [torch.randn(1, n, 6, requires_grad=True) for n in lengths]
    seq_idx = torch.cat([torch.full((1, n), i) for i, n in enumerate(lengths)], 1)
    packed = mixer(torch.cat(parts, 1), seq_idx=seq_idx)
    torch.testing.assert_close(packed, torch.cat([mixer(p) for p in parts], 1), **CLOSE)
    packed.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in [*parts, *mixer.parameters()])


def test_packed_rows_that_end_apart_are_gone_on_with():
    mixer = Mega(6, d_attention=4, d_state=2, chunk_size=4)
    x, more = torch.randn(3, 9, 6), torch.randn(3, 6, 6)
    # One sequence; two, of which the second has three positions; one of six, and padding.
    seq_idx = torch.tensor([[0] * 9, [0] * 6 + [1] * 3, [0, -1, 0, 0, 0, -1, 0, 0, -1]])
    _, state = mixer.forward_state(x, seq_idx=seq_idx)
    assert state.filled.tolist() == [1, 3, 2]
    rest = [x[0], x[1, 6:], x[2, seq_idx[2] >= 0]]
    wanted = [mixer(torch.cat([r, m])[None])[:, -6:] for r, m in zip(rest, more, strict=True)]
    after, last = mixer.forward_state(more, state)
    torch.testing.assert_close(after, torch.cat(wanted), **CLOSE)
    # A row of nothing but padding leaves its state as it was.
    _, same = mixer.forward_state(more, state, seq_idx=torch.full((3, 6), -1))
    assert same.filled.tolist() == [1, 3, 2]
    again, _ = mixer.forward_state(more, same)
    torch.testing.assert_close(again, after, **CLOSE)
    assert last.filled.tolist() == [3, 1, 0]


def test_a_layer_goes_past_its_norm():
    mixer, norm = Mega(6, chunk_size=4), torch.nn.LayerNorm(6)
    x = torch.randn(2, 9, 6)
    u, h = mixer.gated(norm(x))
    torch.testing.assert_close(MegaLayer(mixer, before=norm)(x), (1 - u) * x + u * h)
    u, h = mixer.gated(x)
    torch.testing.assert_close(MegaLayer(mixer, after=norm)(x), norm((1 - u) * x + u * h))
    torch.testing.assert_close(x + mixer(x), (1 - u) * x + u * h)
    layer = MegaLayer(mixer, before=norm)
    state, outputs = layer.init_state(2), []
    for t in range(9):
        y, state = layer.step(x[:, t], state)
        outputs.append(y)
    torch.testing.assert_close(torch.stack(outputs, 1), layer(x), **CLOSE)


def test_attention_and_average_may_look_different_ways():
    mixer = Mega(6, bidirectional=False, causal_attention=False, chunk_size=4)
    assert not mixer.causal
    x = torch.randn(1, 8, 6, requires_grad=True)
    mixer(x)[0, 4].sum().backward()
    # The end of the chunk is seen, by attention alone.
    assert (x.grad[0, 4:].abs().sum(-1) > 0).all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"attention": "relu"}, "'softmax', 'laplace' or 'relu2'"),
        ({"position_bias": "alibi"}, "'simple' or 'rotary'"),
        ({"position_bias": "rotary", "d_attention": 5}, "must be even, got 5"),
        ({"chunk_size": 0}, "chunk_size must be 1 at least"),
        ({"chunk_size": -1}, "one position at least, got -1"),
        ({"truncation": 0}, "truncation must be 1 at least"),
    ],
)
def test_impossible_ones_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        Mega(8, **options)
