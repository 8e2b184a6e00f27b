"""The selective mixers with the options that the laws over all mixers leave as they are."""

import math

import pytest
import torch
from torch.nn import functional as F

from tristate.core.mixers import MIXERS
from tristate.core.mixers.griffin_recurrence import GriffinRecurrence
from tristate.core.mixers.mamba import Mamba
from tristate.core.mixers.mamba2 import Mamba2
from tristate.core.mixers.rglru import RGLRU
from tristate.core.original import Unsupported, from_original
from tristate.core.parts.mamba3 import Mamba3State, mamba3_scan
from tristate.core.parts.steps import draw_step_bias

D_MODEL = 12

CASES = {
    "norms": ("mamba", {"norm_eps": 1e-5}),
    "norms without weights": ("mamba", {"norm_eps": 1e-6, "norm_weights": False, "bias": True}),
    "constant steps": ("mamba", {"dt_init": "constant", "dt_scale": 2.0, "dt_rank": 3}),
    "no gate": ("mamba", {"gate": False}),
    "selective steps": ("mamba", {"selective": ["dt"], "norm_eps": 1e-5}),
    "selective input": ("mamba", {"selective": ["B"], "gate": False}),
    "time-invariant": ("mamba", {"selective": []}),
    "an MLP beside": ("mamba2", {"d_ssm": 16, "d_head": 4, "d_state": 8, "bias": True}),
    "groups": ("mamba2", {"n_groups": 3, "d_head": 4, "d_state": 8, "D_per_channel": True}),
    "limits": ("mamba2", {"dt_limit": (0.01, 0.05), "norm": False, "conv_bias": False}),
    "norm first": ("mamba2", {"norm_before_gate": True, "conv_init": 0.2, "d_conv": 2}),
    "a learnt state": ("mamba2", {"learn_initial_state": True, "d_state": 8}),
    "turning all": ("mamba3", {"rotary_fraction": 1.0, "d_state": 6, "norm": True}),
    "groups that turn": ("mamba3", {"n_groups": 3, "d_head": 4, "d_state": 10}),
    "heads of one": ("rglru", {"n_heads": 12}),
    "a wide recurrence": ("griffin_recurrence", {"d_inner": 20, "d_conv": 3, "n_heads": 5}),
}


@pytest.fixture(params=CASES)
def mixer(request):
    torch.manual_seed(0)
    name, options = CASES[request.param]
    mixer = MIXERS[name](D_MODEL, **options).double()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return mixer


def test_pieces_and_steps_equal_the_whole(mixer):
    x = torch.randn(2, 13, D_MODEL).double()
    whole = mixer(x)
    head, state = mixer.forward_state(x[:, :6], mixer.init_state(2, dtype=torch.float64))
    tail, state = mixer.forward_state(x[:, 6:12], state)
    last, _ = mixer.step(x[:, 12], state)
    torch.testing.assert_close(torch.cat([head, tail, last[:, None]], 1), whole)


def test_packed_equals_separate_and_padding_is_passed_over(mixer):
    if not mixer.packs:
        with pytest.raises(ValueError, match="one sequence a row"):
            mixer(torch.randn(1, 3, D_MODEL).double(), seq_idx=torch.zeros(1, 3).int())
        return
    x = torch.randn(2, 12, D_MODEL).double()
    seq_idx = torch.tensor([[-1, 3, 3, -1, 3, 5, 5, 5, 5, -1, 3, -1], [0] * 12]).int()
    y, state = mixer.forward_state(x, seq_idx=seq_idx)
    for places in ([1, 2, 4], [5, 6, 7, 8], [10]):
        torch.testing.assert_close(y[:1, places], mixer(x[:1, places]))
    torch.testing.assert_close(y[1:], mixer(x[1:]))
    assert (y[0, [0, 3, 9, 11]] == 0).all()
    _, alone = mixer.forward_state(x[:1, [10]])
    for part, mine in zip(state, alone, strict=True):
        torch.testing.assert_close(part[:1], mine)


def test_a_state_enters_the_first_sequence_alone(mixer):
    if not mixer.packs:
        return
    x = torch.randn(1, 12, D_MODEL).double()
    _, state = mixer.forward_state(x[:, :4])
    nothing = torch.full((1, 3), -1).int()
    y, same = mixer.forward_state(x[:, :3], state, seq_idx=nothing)
    assert (y == 0).all()
    for part, mine in zip(same, state, strict=True):
        torch.testing.assert_close(part, mine)
    seq_idx = torch.tensor([[-1, 2, 2, -1, 2, 4, -1, 4]]).int()
    y, _ = mixer.forward_state(x[:, 4:], same, seq_idx=seq_idx)
    joined = mixer(x[:, [0, 1, 2, 3, 5, 6, 8]])
    torch.testing.assert_close(y[:, [1, 2, 4]], joined[:, 4:])
    torch.testing.assert_close(y[:, [5, 7]], mixer(x[:, [9, 11]]))


