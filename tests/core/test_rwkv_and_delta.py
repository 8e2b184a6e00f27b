"""RWKV, delta rules and gated linear attention: their options, equations and stacks."""

import pytest
import torch
from torch.nn import functional as F

from tristate.core.context import Context
from tristate.core.mixers import MIXERS
from tristate.core.mixers.rwkv7 import RWKV7
from tristate.core.parts.token_shift import token_shift
from tristate.core.plain import plain_stack
from tristate.core.rwkv import RWKVLanguageModel

D_MODEL = 12
CLOSE = {"rtol": 1e-9, "atol": 1e-9}

# Beside the defaults, which the laws over all mixers try with one head.
OPTIONS = {
    "deltanet": [{"n_heads": 3, "negative": True, "d_conv": 2}],
    "gated_deltanet": [{"n_heads": 4, "n_key_heads": 2, "d_key": 3, "d_value": 5}],
    "delta_product": [{"n_heads": 2, "n_steps": 3, "conv_bias": True, "gate": False}],
    "gla": [{"n_heads": 3, "expand_v": 2}],
    "rwkv4": [{"d_inner": 20, "layer": 2, "n_layers": 3}],
    "rwkv6": [{"n_heads": 3, "layer": 1, "n_layers": 2}],
    "rwkv7": [{"n_heads": 3, "d_value": 18, "n_layers": 4}],
    "rwkv_channel": [{"gated": False, "d_inner": 7, "layer": 1, "n_layers": 2}],
}
CASES = [(name, options) for name, found in OPTIONS.items() for options in ({}, *found)]


def trained(module):
    """The module in float64 with all parameters a little off their starts, some of which are 0."""
    for p in module.double().parameters():
        p.data += 0.3 * torch.randn_like(p)
    return module


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{len(case[1])}")
def mixer(request):
    torch.manual_seed(3)
    name, options = request.param
    return trained(MIXERS[name](D_MODEL, **options))


def rows(length, batch=2):
    return torch.randn(batch, length, D_MODEL, dtype=torch.float64)


def test_pieces_and_steps_are_the_whole(mixer):
    x = rows(21)
    whole = mixer(x)
    head, state = mixer.forward_state(x[:, :9])
    tail, last = mixer.forward_state(x[:, 9:], state)
    torch.testing.assert_close(torch.cat([head, tail], 1), whole, **CLOSE)
    state, steps = mixer.init_state(2), []
    for t in range(21):
        y, state = mixer.step(x[:, t], state)
        steps.append(y)
    torch.testing.assert_close(torch.stack(steps, 1), whole, **CLOSE)
    for got, wanted in zip(state, last, strict=True):
        torch.testing.assert_close(got, wanted, **CLOSE)


def test_packed_is_separate_and_padding_is_not_there(mixer):
    x, row = rows(16), torch.tensor([-1, 3, 3, -1, 3, 5, -1, *[9] * 7, -1, -1])
    y, state = mixer.forward_state(x, seq_idx=row.expand(2, -1).int())
    assert (y[:, row < 0] == 0).all()
    for part in (3, 5, 9):
        wanted, last = mixer.forward_state(x[:, row == part])
        torch.testing.assert_close(y[:, row == part], wanted, **CLOSE)
    for got, wanted in zip(state, last, strict=True):
        torch.testing.assert_close(got, wanted, **CLOSE)


def test_the_fast_path_has_the_meaning(mixer):
    x = rows(70)
    exact = mixer(x)
    torch.testing.assert_close(mixer.float()(x.float()).double(), exact, rtol=1e-3, atol=1e-4)


def test_a_shift_stays_within_a_sequence():
    x = torch.arange(1.0, 8).reshape(1, 7, 1)
    row = torch.tensor([[2, 2, -1, 2, 0, 0, -1]])
    shifted, last = token_shift(x, torch.tensor([[9.0]]), seq_idx=row)
    assert shifted.flatten().tolist() == [9, 1, 0, 2, 0, 5, 0] and last.tolist() == [[6]]


