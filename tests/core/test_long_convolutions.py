"""Long convolutions, Hyena and TNN: taps, their reach, and what steps remember."""

import copy
import pickle

import pytest
import torch

from tristate.core.mixers.hyena import Hyena
from tristate.core.mixers.longconv import LongConv, LongFilter
from tristate.core.mixers.tnn import TNN
from tristate.core.parts.hyena_filter import HyenaFilter
from tristate.core.parts.memo import Memo
from tristate.core.parts.past import convolve, keep
from tristate.core.parts.toeplitz import Toeplitz

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def direct(x, taps, origin=0):
    """``y[t] = sum_j taps[j] x[t - j + origin]``, term by term."""
    y = torch.zeros_like(x)
    for t in range(x.shape[2]):
        for j in range(taps.shape[1]):
            s = t - j + origin
            if 0 <= s < x.shape[2]:
                y[:, :, t] += taps[:, j] * x[:, :, s]
    return y


def steps(mixer, x):
    state, outputs = mixer.init_state(x.shape[0]), []
    with torch.no_grad():
        for t in range(x.shape[1]):
            y, state = mixer.step(x[:, t], state)
            outputs.append(y)
    return torch.stack(outputs, 1), state


@pytest.mark.parametrize("cut", [0, 1, 4, 9, 10])
@pytest.mark.parametrize("n_taps", [1, 3, 20])
def test_a_convolution_goes_on_where_it_stopped(n_taps, cut):
    x, taps, D = torch.randn(2, 3, 11), torch.randn(2, 3, n_taps), torch.randn(2, 3)
    whole = convolve(x, taps, D)
    for c in range(2):
        wanted = direct(x, taps[c]) + D[c][:, None] * x
        torch.testing.assert_close(whole[:, c], wanted, **CLOSE)
    past = keep(x[..., :cut], None, n_taps - 1)
    assert past.shape[2] == min(cut, n_taps - 1)
    torch.testing.assert_close(convolve(x[..., cut:], taps, D, past), whole[..., cut:], **CLOSE)


def test_a_long_filter_is_squashed_and_smoothed():
    taps = LongFilter(1, 2, 16, shrink=0.5)
    with torch.no_grad():
        taps.taps.copy_(torch.linspace(-2, 2, 32).view(1, 2, 16))
    wanted = taps.taps.sign() * (taps.taps.abs() - 0.5).clamp(min=0)
    torch.testing.assert_close(taps(), wanted)
    assert (taps() == 0).sum() == (taps.taps.abs() <= 0.5).sum() > 0
    # One tap alone is spread over its neighbours; in frequency it stays where it is, and shrinks
    # the more the later it is.
    for where, options in {"time": {"smooth": 5}, "frequency": {"smooth": 5}}.items():
        taps = LongFilter(1, 1, 64, shrink=0.0, smooth_in=where, **options)
        found = []
        for place in (8, 24):
            with torch.no_grad():
                taps.taps.zero_()
                taps.taps[..., place] = 1
            found.append(taps()[0, 0])
        if where == "time":
            assert (found[0] > 0).nonzero().flatten().tolist() == [6, 7, 8, 9, 10]
            torch.testing.assert_close(found[0].sum(), torch.tensor(1.0))
        else:
            assert found[0].argmax() == 8 and found[1].argmax() == 24
            assert found[0].max() > 2 * found[1].max()


def test_a_long_convolution_forgets_what_is_out_of_reach():
    mixer = LongConv(4, max_length=6, shrink=0.0)
    x = torch.randn(1, 20, 4)
    other = x.clone()
    other[:, :5] += 1
    y, z = mixer(x), mixer(other)
    assert (y[:, 9] - z[:, 9]).abs().max() > 1e-4
    torch.testing.assert_close(y[:, 10:], z[:, 10:], **CLOSE)
    stepped, state = steps(mixer, x)
    torch.testing.assert_close(stepped, y, **CLOSE)
    assert state.inputs.shape == (1, 4, 5)


def test_a_two_sided_long_convolution_has_as_many_taps_ahead():
    mixer = LongConv(3, max_length=4, bidirectional=True, output="none", activation="none")
    ahead, back = mixer.filter()
    x = torch.randn(2, 9, 3)
    columns = x.transpose(1, 2)
    wanted = direct(columns, ahead) + mixer.D[0][:, None] * columns
    wanted = wanted + direct(columns, torch.cat([back.flip(1), 0 * back[:, :1]], 1), origin=4)
    torch.testing.assert_close(mixer(x), wanted.transpose(1, 2), **CLOSE)


@pytest.mark.parametrize("order", [2, 3, 4])
def test_hyena_is_gates_and_convolutions_in_turn(order):
    mixer = Hyena(4, order=order, max_length=32, conv_bias=False)
    x = torch.randn(2, 12, 4)
    inner = mixer.short(mixer.in_proj(x))[0].transpose(1, 2)
    *gates, v = inner.chunk(order + 1, 1)
    taps = mixer.filter(12).unflatten(0, (4, order - 1))
    for i in range(order - 1):
        v = direct(v * gates[order - 1 - i], taps[:, i])
    torch.testing.assert_close(mixer(x), mixer.out_proj((v * gates[0]).transpose(1, 2)), **CLOSE)


def test_hyena_reads_on_beyond_its_filters():
    mixer = Hyena(4, max_length=8)
    x = torch.randn(2, 30, 4)
    stepped, state = steps(mixer, x)
    torch.testing.assert_close(stepped, mixer(x), **CLOSE)
    assert state.inputs.shape == (2, 1, 4, 7)


