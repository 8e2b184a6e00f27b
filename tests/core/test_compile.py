"""Stacks of every mixer and pattern as programs: compiled in one graph, exported for any length."""

import pytest
import torch
from torch.export import Dim

from tests.core.test_patterns import PATTERNS
from tristate.core.context import Context
from tristate.core.mixers import MIXERS
from tristate.core.moe import Experts
from tristate.core.plain import plain_stack
from tristate.kernels.export import decompositions

D_MODEL, LENGTH = 8, 11
CLOSE = {"rtol": 1e-4, "atol": 1e-5}

# Layers, where one does not have each kind of them.
PAIRS = ("h3_hybrid", "interleaved", "jamba", "striped_hyena", "zamba")
LAYERS = {"griffin": 3} | dict.fromkeys(PAIRS, 2)

# A filter goes another way for sequences that are shorter: a program is of one way.
LEAST = {"h3_hybrid": 8}

# Programs of these are for one length: transforms, chunks and windows are planned for it.
FIXED = {"griffin", "h3", "liquid_s4", "mega", "mega_encoder", "s4"}

NAMES = [*PATTERNS, "rwkv", *MIXERS]


@pytest.fixture(autouse=True)
def afresh():
    torch.compiler.reset()


def make(name):
    torch.manual_seed(0)
    args = PATTERNS.get(name, {})
    return plain_stack(D_MODEL, LAYERS.get(name, 1), mixer=name, mixer_args=args).eval()


def exported(model, least):
    length = Dim("length", min=least, max=1000)
    x = torch.randn(2, LENGTH, D_MODEL)
    return torch.export.export(model, (x,), dynamic_shapes={"x": {1: length}})


@pytest.mark.parametrize("name", [*PATTERNS, "rwkv"])
@torch.no_grad()
def test_a_pattern_compiles_in_one_graph(name):
    model, x = make(name), torch.randn(2, LENGTH, D_MODEL)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), model(x), **CLOSE)


@pytest.mark.parametrize("name", sorted({*PATTERNS, "rwkv"} - FIXED))
@torch.no_grad()
def test_a_pattern_is_exported_for_any_length(name):
    model, least = make(name), LEAST.get(name, 2)
    program = exported(model, least).module()
    for length in (least, 70):
        x = torch.randn(2, length, D_MODEL)
        torch.testing.assert_close(program(x), model(x), **CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_a_compiled_stack_are_those_of_the_stack(name):
    model = make(name)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for length in (LENGTH, 2 * LENGTH):
        x = torch.randn(2, length, D_MODEL)
        found = []
        for function in (model, compiled):
            y = function(x)
            found.append([y, *torch.autograd.grad(y.square().sum(), list(model.parameters()))])
        torch.testing.assert_close(*found, **CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*MIXERS} - FIXED))
@torch.no_grad()
def test_a_stack_of_a_mixer_is_exported_for_any_length(name):
    model = make(name)
    program = exported(model, 2).module()
    for length in (2, 70):
        x = torch.randn(2, length, D_MODEL)
        torch.testing.assert_close(program(x), model(x), **CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(FIXED))
@torch.no_grad()
def test_a_stack_of_a_mixer_is_exported_for_one_length(name):
    model, x = make(name), torch.randn(2, LENGTH, D_MODEL)
    program = torch.export.export(model, (x,)).module()
    torch.testing.assert_close(program(x), model(x), **CLOSE)


@torch.no_grad()
def test_experts_leave_the_package_and_report_their_load():
    torch.manual_seed(0)
    experts = Experts(D_MODEL, n_experts=3)

    class Reporting(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.experts = experts

        def forward(self, x):
            context = Context()
            return self.experts(x, context=context), context.load(), context.balance()

    model = Reporting().eval()
    program = exported(model, 2).run_decompositions(decompositions())
    assert not [node for node in program.graph.nodes if "tristate" in str(node.target)]
    for length in (2, 70):
        x = torch.randn(2, length, D_MODEL)
        torch.testing.assert_close(program.module()(x), model(x), **CLOSE)