def test_rwkv6_is_what_the_paper_says():
    mixer = trained(MIXERS["rwkv6"](D_MODEL, n_heads=3))
    x, p = rows(5, batch=1)[0], dict(mixer.named_parameters())
    before = torch.cat([torch.zeros_like(x[:1]), x[:-1]])
    start = x + (before - x) * p["shift.base"]
    low = torch.tanh(start @ p["shift.down.weight"].T).unflatten(-1, (5, -1))
    inputs = []
    for i in range(5):
        share = p["shift.shares"][i] + low[:, i] @ p["shift.up"][i]
        inputs.append(x + (before - x) * share)
    w, k, v, r, g = inputs
    r, k, v = mixer.receptance(r), mixer.key(k), mixer.value(v)
    rate = torch.tanh(w @ p["decay.down.weight"].T) @ p["decay.up.weight"].T + p["decay.up.bias"]
    decay = torch.exp(-torch.exp(rate))
    heads = []
    for h in range(3):
        at = slice(4 * h, 4 * h + 4)
        S, outs = torch.zeros(4, 4, dtype=torch.float64), []
        for t in range(5):
            new = torch.outer(k[t, at], v[t, at])
            outs.append(r[t, at] @ (S + p["bonus"][h][:, None] * new))
            S = decay[t, at][:, None] * S + new
        heads.append(torch.stack(outs))
    o = F.group_norm(torch.cat(heads, 1), 3, p["norm.weight"], p["norm.bias"], eps=64e-5)
    wanted = mixer.output(o * F.silu(mixer.gate(g)))
    torch.testing.assert_close(mixer(x[None])[0], wanted, **CLOSE)


def test_gla_is_what_the_paper_says():
    mixer = trained(MIXERS["gla"](D_MODEL, n_heads=2))
    x = rows(5, batch=1)[0]
    q, k, v = mixer.query(x), mixer.key(x), mixer.value(x)
    decay = torch.sigmoid(mixer.decay(x)) ** (1 / 16)
    heads = []
    for h in range(2):
        keys, values = slice(3 * h, 3 * h + 3), slice(6 * h, 6 * h + 6)
        S, outs = torch.zeros(3, 6, dtype=torch.float64), []
        for t in range(5):
            S = decay[t, keys][:, None] * S + torch.outer(k[t, keys], v[t, values])
            outs.append(q[t, keys] @ S / 3**0.5)
        o = torch.stack(outs)
        heads.append(o * torch.rsqrt(o.square().mean(1, keepdim=True) + 1e-5) * mixer.norm_weight)
    wanted = mixer.output(torch.cat(heads, 1) * F.silu(mixer.gate(x)))
    torch.testing.assert_close(mixer(x[None])[0], wanted, **CLOSE)


def test_a_product_takes_its_corrections_in_turn():
    mixer = trained(MIXERS["delta_product"](D_MODEL, n_steps=2))
    x = rows(4, batch=1)[0]
    q, k, v = mixer.conv(mixer.in_proj(x)[None, :, : 5 * D_MODEL])[0][0].split([12, 24, 24], -1)
    unit = lambda x: x * torch.rsqrt(x.square().sum() + 1e-6)  # noqa: E731
    rates = mixer.rates(x)
    beta = 2 * torch.sigmoid(rates[:, :2])
    decay = torch.exp(-mixer.A_log.exp() * F.softplus(rates[:, 2:] + mixer.dt_bias))
    S, outs = torch.zeros(12, 12, dtype=torch.float64), []
    for t in range(4):
        S = decay[t] * S
        for j in range(2):
            key, value = unit(k[t, 12 * j : 12 * j + 12]), v[t, 12 * j : 12 * j + 12]
            S = S + beta[t, j] * torch.outer(key, value - key @ S)
        outs.append(unit(q[t]) @ S / 12**0.5)
    o = torch.stack(outs)
    o = o * torch.rsqrt(o.square().mean(1, keepdim=True) + 1e-5) * mixer.norm_weight
    wanted = mixer.out_proj(o * F.silu(mixer.in_proj(x)[:, 5 * D_MODEL :]))
    torch.testing.assert_close(mixer(x[None])[0], wanted, **CLOSE)


