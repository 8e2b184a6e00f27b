"""Looking inside: what is drawn of a layer is what the layer does."""

from typing import NamedTuple

import pytest
import torch
from torch import nn

from tristate.core.bidirectional import Bidirectional
from tristate.core.explain.calls import recorded, watching
from tristate.core.explain.layers import layers_of
from tristate.core.explain.lookups import Lookups
from tristate.core.explain.page import layer_sections
from tristate.core.explain.response import half_life, half_lives, impulse_response
from tristate.core.explain.subject import Subject, saliency
from tristate.core.mixers import GRID_MIXERS, MIXERS
from tristate.core.mixers.mamba import Mamba
from tristate.core.tokens import Tokens
from tristate.kernels import cross

D_MODEL, LENGTH = 12, 9
# Float64 throughout; sums of a few dozen terms.
EXACT = {"rtol": 1e-10, "atol": 1e-10}
# No position sees another by an op of these.
POINTWISE = {"rwkv_channel"}
INVARIANT = {
    *("dss", "ema", "gss", "h3", "hyena", "liquid_s4", "longconv", "lru", "s4", "s4d", "s5"),
    "tnn",
}
OPTIONS = [
    ("attention", {"causal": False}),
    ("attention", {"n_kv_heads": 2, "window": 3}),
    ("gss", {"reverse": True}),
    ("h3", {"d_head": 2}),
    ("hyena", {"order": 3}),
    ("liquid_s4", {"ssm": "diagonal", "liquid": "kb"}),
    ("longconv", {"n_filters": 2, "bidirectional": True}),
    ("lru", {"bidirectional": True}),
    ("mamba", {"reverse": True}),
    ("mamba2", {"norm": False, "learn_initial_state": True, "D_per_channel": True}),
    ("mega", {"bidirectional": True, "chunk_size": 4}),
    ("s4", {"channels": 2, "gate": "gelu"}),
    ("s4d", {"bidirectional": True}),
    ("tnn", {"bidirectional": True, "normalize": True}),
]
CASES = [*((name, {}) for name in MIXERS), *OPTIONS]


def make(name, options=()):
    torch.manual_seed(1)
    mixer = MIXERS[name](D_MODEL, **dict(options)).double().eval()
    # What starts at zero or one would hide a mistake.
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return mixer


def inputs():
    return torch.randn(2, LENGTH, D_MODEL, dtype=torch.float64)


def matrices(call):
    return [call.matrix(part) for part in range(len(call.values))]


class Passed(NamedTuple):
    """A mixer, its input and output, and the calls that made it with their matrices."""

    mixer: nn.Module
    x: torch.Tensor
    y: torch.Tensor
    calls: list
    matrices: list


@pytest.fixture(params=CASES, ids=lambda case: "-".join([case[0], *case[1]]), scope="module")
def passed(request):
    mixer, x = make(*request.param), inputs()
    with recorded() as calls, torch.no_grad():
        y = mixer(x)
    assert bool(calls) != (request.param[0] in POINTWISE)
    with torch.no_grad():
        return Passed(mixer, x, y, calls, [matrices(call) for call in calls])


@torch.no_grad()
def test_the_matrix_applied_to_the_values_gives_the_ops_output(passed):
    for call, matrix in zip(passed.calls, passed.matrices, strict=True):
        torch.testing.assert_close(call.apply(matrix), call.output(), **EXACT)


@torch.no_grad()
def test_a_layer_of_matrices_gives_the_layers_output(passed):
    kept = iter(passed.matrices)

    def rebuilt(call):
        result, whole = call.result(), call.apply(next(kept))
        return (whole, *result[1:]) if isinstance(result, tuple) else whole

    with watching(rebuilt):
        torch.testing.assert_close(passed.mixer(passed.x), passed.y, **EXACT)


@torch.no_grad()
def test_the_named_factors_are_all_there_is_beside_the_map(passed):
    for call in passed.calls:
        state, skip, gate = call.beside()
        whole = call.mapped(call.values)
        for term in (state, skip):
            whole = whole if term is None else whole + term
        torch.testing.assert_close(whole if gate is None else whole * gate, call.output(), **EXACT)


@torch.no_grad()
def test_a_causal_layer_reads_nothing_later(passed):
    if not passed.mixer.causal:
        pytest.skip("reads what is ahead")
    for (matrix,) in passed.matrices:
        # Where a token has several steps, all of them are its own.
        steps = matrix.shape[-1] // matrix.shape[-2]
        for step in range(steps):
            assert matrix[..., step::steps].triu(1).abs().amax() < 1e-12


