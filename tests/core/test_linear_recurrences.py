"""S5 and the LRU: their recurrences against the papers' equations, and how they begin."""

import math

import pytest
import torch
from torch import nn

from tristate.core import hippo
from tristate.core.layer import residual_layer
from tristate.core.mixers.lru import LRU, LinearRecurrence
from tristate.core.mixers.s5 import S5, S5SSM
from tristate.core.norm import AddThen, BatchNorm, LayerNorm
from tristate.core.parts.pointwise import OUTPUTS, make_output
from tristate.core.rate import set_rate


def by_hand(a, B, C, D, x):
    """``h[t] = a h[t-1] + B x[t]``, ``y[t] = Re(C h[t]) + D x[t]``, term by term."""
    h, outputs = torch.zeros(x.shape[0], len(a), dtype=a.dtype), []
    for step in x.unbind(1):
        h = a * h + step.to(a.dtype) @ B.T
        outputs.append((h @ C.T).real + D * step)
    return torch.stack(outputs, 1)


def pairs(x):
    return torch.view_as_complex(x.detach().contiguous())


@pytest.mark.parametrize("discretization", ["zoh", "bilinear"])
def test_s5_is_its_equation(discretization):
    model = S5SSM(5, d_state=8, n_blocks=2, discretization=discretization).double()
    A = torch.complex(model.A_real, model.A_imag)
    dt = model.log_dt.exp()
    if discretization == "zoh":
        a, gain = torch.exp(dt * A), (torch.exp(dt * A) - 1) / A
    else:
        a, gain = (1 + dt * A / 2) / (1 - dt * A / 2), dt / (1 - dt * A / 2)
    x = torch.randn(2, 19, 5, dtype=torch.float64)
    wanted = by_hand(a, gain[:, None] * pairs(model.B), 2 * pairs(model.C)[0], model.D, x)
    torch.testing.assert_close(model(x), wanted)


def test_one_of_each_conjugate_pair_is_the_whole_model():
    half = S5SSM(4, d_state=12).double()
    whole = S5SSM(4, d_state=12, conjugate=False).double()
    with torch.no_grad():
        for name in ("A_real", "log_dt"):
            getattr(whole, name).copy_(getattr(half, name).repeat(2))
        whole.A_imag.copy_(torch.cat([half.A_imag, -half.A_imag]))
        conj = half.B.new_tensor([1.0, -1.0])
        whole.B.copy_(torch.cat([half.B, half.B * conj]))
        whole.C.copy_(torch.cat([half.C, half.C * conj], 2))
        whole.D.copy_(half.D)
    x = torch.randn(2, 17, 4, dtype=torch.float64)
    torch.testing.assert_close(half(x), whole(x))


@pytest.mark.parametrize("make", [S5SSM, LinearRecurrence])
def test_two_sided_reads_ahead_with_one_matrix_and_back_with_another(make):
    model = make(6, d_state=8, bidirectional=True)
    ahead = make(6, d_state=8)
    back = make(6, d_state=8)
    state = model.state_dict()
    for one, C in ((ahead, state["C"][:1]), (back, state["C"][1:])):
        one.load_state_dict({**state, "C": C})
    x = torch.randn(2, 13, 6)
    wanted = ahead(x) + back(x.flip(1)).flip(1) - model.D * x
    torch.testing.assert_close(model(x), wanted, rtol=1e-5, atol=1e-5)
    with pytest.raises(TypeError, match="not causal"):
        model.step(x[:, 0], None)