def turned(x, phase):
    """The first channels of ``x`` in pairs, turned as complex numbers by ``phase``."""
    paired = 2 * phase.shape[-1]
    pairs = x[..., :paired].unflatten(-1, (-1, 2)).contiguous()
    rotated = torch.view_as_real(torch.view_as_complex(pairs) * phase)
    return torch.cat([rotated.flatten(-2), x[..., paired:]], -1)


def naive_mamba3(q, k, v, adt, dt, trap, turns, D, z, state):
    """The recurrence step by step, pairs of channels as complex numbers."""
    angle, scan, last_k, last_v = state
    outputs = []
    for t in range(q.shape[1]):
        angle = angle + math.pi * turns[:, t].tanh() * dt[:, t, :, None]
        phase = torch.polar(torch.ones_like(angle), angle)
        kt, qt, weight = turned(k[:, t], phase), turned(q[:, t], phase), trap[:, t].sigmoid()
        early, late = (1 - weight) * dt[:, t], weight * dt[:, t]
        scan = scan + (early[..., None] * last_v)[..., None] * last_k[:, :, None]
        scan = adt[:, t].exp()[..., None, None] * scan
        scan = scan + (late[..., None] * v[:, t])[..., None] * kt[:, :, None]
        y = (scan * qt[:, :, None]).sum(-1) + D[:, None] * v[:, t]
        outputs.append(y * F.silu(z[:, t]))
        last_k, last_v = kt, v[:, t]
    return torch.stack(outputs, 1), Mamba3State(angle % (2 * math.pi), scan, last_k, last_v)


def test_mamba3_is_its_recurrence():
    torch.manual_seed(0)
    B, L, H, N, P, A = 2, 17, 3, 8, 5, 3
    q, k = torch.randn(2, B, L, H, N).double()
    v, z = torch.randn(2, B, L, H, P).double()
    dt = torch.rand(B, L, H).double()
    adt, trap, turns = -dt * torch.rand(B, L, H), torch.randn(B, L, H), torch.randn(B, L, H, A)
    state = Mamba3State(
        6 * torch.rand(B, H, A).double(),
        torch.randn(B, H, P, N).double(),
        torch.randn(B, H, N).double(),
        torch.randn(B, H, P).double(),
    )
    inputs = [x.double() for x in (q, k, v, adt, dt, trap, turns)]
    D = torch.randn(H).double()
    y, last = mamba3_scan(*inputs, D=D, z=z, state=state)
    expected, expected_last = naive_mamba3(*inputs, D, z, state)
    torch.testing.assert_close(y, expected)
    for got, wanted in zip(last, expected_last, strict=True):
        torch.testing.assert_close(got, wanted)


def test_mamba3_keeps_its_angle_over_a_long_way():
    torch.manual_seed(0)
    L, dt = 30_000, torch.full((1, 30_000, 1), 0.1)
    turns = torch.rand(1, L, 1, 1)
    ones = torch.ones(1, L, 1, 2)
    _, last = mamba3_scan(ones, ones, ones[..., :1], -dt, dt, dt, turns)
    exact = (math.pi * turns.tanh() * dt[..., None]).double().sum() % (2 * math.pi)
    torch.testing.assert_close(last.angle.double().squeeze(), exact, rtol=0, atol=1e-6)


def test_step_sizes_begin_in_their_range():
    dt = F.softplus(draw_step_bias(2000, 1e-5, 0.1, 1e-3))
    assert dt.min() >= 0.999e-3 and 0.05 < dt.max() <= 0.1001
    assert (dt < 1.01e-3).float().mean() > 0.4  # half of the range lies below the floor
    constant = Mamba(32, dt_init="constant", dt_scale=3.0).branch.dt_proj.weight
    assert (constant == 3 * constant.shape[1] ** -0.5).all()
    with pytest.raises(ValueError, match="dt_init"):
        Mamba(8, dt_init="zeros")