def goose():
    torch.manual_seed(4)
    args = {"mixer_args": {"n_heads": 2}}
    return trained(plain_stack(D_MODEL, 3, mixer="rwkv", mixer_args=args, norm="layer"))


def test_rwkv7_takes_the_first_layers_values_from_the_stack():
    stack, context, x = goose(), Context(), rows(9)
    stack(x, context=context)
    first = stack.blocks[0].mixer
    entering = stack.blocks[0].norm(x, None)[0]
    _, _, value = first.mix(entering)
    torch.testing.assert_close(context.first_value, value)
    later = stack.blocks[2].mixer
    assert not torch.equal(later.mix(x, None, value)[0], later.mix(x, None, 0 * value)[0])
    with pytest.raises(ValueError, match=r"RWKV7\(layer=1\) wants a first_value"):
        later(x)
    with pytest.raises(ValueError, match=r"RWKV7\(layer=0\) wants no first_value"):
        first.mix(x, None, value)


def test_a_stack_of_rwkv7_goes_on_from_its_state_and_packs():
    stack, x = goose(), rows(9)
    whole = stack(x)
    head, state = stack.forward_state(x[:, :5])
    tail, _ = stack.forward_state(x[:, 5:], state)
    torch.testing.assert_close(torch.cat([head, tail], 1), whole, **CLOSE)
    state = stack.init_state(2)
    for t in range(9):
        y, state = stack.step(x[:, t], state)
        torch.testing.assert_close(y, whole[:, t], **CLOSE)
    parts = torch.tensor([[0] * 5 + [1] * 4] * 2).int()
    packed = stack(x, seq_idx=parts)
    separate = torch.cat([stack(x[:, :5]), stack(x[:, 5:])], 1)
    torch.testing.assert_close(packed, separate, **CLOSE)


def test_a_stack_of_rwkv7_learns_through_checkpoints():
    stack, x = goose(), rows(9)
    grads = []
    for stack.grad_checkpointing in (False, True):
        stack.zero_grad()
        stack(x).square().sum().backward()
        grads.append([p.grad.clone() for p in stack.parameters()])
    for plain, checkpointed in zip(*grads, strict=True):
        assert plain.abs().max() > 0
        torch.testing.assert_close(checkpointed, plain)


def test_a_language_model_normalises_what_it_embeds():
    stack = plain_stack(D_MODEL, 1, mixer="rwkv", norm="layer")
    model = RWKVLanguageModel(stack, D_MODEL, 7)
    tokens, _ = model.embed(torch.arange(7)[None])
    torch.testing.assert_close(tokens.mean(-1), torch.zeros(1, 7), atol=1e-6, rtol=0)
    assert model(torch.arange(7)[None]).shape == (1, 7, 7)


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("rwkv6", {"n_heads": 5}, "5 heads don't divide 12 channels"),
        ("gla", {"n_heads": 4}, "4 heads don't divide 6 channels"),
        ("rwkv7", {"n_heads": 3, "d_value": 13}, "3 heads don't divide 13 channels"),
        ("rwkv4", {"layer": 2, "n_layers": 2}, "layer must be from 0 to 1, got 2"),
        ("deltanet", {"n_heads": 4, "n_key_heads": 3}, "3 heads of keys must divide 4 of values"),
    ],
)
def test_refuses_what_does_not_fit(name, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        MIXERS[name](D_MODEL, **options)


def test_rwkv7_stands_alone_only_as_a_first_layer():
    assert RWKV7(D_MODEL).first_share is None
    assert RWKV7(D_MODEL, layer=1, n_layers=2).first_share is not None