def test_hyena_filters_fade_at_their_own_paces():
    make = {"d_hidden": 8, "fast_decay": 0.3, "slow_decay": 1.5, "target": 1e-2}
    free = HyenaFilter(5, 100, modulate=False, **make)
    faded = HyenaFilter(5, 100, shift=0.1, **make)
    faded.load_state_dict(free.state_dict())
    ratio = faded(100) / free(100)
    times = torch.linspace(0, 1, 100)
    # The first channel is down to the target after 1.5, the last after 0.3 of the length.
    torch.testing.assert_close(ratio[0], 0.01 ** (times / 1.5) + 0.1, **CLOSE)
    torch.testing.assert_close(ratio[-1], 0.01 ** (times / 0.3) + 0.1, **CLOSE)
    normalized = HyenaFilter(5, 100, modulate=False, normalized=True, **make)
    torch.testing.assert_close(normalized(50).abs().sum(0), torch.ones(50))


def test_hyena_positions_are_parameters_or_constants():
    assert "positions" in dict(HyenaFilter(2, 10).named_parameters())
    fixed = HyenaFilter(2, 10, learn_positions=False)
    assert "positions" in fixed.state_dict() and "positions" not in dict(fixed.named_parameters())
    assert fixed.positions.shape == (10, 3)
    with pytest.raises(ValueError, match="odd and 3 at least, got 4"):
        HyenaFilter(2, 10, d_position=4)


@pytest.mark.parametrize("make", [lambda: Hyena(4, max_length=16), lambda: TNN(4)])
def test_steps_follow_the_parameters(make):
    mixer = make()
    x = torch.randn(1, 6, 4)
    steps(mixer, x)
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    torch.testing.assert_close(steps(mixer, x)[0], mixer(x), **CLOSE)
    mixer.load_state_dict(make().state_dict())
    torch.testing.assert_close(steps(mixer, x)[0], mixer(x), **CLOSE)


def test_a_memo_computes_once_and_anew_after_a_change():
    memo, parameter, calls = Memo(), torch.nn.Parameter(torch.ones(2)), []

    def make():
        calls.append(1)
        return 2 * parameter

    with torch.no_grad():
        assert memo([parameter], 1, make) is memo([parameter], 1, make)
        assert len(calls) == 1
        memo([parameter], 2, make)
        parameter.mul_(3)
        assert memo([parameter], 2, make).tolist() == [6, 6]
        parameter.data = torch.zeros(2)
        assert memo([parameter], 2, make).tolist() == [0, 0]
        assert len(calls) == 4
        another = copy.deepcopy(memo)
        another([parameter], 2, make)
        assert len(calls) == 5 and pickle.loads(pickle.dumps(memo))._value is None
    # A gradient wants a graph of its own.
    assert memo([parameter], 2, make).requires_grad and len(calls) == 6


@pytest.mark.parametrize("bidirectional", [False, True])
def test_toeplitz_taps_are_of_lags_and_decay(bidirectional):
    model = Toeplitz(3, bidirectional=bidirectional, decay=0.9, d_hidden=8)
    lags = torch.arange(-8 if bidirectional else 0, 9)
    wanted = model.network(lags.float()).T * 0.9 ** lags.abs()
    torch.testing.assert_close(model.taps(9), wanted)
    x = torch.randn(2, 3, 9)
    torch.testing.assert_close(model(x), direct(x, wanted, 8 if bidirectional else 0), **CLOSE)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_normalised_toeplitz_operator_keeps_constants(bidirectional):
    model = Toeplitz(3, bidirectional=bidirectional, normalize=True, tap_activation="exp")
    torch.testing.assert_close(model(torch.full((1, 3, 40), 2.0)), torch.full((1, 3, 40), 2.0))


def test_learnt_decays_lie_above_the_least_one():
    model = Toeplitz(500, decay=0.8, learn_decay=True)
    decays = model._decay(torch.float32)
    assert decays.min() > 0.8 and decays.max() < 1


@pytest.mark.parametrize(
    "options", [{"normalize": True, "tap_activation": "exp"}, {"decay": 0.8, "learn_decay": True}]
)
def test_tnn_steps(options):
    mixer = TNN(4, **options)
    x = torch.randn(2, 21, 4)
    torch.testing.assert_close(steps(mixer, x)[0], mixer(x), **CLOSE)


def test_lags_as_fractions_leave_no_state():
    mixer = TNN(4, lags="fraction")
    assert not mixer.causal and mixer.memory == "none"
    x = torch.randn(1, 12, 4)
    # No later input is seen, but the length is.
    other = x.clone()
    other[:, 6:] += 1
    torch.testing.assert_close(mixer(x)[:, :6], mixer(other)[:, :6], **CLOSE)
    assert (mixer(x)[:, :6] - mixer(x[:, :6])).abs().max() > 1e-5
    with pytest.raises(TypeError, match="not causal"):
        mixer.init_state(1)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Hyena(4, order=1), "order must be 2 at least"),
        (lambda: LongConv(4, smooth=4), "odd width"),
        (lambda: LongConv(4, init="zeros"), "'random' or 'double_exp'"),
        (lambda: TNN(4, lags="log"), "'index', 'fraction' or 'exponential'"),
        (lambda: TNN(4, lags="exponential", bidirectional=True), "causal operators"),
        (lambda: TNN(4, decay=None, learn_decay=True), "wants a decay"),
        (lambda: TNN(4, activation="sillu"), "did you mean silu"),
        (lambda: Hyena(4)(torch.zeros(1, 3, 4), seq_idx=torch.zeros(1, 3).int()), "row of its own"),
    ],
)
def test_impossible_mixers_are_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()