def test_s5_starts_from_hippo_in_blocks():
    model = S5SSM(3, d_state=24, n_blocks=3)
    eigenvalues = hippo.nplr("legs", 8).A
    found = torch.complex(model.A_real, model.A_imag)
    torch.testing.assert_close(
        found.detach().cdouble(), eigenvalues.repeat(3), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(
    ("C_init", "size"),
    # By the original's fans: all of C for one row, for the matrix, and half of 1 a part.
    [("trunc_standard_normal", 1 / 64), ("lecun_normal", 1 / (64 * 200)), ("complex_normal", 0.5)],
)
def test_s5_draws_b_c_and_steps_as_released(C_init, size):
    model = S5SSM(200, d_state=64, C_init=C_init, dt_min=1e-3, dt_max=0.1)
    # A unitary change of basis keeps the size of B, half of whose rows remain.
    assert model.B.square().sum().item() == pytest.approx(200 / 2, rel=0.1)
    assert model.C.square().mean().item() == pytest.approx(size, rel=0.1)
    assert model.log_dt.exp().min() >= 1e-3 and model.log_dt.exp().max() <= 0.1
    many = S5SSM(1, d_state=4000, n_blocks=2000).log_dt
    assert many.mean().item() == pytest.approx(math.log(1e-2), abs=0.15)


def test_s5_at_half_the_sampling_rate_is_nearly_the_same_model():
    model = S5SSM(1, d_state=16, dt_max=0.02)
    with torch.no_grad():
        model.D.zero_()
    t = torch.linspace(0, 8, 801)[:-1]
    x = torch.sin(t)[None, :, None]
    fine = model(x)[:, 1::2]
    assert set_rate(model, 2.0) == 1
    coarse = model(x[:, 1::2])
    assert (coarse - fine).abs().max() < 0.05 * fine.abs().max()
    set_rate(model, 1.0)
    assert (model(x[:, 1::2]) - fine).abs().max() > 0.2 * fine.abs().max()


def test_a_stable_s5_stays_so_whatever_its_parameters_are():
    model = S5SSM(2, d_state=8, stable=True)
    with torch.no_grad():
        model.A_real.fill_(3.0)
    assert (model.transition()[0].abs() < 1).all()


def test_lru_starts_on_its_ring():
    model = LinearRecurrence(3, d_state=20_000, r_min=0.4, r_max=0.9, max_phase=1.5)
    a, _ = model.transition()
    modulus, angle = a.abs(), a.angle()
    assert modulus.min() >= 0.4 and modulus.max() <= 0.9
    assert angle.min() >= 0 and angle.max() <= 1.5
    # Uniform on the area: the square of the modulus is uniform, and so is the angle.
    for values, low, high in ((modulus**2, 0.16, 0.81), (angle, 0.0, 1.5)):
        quartiles = torch.quantile(values, torch.tensor([0.25, 0.5, 0.75]))
        wanted = low + (high - low) * torch.tensor([0.25, 0.5, 0.75])
        torch.testing.assert_close(quartiles, wanted, rtol=0, atol=0.02)
    assert model.B.std().item() == pytest.approx(1 / math.sqrt(6), rel=0.05)
    assert model.C.std().item() == pytest.approx(1 / math.sqrt(20_000), rel=0.05)


def test_lru_keeps_the_variance_of_white_noise():
    model = LinearRecurrence(8, d_state=64, r_min=0.5, r_max=0.95)
    with torch.no_grad():
        _, state = model.forward_state(torch.randn(256, 200, 8))
    # What each state hears of the noise has the size of its row of B.
    heard = pairs(model.B).abs().square().sum(1)
    assert (state.hidden.abs().square() / heard).mean().item() == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("make", [S5SSM, LinearRecurrence])
def test_states_stay_bounded_over_a_million_steps(make):
    model = make(1, d_state=16)
    state, largest = model.init_state(1), []
    with torch.no_grad():
        for _ in range(16):
            _, state = model.forward_state(torch.randn(1, 1 << 16, 1), state)
            largest.append(state.hidden.abs().max().item())
    a, gain = model.transition()
    into = pairs(model.B)[:, 0]
    # What a random walk with these decays has for a deviation, ten times.
    most = (gain * into).abs() / (1 - a.abs() ** 2).sqrt()
    assert max(largest) < 10 * most.max().item()


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("make", [S5, LRU])
def test_any_output_fits_behind(make, output):
    mixer = make(6, d_state=8, output=output)
    x = torch.randn(2, 9, 6)
    head, state = mixer.forward_state(x[:, :4])
    tail, _ = mixer.forward_state(x[:, 4:], state)
    torch.testing.assert_close(torch.cat([head, tail], 1), mixer(x), rtol=1e-4, atol=1e-5)


def test_outputs_are_what_they_say():
    y = torch.randn(2, 3, 4)
    f = nn.functional.gelu
    half = make_output("half_glu", 4, 4)
    torch.testing.assert_close(half(y), f(y) * torch.sigmoid(half.linear(f(y))))
    linear = make_output("linear_half_glu", 4, 4)
    torch.testing.assert_close(linear(y), y * torch.sigmoid(linear.linear(f(y))))
    whole = make_output("glu", 4, 5)
    value, gate = whole.linear(f(y)).chunk(2, -1)
    torch.testing.assert_close(whole(y), value * torch.sigmoid(gate))
    with pytest.raises(ValueError, match="did you mean half_glu"):
        make_output("halfglu", 4, 4)
    with pytest.raises(ValueError, match="keeps the width, got 4 and 5"):
        make_output("half_glu", 4, 5)


def test_dropout_behind_a_mixer_silences_channels_for_a_whole_sequence():
    mixer = LRU(64, d_state=4, output="none", activation="none", dropout=0.5)
    y = mixer(torch.randn(2, 20, 64))
    silent = y == 0
    assert (silent.all(1) == silent.any(1)).all()
    assert 0.2 < silent.float().mean() < 0.8


@pytest.mark.parametrize("prenorm", [True, False])
@pytest.mark.parametrize("norm", [lambda: LayerNorm(6), lambda: AddThen(BatchNorm(6))])
def test_a_layer_is_norm_mixer_and_residual(norm, prenorm):
    mixer, norm = LRU(6, d_state=4), norm()
    layer = residual_layer(mixer, norm, prenorm=prenorm).eval()
    x = torch.randn(2, 7, 6)
    wanted = x + mixer(norm(x)[0]) if prenorm else norm(x + mixer(x))[0]
    torch.testing.assert_close(layer(x), wanted)


@pytest.mark.parametrize(
    ("make", "options", "said"),
    [
        (S5SSM, {"d_state": 10, "n_blocks": 2}, "multiple of 4"),
        (S5SSM, {"discretization": "euler"}, "'zoh' or 'bilinear'"),
        (S5SSM, {"C_init": "normal"}, "complex_normal"),
        (LinearRecurrence, {"r_min": 0.9, "r_max": 0.5}, "0 <= r_min <= r_max <= 1"),
    ],
)
def test_impossible_models_are_refused(make, options, said):
    with pytest.raises(ValueError, match=said):
        make(4, **options)