def test_rg_lru_begins_on_its_ring_and_has_bounded_gradients():
    torch.manual_seed(0)
    mixer = RGLRU(400, radius=(0.5, 0.8))
    radius = (-F.softplus(mixer.rate)).exp()
    assert 0.5 <= radius.min() < 0.52 and 0.78 < radius.max() <= 0.8
    # A gate so shut that 1 - a^2 is 0: the square root has no derivative there.
    with torch.no_grad():
        mixer.decay_gate.bias.fill_(-200.0)
    x = torch.randn(1, 4, 400, requires_grad=True)
    mixer(x).sum().backward()
    assert all(p.grad.isfinite().all() for p in mixer.parameters()) and x.grad.isfinite().all()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Mamba2(12, d_head=5), "heads of 5"),
        (lambda: Mamba2(12, d_ssm=48), "48 of 24 channels"),
        (lambda: Mamba2(12, d_head=8, n_groups=2), "in 2 groups"),
        (lambda: MIXERS["mamba3"](12, rotary_fraction=0.0), "rotary_fraction"),
        (lambda: MIXERS["mamba3"](12, d_head=5), "heads of 5"),
        (lambda: RGLRU(12, n_heads=5), "5 heads"),
        (lambda: GriffinRecurrence(12, d_inner=10), "4 heads"),
    ],
)
def test_refuses(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize(
    ("entry", "options", "words"),
    [
        ("mamba2.Mamba2", {"process_group": 1}, "process_group=None"),
        ("mamba2.Mamba2Simple", {"activation": "gelu"}, "activation='swish'"),
        ("mamba2.Mamba2", {"dimension": 3}, "dimension"),
        ("mamba3.Mamba3", {"is_mimo": True}, "is_mimo=False"),
    ],
)
def test_originals_that_ours_cannot_mean_are_refused(entry, options, words):
    with pytest.raises(Unsupported, match=words):
        from_original(entry, {"d_model": 128, **options})


def test_mamba3s_original_has_a_place_for_each_of_its_weights():
    config = {"d_model": 16, "d_state": 8, "headdim": 8, "ngroups": 2, "is_outproj_norm": True}
    module, convert = from_original("mamba3.Mamba3", config)
    # 4 heads, 2 groups, rank 1; 2 of 4 pairs of states turn.
    shapes = {
        "in_proj.weight": (2 * 32 + 2 * 16 + 3 * 4 + 2, 16),
        "out_proj.weight": (16, 32),
        "dt_bias": (4,),
        "D": (4,),
        "B_bias": (4, 1, 8),
        "C_bias": (4, 1, 8),
        "B_norm.weight": (8,),
        "C_norm.weight": (8,),
        "norm.weight": (32,),
    }
    module.load_state_dict(convert({name: torch.randn(shape) for name, shape in shapes.items()}))


def test_griffins_residual_block_holds_an_attention_or_a_recurrence():
    config = {"width": 8, "mlp_expanded_width": 6, "num_heads": 2, "attention_window_size": 3}
    kind = {"temporal_block_type": "TemporalBlockType.ATTENTION"}
    module, convert = from_original("griffin.ResidualBlock", config | kind)
    shapes = {
        "temporal_pre_norm.scale": (8,),
        "channel_pre_norm.scale": (8,),
        "attention_block.proj_q.weight": (8, 8),
        "attention_block.proj_k.weight": (4, 8),
        "attention_block.proj_v.weight": (4, 8),
        "attention_block.proj_final.weight": (8, 8),
        "attention_block.proj_final.bias": (8,),
        "mlp_block.ffw_up.w": (2, 8, 6),
        "mlp_block.ffw_up.b": (2, 1, 1, 6),
        "mlp_block.ffw_down.weight": (8, 6),
        "mlp_block.ffw_down.bias": (8,),
    }
    state = {name: 0.3 * torch.randn(shape) for name, shape in shapes.items()}
    module.load_state_dict(convert(state))
    x = torch.randn(1, 9, 8, requires_grad=True)
    module(x)[0, 8].square().sum().backward()
    # A window of 3 that does not count a position's own place reaches 3 back.
    assert (x.grad[0].abs().sum(-1) > 0).tolist() == [False] * 5 + [True] * 4
    with pytest.raises(Unsupported, match="temporal_block_type"):
        from_original("griffin.ResidualBlock", config | {"temporal_block_type": "MAMBA"})


@pytest.mark.parametrize("selective", [[], ["dt"], ["B"], ["C"], ["dt", "B"], ["dt", "B", "C"]])
def test_what_is_not_selective_is_the_same_for_every_input(selective):
    branch = Mamba(D_MODEL, selective=selective).branch
    first, second = (branch.scan_inputs(torch.randn(2, 5, 24))[0] for _ in range(2))
    same = {"dt": torch.equal(first.delta, second.delta)}
    same |= {name: torch.equal(getattr(first, name), getattr(second, name)) for name in "BC"}
    assert {name for name, is_same in same.items() if not is_same} == set(selective)


def test_unknown_selective_parts_are_refused():
    with pytest.raises(ValueError, match=r"any of 'dt', 'B' and 'C', got \['A'\]"):
        Mamba(D_MODEL, selective=["A", "B"])
