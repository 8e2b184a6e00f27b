"""Laws of hybrid stacks, pattern by pattern, and of the experts and shared blocks in them."""

import pytest
import torch
from torch import nn

from tristate.core import patterns
from tristate.core.block import Block
from tristate.core.context import Context
from tristate.core.mixer import Mixer, detach_state
from tristate.core.mlp import GatedMLP, LowRank
from tristate.core.moe import Experts
from tristate.core.norm import RMSNorm
from tristate.core.plain import plain_stack
from tristate.core.stack import Stack

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
D_MODEL, N_LAYERS = 8, 4
MAMBA = {"d_state": 4}

# Arguments that make each pattern small, with each kind of layer in it.
PATTERNS = {
    "griffin": {"n_heads": 2, "window": 5},
    "h3_hybrid": {"n_heads": 2, "mixer_args": {"d_state": 8}},
    "hawk": {"n_heads": 2},
    "interleaved": {
        "mixers": ["mamba2", "attention"],
        "mixer_args": {"mamba2": {"d_state": 4}, "attention": {"n_heads": 2}},
        "mlp_args": {"d_hidden": 8},
    },
    "jamba": {"n_heads": 2, "attention_every": 3, "attention_offset": 1, "mamba_args": MAMBA},
    "mega_encoder": {"d_attention": 4, "d_hidden": 12, "d_state": 2, "chunk_size": 4},
    "striped_hyena": {"n_heads": 2},
    "zamba": {"mixer_args": {"d_state": 4}, "shared_every": 2, "rank": 2, "adapt_attention": True},
}


def make(name, **more):
    torch.manual_seed(2)
    stack = plain_stack(D_MODEL, N_LAYERS, mixer=name, mixer_args=PATTERNS[name] | more)
    for module in stack.modules():
        if isinstance(module, LowRank):
            nn.init.normal_(module.up.weight, std=0.3)
    return stack


@pytest.fixture(params=PATTERNS)
def stack(request):
    return make(request.param)


def test_pieces_and_steps_equal_the_whole(stack):
    x = torch.randn(2, 19, D_MODEL)
    head, state = stack.forward_state(x[:, :11])
    tail, state = stack.forward_state(x[:, 11:17], detach_state(state))
    last = []
    for t in (17, 18):
        y, state = stack.step(x[:, t], state)
        last.append(y)
    torch.testing.assert_close(torch.cat([head, tail, torch.stack(last, 1)], 1), stack(x), **CLOSE)
    torch.testing.assert_close(stack.step(x[:, 0], stack.init_state(2))[0], stack(x)[:, 0], **CLOSE)


def test_every_pattern_is_tried():
    assert {*PATTERNS, "rwkv"} == {*patterns.PATTERNS}  # that one with its mixers


def test_packed_equals_separate(stack):
    if not all(module.packs for module in stack.modules() if isinstance(module, Mixer)):
        pytest.skip("one of the mixers does not pack")
    parts = [torch.randn(1, n, D_MODEL) for n in (5, 1, 9)]
    seq_idx = torch.cat([torch.full((1, p.shape[1]), i) for i, p in enumerate(parts)], 1).int()
    packed = stack(torch.cat(parts, 1), seq_idx=seq_idx)
    torch.testing.assert_close(packed, torch.cat([stack(p) for p in parts], 1), **CLOSE)


def test_every_parameter_is_reached_and_checkpointing_changes_no_gradient(stack):
    x, grads = torch.randn(2, 9, D_MODEL), []
    for stack.grad_checkpointing in (False, True):
        stack.zero_grad()
        context = Context()
        loss = stack(x, context=context).square().sum() + context.balance()
        loss.backward()
        grads.append([p.grad.clone() for p in stack.parameters()])
    torch.testing.assert_close(grads[0], grads[1])


