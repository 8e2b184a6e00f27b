"""Laws of blocks, norms and stacks."""

import pytest
import torch
from torch import nn

from tristate.core.block import Block
from tristate.core.mixers.mamba import Mamba
from tristate.core.norm import LayerNorm, RMSNorm
from tristate.core.plain import plain_stack
from tristate.core.stack import Stack

D_MODEL = 8


def stack(n_layers=3, **norm):
    return Stack(
        (Block(Mamba(D_MODEL, d_state=4), RMSNorm(D_MODEL, **norm)) for _ in range(n_layers)),
        RMSNorm(D_MODEL, **norm),
    )


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (RMSNorm(D_MODEL), nn.RMSNorm(D_MODEL, eps=1e-5)),
        (LayerNorm(D_MODEL), nn.LayerNorm(D_MODEL)),
    ],
)
def test_norms_add_and_equal_torch(ours, theirs):
    x, residual = torch.randn(2, 5, D_MODEL), torch.randn(2, 5, D_MODEL)
    y, total = ours(x, residual)
    torch.testing.assert_close(total, x + residual)
    torch.testing.assert_close(y, theirs(x + residual))
    torch.testing.assert_close(ours(x)[1], x)


@pytest.mark.parametrize("norm", ["rms", "layer", "batch", "scale"])
@pytest.mark.parametrize("prenorm", [True, False])
def test_a_plain_stack_norms_before_or_behind(norm, prenorm):
    torch.manual_seed(0)
    model = plain_stack(D_MODEL, 2, mixer="lru", norm=norm, prenorm=prenorm).eval()
    x = torch.randn(2, 9, D_MODEL)
    stream, blocks = x, model.blocks
    norms = [block.norm for block in blocks] if prenorm else [b.norm for b in blocks[1:]]
    norms.append(model.norm)
    for block, behind in zip(blocks, norms, strict=False):
        if prenorm:
            stream = stream + block.mixer(behind(stream)[0])
        else:
            stream = behind(stream + block.mixer(stream))[0]
    torch.testing.assert_close(model(x), model.norm(stream)[0] if prenorm else stream)


def test_batch_norm_is_over_batch_and_positions():
    model = plain_stack(D_MODEL, 1, mixer="lru", norm="batch")
    y = model(5 + 3 * torch.randn(4, 50, D_MODEL))
    torch.testing.assert_close(y.mean((0, 1)), torch.zeros(D_MODEL), atol=1e-4, rtol=0)
    torch.testing.assert_close(y.var((0, 1), correction=0), torch.ones(D_MODEL), atol=1e-3, rtol=0)
    half = model.bfloat16()(torch.randn(2, 5, D_MODEL, dtype=torch.bfloat16))
    assert half.dtype == torch.bfloat16


def test_a_stack_is_a_chain_of_residual_blocks():
    model, x = stack(), torch.randn(2, 9, D_MODEL)
    stream = x
    for block in model.blocks:
        stream = stream + block.mixer(block.norm(stream)[0])
    torch.testing.assert_close(model(x), model.norm(stream)[0])


def test_the_stream_stays_in_float32_under_bfloat16():
    model = stack(residual_in_fp32=True).bfloat16()
    for hidden, residual in model.walk(torch.randn(1, 4, D_MODEL).bfloat16()):
        assert hidden.dtype == torch.bfloat16 and residual.dtype == torch.float32


def test_checkpointing_changes_no_gradient():
    model, x = stack(), torch.randn(2, 9, D_MODEL)
    grads = []
    for model.grad_checkpointing in (False, True):
        model.zero_grad()
        model(x).square().sum().backward()
        grads.append([p.grad.clone() for p in model.parameters()])
    torch.testing.assert_close(grads[0], grads[1])


def test_pieces_and_steps_equal_the_whole():
    model, x = stack(), torch.randn(2, 12, D_MODEL)
    head, state = model.forward_state(x[:, :7])
    tail, state = model.forward_state(x[:, 7:11], state)
    last, _ = model.step(x[:, 11], state)
    torch.testing.assert_close(torch.cat([head, tail, last[:, None]], 1), model(x))
    torch.testing.assert_close(model.step(x[:, 0], model.init_state(2))[0], model(x)[:, 0])


def test_any_module_can_stand_in_a_block():
    mlp = Block(nn.Linear(D_MODEL, D_MODEL), LayerNorm(D_MODEL), scale=nn.Parameter(torch.zeros(8)))
    model = Stack([Block(Mamba(D_MODEL), RMSNorm(D_MODEL)), mlp], RMSNorm(D_MODEL))
    x = torch.randn(1, 5, D_MODEL)
    alone = Stack(model.blocks[:1], model.norm)
    torch.testing.assert_close(model(x), alone(x))
    _, state = model.forward_state(x)
    assert state[1] is None
