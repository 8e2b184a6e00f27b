"""What every mixer promises, by what it declares about itself."""

import pytest
import torch

from tristate.core.bidirectional import Bidirectional
from tristate.core.mixer import detach_state
from tristate.core.mixers import MIXERS
from tristate.core.mixers.mamba import Mamba
from tristate.core.training.optim import parameter_groups

# Float32 on two paths that round differently; the states' sums are a few hundred terms long.
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
D_MODEL = 12

# Fields of a state that hold inputs as they came; what is summed up over time is kept wider.
WINDOWS = {"conv", "inputs", "keys", "values"}


def make(name):
    torch.manual_seed(1)
    return MIXERS[name](D_MODEL)


def names(**declared):
    return [n for n in MIXERS if all(getattr(make(n), k) == v for k, v in declared.items())]


@pytest.fixture(params=list(MIXERS))
def mixer(request):
    return make(request.param)


@pytest.fixture(params=names(causal=True))
def causal(request):
    return make(request.param)


@pytest.fixture(params=names(packs=True))
def packing(request):
    return make(request.param)


@pytest.mark.parametrize("length", [1, 2, 7, 65])
def test_keeps_shape_and_reaches_every_parameter(mixer, length):
    x = torch.randn(2, length, D_MODEL, requires_grad=True)
    y = mixer(x)
    assert y.shape == x.shape
    y.square().sum().backward()
    for name, p in [("input", x), *mixer.named_parameters()]:
        assert p.grad is not None and p.grad.isfinite().all(), name


def test_the_future_does_not_change_the_past(causal):
    x = torch.randn(2, 33, D_MODEL)
    other = x.clone()
    other[:, 20:] = torch.randn(2, 13, D_MODEL)
    torch.testing.assert_close(causal(x)[:, :20], causal(other)[:, :20], **CLOSE)


@pytest.mark.parametrize("name", names(causal=False))
def test_a_two_sided_mixer_sees_both_ways_and_has_no_state(name):
    mixer = make(name)
    x = torch.randn(1, 9, D_MODEL, requires_grad=True)
    mixer(x)[0, 4].sum().backward()
    assert (x.grad.abs().sum(-1)[0] > 0).all()
    assert mixer.memory == "none"
    with pytest.raises(TypeError, match="not causal"):
        mixer.init_state(1)
    with pytest.raises(TypeError, match="not causal"):
        mixer.forward_state(x)


@pytest.mark.parametrize("cut", [1, 2, 17, 64])
def test_state_carries(causal, cut):
    x = torch.randn(2, 65, D_MODEL)
    whole = causal(x)
    head, state = causal.forward_state(x[:, :cut])
    tail, _ = causal.forward_state(x[:, cut:], state)
    torch.testing.assert_close(torch.cat([head, tail], 1), whole, **CLOSE)


def test_state_carries_gradients(causal):
    x = torch.randn(2, 11, D_MODEL, requires_grad=True)
    causal(x)[:, -1].sum().backward()
    whole, x.grad = x.grad, None
    _, state = causal.forward_state(x[:, :6])
    tail, _ = causal.forward_state(x[:, 6:], state)
    tail[:, -1].sum().backward()
    torch.testing.assert_close(x.grad, whole, **CLOSE)


def test_a_detached_state_cuts_them(causal):
    x = torch.randn(2, 11, D_MODEL, requires_grad=True)
    _, state = causal.forward_state(x[:, :6])
    tail, _ = causal.forward_state(x[:, 6:], detach_state(state))
    tail.sum().backward()
    assert (x.grad[:, :6] == 0).all()


def test_step_equals_forward(causal):
    x = torch.randn(2, 9, D_MODEL)
    state, outputs = causal.init_state(2), []
    for t in range(9):
        y, state = causal.step(x[:, t], state)
        outputs.append(y)
    torch.testing.assert_close(torch.stack(outputs, 1), causal(x), **CLOSE)


def test_state_is_at_least_float32(causal):
    state = causal.bfloat16().init_state(3)
    _, after = causal.forward_state(torch.randn(3, 5, D_MODEL, dtype=torch.bfloat16), state)
    for name, part in after._asdict().items():
        assert part.shape[0] == 3
        if name not in WINDOWS:
            assert part.dtype in (torch.float32, torch.complex64), name
    for part in state:
        assert part.dtype in (torch.float32, torch.complex64)


def test_packed_equals_separate(packing):
    parts = [torch.randn(1, n, D_MODEL) for n in (5, 1, 13)]
    seq_idx = torch.cat([torch.full((1, p.shape[1]), i) for i, p in enumerate(parts)], 1).int()
    packed = packing(torch.cat(parts, 1), seq_idx=seq_idx)
    torch.testing.assert_close(packed, torch.cat([packing(p) for p in parts], 1), **CLOSE)


def test_padding_changes_nothing(packing):
    x = torch.randn(1, 9, D_MODEL)
    padded = torch.cat([x, 1e3 * torch.randn(1, 4, D_MODEL)], 1)
    seq_idx = torch.tensor([[0] * 9 + [-1] * 4], dtype=torch.int32)
    torch.testing.assert_close(packing(padded, seq_idx=seq_idx)[:, :9], packing(x), **CLOSE)


@pytest.mark.parametrize("cut", [3, 7, 12])
@pytest.mark.parametrize("name", names(causal=True, packs=True))
def test_a_packed_row_cut_within_a_sequence_goes_on(name, cut):
    mixer, x = make(name), torch.randn(2, 19, D_MODEL)
    # One row has padding within, and both begin anew at different places.
    seq_idx = torch.tensor([[0] * 5 + [-1] + [1] * 13, [4] * 9 + [2] * 2 + [3] * 8])
    whole = mixer(x, seq_idx=seq_idx)
    head, state = mixer.forward_state(x[:, :cut], seq_idx=seq_idx[:, :cut])
    tail, _ = mixer.forward_state(x[:, cut:], state, seq_idx=seq_idx[:, cut:])
    real = seq_idx >= 0
    torch.testing.assert_close(torch.cat([head, tail], 1)[real], whole[real], **CLOSE)


@pytest.mark.parametrize("tied", [(), ("in_proj", "out_proj")])
def test_bidirectional_is_the_sum_of_a_mixer_and_its_mirror(tied):
    mixer = Bidirectional(Mamba(D_MODEL), Mamba(D_MODEL, reverse=True), tied=tied)
    ahead = Mamba(D_MODEL)
    ahead.load_state_dict(mixer.back.state_dict())
    x = torch.randn(2, 17, D_MODEL)
    torch.testing.assert_close(mixer(x), mixer.ahead(x) + ahead(x.flip(1)).flip(1), **CLOSE)
    shared = {id(p) for p in mixer.ahead.parameters()} & {id(p) for p in mixer.back.parameters()}
    assert len(shared) == len(tied)


def test_bidirectional_refuses_two_of_a_direction():
    with pytest.raises(ValueError, match="reverse=True"):
        Bidirectional(Mamba(D_MODEL), Mamba(D_MODEL))


def test_time_constants_are_spared_weight_decay(mixer):
    groups = parameter_groups(mixer, weight_decay=0.1)
    names = {id(p): n for n, p in mixer.named_parameters()}
    decays = {names[id(p)]: g["weight_decay"] for g in groups for p in g["params"]}
    assert decays.keys() == set(names.values()) and {0.1} <= set(decays.values()) <= {0, 0.1}
    assert all(decays[n] == 0 for n in decays if n.endswith(("A_log", ".D", "bias")))