def test_an_unknown_pattern_is_told_with_the_nearest():
    with pytest.raises(KeyError, match="griffin"):
        plain_stack(D_MODEL, 2, mixer="grifin")
    with pytest.raises(ValueError, match="window"):
        plain_stack(D_MODEL, 2, mixer="griffin", mixer_args={"windw": 3})


def test_a_shared_block_is_one_but_for_its_changes():
    stack = make("zamba", n_shared=1)
    first, second = stack.blocks[1].side, stack.blocks[3].side
    shared = {id(p) for p in first.parameters()} & {id(p) for p in second.parameters()}
    names = {n for n, p in first.named_parameters() if id(p) in shared}
    own = {n for n, _ in first.named_parameters()} - names
    assert own == {"out_proj.weight"} | {
        f"{part}.{half}.weight"
        for part in ("mlp.in_proj", *(f"attention.{x}_proj" for x in "qkv"))
        for half in ("down", "up")
    }
    two = make("zamba", n_shared=2)
    first, second = two.blocks[1].side, two.blocks[3].side
    assert not {id(p) for p in first.parameters()} & {id(p) for p in second.parameters()}


def test_experts_are_the_weighted_sum_of_those_chosen():
    torch.manual_seed(0)
    experts, x = Experts(D_MODEL, n_experts=5, top_k=2), torch.randn(3, 7, D_MODEL)
    probabilities = experts.router(x).softmax(-1)
    weights, chosen = probabilities.topk(2, -1)
    each = []
    for up, down in zip(experts.in_proj, experts.out_proj, strict=True):
        mlp = GatedMLP(D_MODEL, d_hidden=down.shape[1])
        mlp.load_state_dict({"in_proj.weight": up, "out_proj.weight": down})
        each.append(mlp(x))
    picked = torch.stack(each, 2).gather(2, chosen[..., None].expand(-1, -1, -1, D_MODEL))
    torch.testing.assert_close(experts(x), (weights[..., None] * picked).sum(2), **CLOSE)


def test_no_position_is_dropped_when_all_choose_the_same_expert():
    experts, x = Experts(D_MODEL, n_experts=4, top_k=1), torch.rand(2, 50, D_MODEL)
    with torch.no_grad():
        experts.router.weight.zero_()[2] = 1.0
    context = Context()
    y = experts(x, context=context)
    assert (y.abs().sum(-1) > 0).all()
    assert context.load().tolist() == [[0, 0, 1, 0]]


def test_the_balancing_loss_is_1_where_load_is_even_and_pushes_towards_it():
    torch.manual_seed(0)
    experts, x = Experts(D_MODEL, n_experts=4), torch.randn(1, 200, D_MODEL) + 0.5

    def measure():
        context = Context()
        experts(x, context=context)
        return context.balance(), context.load().max()

    with torch.no_grad():
        experts.router.weight.zero_()
    torch.testing.assert_close(measure()[0], torch.tensor(1.0))
    with torch.no_grad():
        experts.router.weight.normal_()[1] += 0.5
    optimizer = torch.optim.SGD([experts.router.weight], 0.5)
    before, busiest = measure()
    for _ in range(100):
        optimizer.zero_grad()
        measure()[0].backward()
        optimizer.step()
    after, less_busy = measure()
    assert before > 1.05 > after and less_busy < busiest


def test_padding_does_not_count_as_load():
    torch.manual_seed(0)
    stack = Stack(
        [Block(Experts(D_MODEL, n_experts=3, top_k=1), RMSNorm(D_MODEL))], RMSNorm(D_MODEL)
    )
    x, whole, padded = torch.randn(1, 12, D_MODEL), Context(), Context()
    stack(x, context=whole)
    seq_idx = torch.tensor([[0] * 12 + [-1] * 20])
    stack(torch.cat([x, torch.randn(1, 20, D_MODEL)], 1), seq_idx=seq_idx, context=padded)
    torch.testing.assert_close(padded.load(), whole.load())
    torch.testing.assert_close(padded.balance(), whole.balance())
