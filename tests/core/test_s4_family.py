"""S4, S4D and DSS: their options under the laws of mixers, what they start as, how they behave."""

import math

import pytest
import torch

from tristate.core.mixers.dss import DSS
from tristate.core.mixers.s4 import S4
from tristate.core.mixers.s4d import S4D
from tristate.core.original import Unsupported, from_original
from tristate.core.rate import set_rate
from tristate.core.training.optim import parameter_groups

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
OPTIONS = {
    "s4 legt": lambda: S4(6, d_state=8, init="legt", rank=2, n_ssm=2),
    "s4 channels": lambda: S4(6, d_state=8, channels=2, gate="sigmoid", activation="none"),
    "s4d inv": lambda: S4D(6, d_state=8, init="inv", discretization="bilinear"),
    "s4d legs": lambda: S4D(6, d_state=8, init="legs", dt_tie=False, channels=3),
    "s4d real": lambda: S4D(6, d_state=8, init="real", output="linear"),
    "s4d none": lambda: S4D(6, d_state=8, output="none", dt_transform="softplus"),
    "dss softmax": lambda: DSS(6, d_state=8, version="softmax", normal_length=30),
    "dss": lambda: DSS(6, d_state=8, scaled=False, separate_steps=False, gate="tanh"),
}
TWO_SIDED = {
    "s4": lambda: S4(6, d_state=8, bidirectional=True),
    "s4d": lambda: S4D(6, d_state=8, bidirectional=True, gate="sigmoid"),
    "dss": lambda: DSS(6, d_state=8, version="softmax", bidirectional=True),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_pieces_and_steps_make_the_whole(name):
    mixer, x = OPTIONS[name](), torch.randn(2, 21, 6)
    assert mixer.causal and mixer.memory == "constant" and not mixer.packs
    whole = mixer(x)
    assert whole.shape == x.shape
    head, state = mixer.forward_state(x[:, :8])
    tail, _ = mixer.forward_state(x[:, 8:], state)
    torch.testing.assert_close(torch.cat([head, tail], 1), whole, **CLOSE)
    state, steps = mixer.init_state(2), []
    for position in x.unbind(1):
        y, state = mixer.step(position, state)
        steps.append(y)
    torch.testing.assert_close(torch.stack(steps, 1), whole, **CLOSE)


@pytest.mark.parametrize("name", TWO_SIDED)
def test_two_sided_ones_see_both_ways(name):
    mixer, x = TWO_SIDED[name](), torch.randn(1, 9, 6, requires_grad=True)
    mixer(x)[0, 4].sum().backward()
    assert (x.grad.abs().sum(-1)[0] > 0).all()
    for call in (mixer.init_state, mixer.forward_state):
        with pytest.raises(TypeError, match="not causal"):
            call(1) if call == mixer.init_state else call(x)


def test_a_softmax_over_the_input_has_no_state():
    mixer = DSS(6, version="softmax")
    assert not mixer.causal and mixer.memory == "none"
    x = torch.randn(1, 9, 6)
    # Yet it does not look ahead: only the length is known.
    other = torch.cat([x[:, :5], torch.randn(1, 4, 6)], 1)
    torch.testing.assert_close(mixer(x)[:, :5], mixer(other)[:, :5], **CLOSE)


def test_a_short_kernel_forgets():
    mixer, x = S4D(6, kernel_length=5), torch.randn(1, 12, 6)
    other = x.clone()
    other[:, :4] = 0
    ours, theirs = mixer(x), mixer(other)
    torch.testing.assert_close(ours[:, 8:], theirs[:, 8:], **CLOSE)
    assert not torch.allclose(ours[:, 7], theirs[:, 7])
    torch.testing.assert_close(mixer.forward_state(x[:, :5])[0], ours[:, :5], **CLOSE)


def test_one_row_is_one_sequence():
    segments = torch.zeros(1, 4, dtype=torch.int32)
    for mixer in (S4(6), S4D(6, bidirectional=True)):
        with pytest.raises(ValueError, match="row of its own"):
            mixer(torch.randn(1, 4, 6), seq_idx=segments)


@pytest.mark.parametrize("make", [S4, S4D, DSS])
def test_a_network_follows_its_input_to_another_rate(make):
    torch.manual_seed(1)
    mixer = make(4, d_state=16).double().eval()

    def outputs(per_unit):
        set_rate(mixer, 1 / per_unit)
        t = torch.arange(48 * per_unit).double() / per_unit
        x = torch.stack([torch.sin(0.2 * t + h) for h in range(4)], -1)[None]
        return mixer(x)[:, ::per_unit].detach()

    finest = outputs(8)
    errors = [float((outputs(n) - finest)[:, 8:].abs().max()) for n in (1, 2, 4)]
    assert errors[0] > 1.8 * errors[1] > 1.8**2 * errors[2]


@pytest.mark.parametrize("make", [S4, S4D, DSS])
def test_starts_as_the_papers_say(make):
    mixer = make(2048, d_state=16, channels=2)
    ssm = mixer.conv.ssm
    log_dt = (ssm.log_dt[:, 0] if make is DSS else ssm.inv_dt[:, 0]).detach()
    # Step sizes: uniform between 0.001 and 0.1 in their logarithms.
    low, high = math.log(1e-3), math.log(0.1)
    assert low <= float(log_dt.min()) < low + 0.05 and high - 0.05 < float(log_dt.max()) <= high
    deciles = torch.quantile((log_dt - low) / (high - low), torch.linspace(0.1, 0.9, 9))
    assert (deciles - torch.linspace(0.1, 0.9, 9)).abs().max() < 0.04
    # C: complex normal numbers, of unit variance as a whole (S4) or in each part (DSS).
    parts = ssm.C.detach().square().mean((0, 1, 2))
    torch.testing.assert_close(
        parts, torch.full((2,), 1.0 if make is DSS else 0.5), atol=0.03, rtol=0
    )
    assert float(ssm.C.detach().mean()) == pytest.approx(0, abs=0.02)
    # D: normal.
    assert float(mixer.conv.D.detach().var()) == pytest.approx(1, abs=0.1)
    # A: a decay of one half for every state.
    torch.testing.assert_close(ssm.A_real.detach().exp(), torch.full_like(ssm.A_real, 0.5))


def test_low_rank_part_starts_parallel_to_the_input():
    ssm = S4(4, d_state=8).conv.ssm
    B, P = (torch.view_as_complex(p.detach())[0] for p in (ssm.B, ssm.P))
    inside = B.imag.abs() < 2  # what is larger was cut off
    torch.testing.assert_close(B[inside], 2**0.5 * P[inside])


def test_time_constants_learn_slowly_and_do_not_decay():
    mixer = S4(6)
    names = {id(p): name for name, p in mixer.named_parameters()}
    slow, spared = set(), set()
    for group in parameter_groups(mixer, 0.1, lr=1e-2):
        members = {names[id(p)] for p in group["params"]}
        slow |= members if group["lr_scale"] == pytest.approx(0.1) else set()
        spared |= members if group["weight_decay"] == 0 else set()
    time = {f"conv.ssm.{n}" for n in ("inv_dt", "A_real", "A_imag", "B", "P")}
    assert slow == time
    assert spared == time | {"conv.D", "output.linear.bias"}


@pytest.mark.slow
@pytest.mark.parametrize("make", [S4, S4D, DSS])
def test_states_stay_bounded(make):
    """Random input over 2^20 positions, in pieces: the states are as large at the end as before."""
    torch.manual_seed(2)
    mixer, piece = make(4, d_state=16), 2**14
    state, sizes = None, []
    with torch.no_grad():
        for _ in range(2**20 // piece):
            y, state = mixer.forward_state(torch.randn(2, piece, 4), state)
            assert y.isfinite().all()
            sizes.append(state.scan.abs().square().mean((0, 2)))
    sizes = torch.stack(sizes).sqrt()  # (pieces, channels)
    early, late = sizes[4:24], sizes[-20:]
    ratio = late.square().mean(0).sqrt() / early.square().mean(0).sqrt()
    assert ((ratio > 0.5) & (ratio < 2)).all()
    assert sizes.max() < 10 * early.mean()


@pytest.mark.parametrize(
    ("entry", "config", "named"),
    [
        ("s4.S4Block", {"d_model": 4, "gate": 2}, "gate"),
        ("s4.FFTConv", {"d_model": 4, "mode": "shift"}, "mode"),
        ("s4.FFTConv", {"d_model": 4, "swap_channels": True}, "swap_channels"),
        ("s4d.FFTConv", {"d_model": 4, "mode": "diag", "disc": "foh"}, "disc"),
        ("s4d.S4D", {"d_model": 4, "channels": 2}, "channels"),
        ("dss.DSS", {"d_model": 4, "version": "mgf"}, "version"),
        ("dss.DSS", {"d_model": 4, "kernel_to_real": "prod"}, "kernel_to_real"),
    ],
)
def test_what_the_original_can_and_ours_cannot_is_named(entry, config, named):
    with pytest.raises(Unsupported, match=named):
        from_original(entry, config)


@pytest.mark.parametrize(
    "build",
    [
        lambda: DSS(4, version="sofmax"),
        lambda: S4(4, init="leg"),
        lambda: S4D(4, output="gul"),
        lambda: S4D(4, channels=2, output="half_glu"),
    ],
)
def test_refuses_names(build):
    with pytest.raises(ValueError):
        build()