@torch.no_grad()
def test_where_a_layer_is_invariant_its_impulse_response_convolves_to_its_output(passed):
    for call, matrix in zip(passed.calls, passed.matrices, strict=True):
        if not call.invariant:
            with pytest.raises(ValueError, match="varies in time"):
                impulse_response(call)
            continue
        response = impulse_response(call)
        y = response.convolve(call.op.laid(call.values[0]))
        torch.testing.assert_close(y, call.op.laid(call.mapped(call.values)), **EXACT)
        # The matrix is the same response again, shifted from column to column.
        diagonal = matrix[0].diagonal(dim1=-2, dim2=-1)
        now = response.taps[..., response.origin, None]
        torch.testing.assert_close(diagonal, now.expand_as(diagonal), **EXACT)


def test_which_mixers_are_invariant_is_known():
    found = set()
    for name in set(MIXERS) - POINTWISE:
        with recorded() as calls, torch.no_grad():
            make(name)(inputs())
        if all(call.invariant for call in calls):
            found.add(name)
    assert found == INVARIANT


@torch.no_grad()
def test_the_spectrum_is_what_a_sine_is_multiplied_by():
    with recorded() as calls:
        make("s4d")(torch.zeros(1, 64, D_MODEL, dtype=torch.float64))
    response = impulse_response(calls[0])
    frequencies, gains = response.spectrum(512)
    assert frequencies[0] == 0 and frequencies[-1] == 0.5
    torch.testing.assert_close(gains[..., 0], response.taps.sum(-1).abs(), **EXACT)
    lags = torch.arange(response.taps.shape[-1], dtype=torch.float64)
    wave = torch.polar(torch.ones_like(lags), -2 * torch.pi * frequencies[100].double() * lags)
    torch.testing.assert_close(gains[..., 100], (response.taps * wave).sum(-1).abs(), **EXACT)


def test_half_of_a_decays_energy_is_spent_after_its_half_life():
    a = torch.tensor([0.5**0.5, 0.9, 0.99, 0.999], dtype=torch.float64)
    lives = half_life(a[:, None] ** torch.arange(100_000))
    torch.testing.assert_close(lives, -0.5 / a.log2(), rtol=1e-2, atol=0)
    assert half_life(torch.tensor([1.0, 0, 0])) == 0.5
    assert half_life(torch.tensor([0.0, 0, 0, 2.0])) == 3.5
    assert half_life(torch.zeros(3)).isnan()


@torch.no_grad()
def test_half_lives_of_a_selective_layer_follow_the_input_and_others_do_not():
    for name, invariant in (("s4d", True), ("lru", True), ("mamba", False), ("attention", False)):
        with recorded() as calls:
            make(name)(torch.randn(1, 65, D_MODEL, dtype=torch.float64))
        lives = half_lives(calls[0]).flatten(1)
        assert lives.isfinite().all() and (lives >= 0.5).all() and (lives <= 65).all()
        assert (len(lives) == 1) == invariant
        assert invariant or (lives.std(0) > 0).all()


@torch.no_grad()
def test_a_recurrence_with_one_decay_has_its_half_life():
    mixer = make("lru")
    with recorded() as calls:
        mixer(torch.zeros(1, 400, D_MODEL, dtype=torch.float64))
    a = mixer.mixer.transition()[0].abs()
    wanted = -0.5 / a.log2()
    long = (wanted > 3) & (wanted < 40)
    assert long.any()
    torch.testing.assert_close(half_lives(calls[0])[0, long], wanted[long], rtol=2e-2, atol=0)


@torch.no_grad()
def test_a_scan_over_a_map_has_a_matrix_too():
    u, delta = torch.randn(1, 3, 2, 4).double(), torch.rand(1, 4, 3, 2, 4).double()
    A, D = -torch.rand(4, 3, 2).double(), torch.randn(4, 3).double()
    B, C = torch.randn(2, 1, 4, 2, 2, 4).double()
    with recorded() as calls:
        y = cross.selective_scan_2d(u, delta, A, B, C, D)
    (call,) = calls
    assert call.matrix().shape == (1, 3, 8, 8)
    torch.testing.assert_close(call.apply(matrices(call)), y, **EXACT)


@torch.no_grad()
def test_axes_of_a_grid_are_convolutions():
    mixer = GRID_MIXERS["s4nd"](4).double().eval()
    with recorded() as calls:
        mixer(torch.randn(1, 3, 5, 4, dtype=torch.float64))
    assert [call.length for call in calls] == [3, 5]
    for call in calls:
        y = impulse_response(call).convolve(call.op.laid(call.values[0]))
        torch.testing.assert_close(y, call.op.laid(call.mapped(call.values)), **EXACT)


def test_watching_leaves_everything_as_it_was():
    before = dict(vars(torch.nn.functional))
    mixer, x = make("mega"), inputs()
    y = mixer(x)
    with pytest.raises(RuntimeError, match="stop"), recorded():
        mixer(x)
        raise RuntimeError("stop")
    with recorded() as calls:
        pass
    mixer(x)
    assert not calls and dict(vars(torch.nn.functional)) == before
    torch.testing.assert_close(mixer(x), y, rtol=0, atol=0)


def test_layers_are_the_outermost_mixers_and_what_else_calls_an_op():
    class Foreign(nn.Module):
        def forward(self, x):
            return nn.functional.scaled_dot_product_attention(x, x, x)

    model = nn.Sequential(
        Bidirectional(Mamba(4), Mamba(4, reverse=True)), MIXERS["rwkv_channel"](4), Foreign()
    ).double()

    def run():
        y = model[1](model[0](torch.randn(1, 5, 4).double()))
        return model[2](y[:, None])

    layers = layers_of(model, run)
    assert [layer.kind for layer in layers] == ["Bidirectional", "RWKVChannelMix", "Foreign"]
    assert [len(layer.calls) for layer in layers] == [2, 0, 1]
    assert layers[2].name == "2"


@torch.no_grad()
@pytest.mark.parametrize("name", MIXERS)
def test_every_mixer_has_a_page(name):
    model = Tokens(6, 3, d_model=D_MODEL, n_layers=1, mixer=name).double().eval()
    ids = torch.randint(6, (1, 17))
    sections = layer_sections(model, [lambda: model(ids)], None)
    page = "".join(section.html for section in sections)
    assert sections[-1].title.startswith("Layer 0: ")
    if name in POINTWISE:
        assert "RWKVChannelMix can't be explained" in page and "<svg" not in page
    else:
        assert "half-life" in page and page.count("<svg") > 1 and "nan" not in page
    with pytest.raises(IndexError, match="no layer 1: this model has the layers 0 to 0"):
        layer_sections(model, [lambda: model(ids)], None, 1)


class Weighed(Subject):
    """A score that is known: a sum, and a product of two places."""

    shape, caption, reference = (2, 3), "", "nothing"

    def __init__(self, x):
        self.x = x

    def score(self, masks):
        x = masks * self.x
        return x.sum((1, 2)) + 3 * x[:, 0, 0] * x[:, 1, 2]

    def draw(self, shares):
        return ""


def test_shares_sum_up_and_split_a_product_evenly():
    x = torch.randn(2, 3)
    shares, gain = saliency(Weighed(x))
    assert float(shares.sum()) == pytest.approx(gain, rel=1e-4)
    product = 1.5 * float(x[0, 0] * x[1, 2])
    wanted = x.clone()
    wanted[0, 0] += product
    wanted[1, 2] += product
    torch.testing.assert_close(shares, wanted, rtol=1e-4, atol=1e-4)


def test_letters_fade_from_their_shuffles_to_themselves():
    model = Tokens(6, 3, global_pool="avg", d_model=D_MODEL, n_layers=1).double().eval()
    ids = torch.tensor([5, 0, 1, 2, 3, 4, 0, 1])
    lookups = Lookups(model, lambda rows: model(rows)[:, 0], ids, ids == 5)
    with torch.no_grad():
        whole = model(ids[None])[:, 0]
        torch.testing.assert_close(lookups(torch.ones(1, 8)), whole)
        # What stays in its place in every shuffle is its own reference.
        fixed = torch.ones(1, 8)
        fixed[0, 0] = 0
        torch.testing.assert_close(lookups(fixed), whole)
        assert (lookups(torch.zeros(1, 8)) - whole).abs() > 1e-4
    masks = torch.full((2, 8), 0.5, requires_grad=True)
    lookups(masks).sum().backward()
    assert masks.grad.abs().sum(1).all()


def test_a_model_without_a_mixer_says_so():
    model = nn.Conv1d(1, 1, 1)
    (section,) = layer_sections(model, [lambda: model(torch.zeros(1, 1, 3))], None)
    assert "Conv1d can't be explained" in section.html
