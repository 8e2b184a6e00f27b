"""What the gated delta rule means, by its reference in float64; its chunked form is the same."""

from functools import partial

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.functional import normalize

from tests.kernels.delta import KINDS, problem
from tests.kernels.laws import double
from tests.kernels.scans import results, wide
from tests.kernels.selective import segments
from tristate.kernels.delta import chunked, gated_delta_rule, reference

CLOSE = {"rtol": 1e-10, "atol": 1e-10}
BY_STEP, BY_TOKEN = ("k", "v", "beta"), ("q", "g")

run = partial(gated_delta_rule, backend="reference")


def tokens(tensors, chosen):
    """The inputs at some tokens, without an initial state."""
    n = tensors["k"].shape[1] // tensors["q"].shape[1]
    found = dict.fromkeys(tensors)
    for name in (*BY_STEP, *BY_TOKEN):
        if tensors[name] is not None:
            x = tensors[name].unflatten(1, (-1, n if name in BY_STEP else 1))
            found[name] = x[:, chosen].flatten(1, 2)
    return found


@pytest.fixture(params=KINDS, ids=str)
def tensors(request):
    return wide(problem(23, **KINDS[request.param])[0])


def test_by_hand():
    q, k, v = (torch.randn(2, 2, dtype=torch.float64) for _ in range(3))
    beta, g = torch.rand(2, dtype=torch.float64), -torch.rand(2, dtype=torch.float64)
    S, wanted = torch.zeros(2, 2, dtype=torch.float64), []
    for t in range(2):
        S = g[t].exp() * (torch.eye(2) - beta[t] * torch.outer(k[t], k[t])) @ S
        S = S + beta[t] * torch.outer(k[t], v[t])
        wanted.append(S.T @ q[t] / 2**0.5)
    row = lambda x: x[None, :, None]  # noqa: E731
    got, last = run(row(q), row(k), row(v), beta=row(beta), g=row(g))
    torch.testing.assert_close(got, row(torch.stack(wanted)))
    torch.testing.assert_close(last, S[None, None])


def test_a_full_correction_makes_a_key_hold_its_value(tensors):
    ones, keys = torch.ones_like(tensors["beta"]), normalize(tensors["k"], dim=3)
    n = keys.shape[1] // 23
    out, _ = run(**tensors | {"q": keys[:, n - 1 :: n], "k": keys, "beta": ones}, scale=1)
    torch.testing.assert_close(out, tensors["v"][:, n - 1 :: n], **CLOSE)


@pytest.mark.parametrize("reverse", (False, True))
def test_two_pieces_are_the_whole(tensors, reverse):
    whole, last = run(**tensors, reverse=reverse)
    first, second = tokens(tensors, slice(0, 9)), tokens(tensors, slice(9, 23))
    if reverse:
        first, second = second, first
    before = tensors["initial_state"]
    head, state = run(**first | {"initial_state": before}, reverse=reverse)
    tail, end = run(**second | {"initial_state": state}, reverse=reverse)
    pieces = [tail, head] if reverse else [head, tail]
    torch.testing.assert_close(torch.cat(pieces, 1), whole, **CLOSE)
    torch.testing.assert_close(end, last, **CLOSE)


def test_reverse_is_a_flip(tensors):
    packed = segments(23, len(tensors["q"]))
    flipped = tokens(tensors, torch.arange(22, -1, -1))
    flipped["initial_state"] = tensors["initial_state"]
    out, last = run(**tensors, reverse=True, seq_idx=packed)
    mirrored, wanted = run(**flipped, seq_idx=packed.flip(1))
    torch.testing.assert_close(out, mirrored.flip(1), **CLOSE)
    torch.testing.assert_close(last, wanted, **CLOSE)


@pytest.mark.parametrize("reverse", (False, True))
def test_packed_is_separate(tensors, reverse):
    bounds = [0, 4, 5, 16, 23]
    index = torch.tensor([7, 2, 2**30, 0]).repeat_interleave(torch.tensor([4, 1, 11, 7])).int()
    out, last = run(**tensors, seq_idx=index.expand(2, 23)[: len(tensors["q"])], reverse=reverse)
    ends = list(zip(bounds, bounds[1:], strict=False))
    for i, (first, end) in enumerate(ends):
        alone = tokens(tensors, slice(first, end))
        if i == (len(ends) - 1 if reverse else 0):
            alone["initial_state"] = tensors["initial_state"]
        wanted, state = run(**alone, reverse=reverse)
        torch.testing.assert_close(out[:, first:end], wanted, **CLOSE)
        if i == (0 if reverse else len(ends) - 1):
            torch.testing.assert_close(last, state, **CLOSE)


@pytest.mark.parametrize("reverse", (False, True))
def test_padding_is_as_if_it_were_not_there(reverse):
    tensors = wide(problem(23, n=2)[0])
    row = torch.tensor([-1, 3, 3, -1, -1, 3, 4, -5, 4, *[4] * 12, -1, -1]).int()
    real = row >= 0
    out, last = run(**tensors, seq_idx=row.expand(2, 23), reverse=reverse)
    without = tokens(tensors, real) | {"initial_state": tensors["initial_state"]}
    wanted, state = run(**without, seq_idx=row[real].expand(2, -1), reverse=reverse)
    assert (out[:, ~real] == 0).all()
    torch.testing.assert_close(out[:, real], wanted, **CLOSE)
    torch.testing.assert_close(last, state, **CLOSE)


def test_a_product_is_a_rule_of_more_tokens():
    tensors = wide(problem(11, n=3)[0])
    decays = torch.zeros(2, 33, 2, dtype=torch.float64)
    decays[:, ::3] = tensors["g"]
    longer = tensors | {"q": tensors["q"].repeat_interleave(3, 1), "g": decays}
    out, last = run(**tensors)
    steps, wanted = run(**longer)
    torch.testing.assert_close(out, steps[:, 2::3], **CLOSE)
    torch.testing.assert_close(last, wanted, **CLOSE)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk_size", (1, 8, 64))
@pytest.mark.parametrize("packed", (False, True))
def test_chunks_are_the_loop(kind, chunk_size, packed):
    tensors, cotangents = problem(23, **KINDS[kind])
    seq_idx = segments(23, len(tensors["q"])) if packed else None
    reverse = packed and chunk_size == 8

    def whole(rule, **options):
        def call(q, k, v, beta, g, initial_state):
            return rule(q, k, v, beta, g, initial_state, seq_idx, 0.3, reverse, **options)

        return results(call, wide(tensors), wide(cotangents))

    exact = whole(reference.gated_delta_rule)
    for name, x in whole(chunked.gated_delta_rule, chunk_size=chunk_size).items():
        torch.testing.assert_close(x, exact[name], rtol=1e-9, atol=1e-9)


def test_double_precision_goes_by_chunks_unless_the_reference_is_asked_for(monkeypatch):
    called = []
    for module in (chunked, reference):
        rule = module.gated_delta_rule
        note = lambda *x, m=module, r=rule: (called.append(m), r(*x))[1]  # noqa: E731
        monkeypatch.setattr(module, "gated_delta_rule", note)
    tensors = wide(problem(5)[0])
    gated_delta_rule(**tensors)
    run(**tensors)
    assert called == [chunked, reference]


@pytest.mark.parametrize("kind", ("gated", "no gate", "product, all by channel"))
def test_gradients_of_gradients(kind):
    sizes = {"batch": 1, "heads": 1, "d_key": 2, "d_value": 2}
    tensors = wide(problem(3, **{**KINDS[kind], **sizes})[0])
    present = {k: x.clone().requires_grad_() for k, x in tensors.items() if x is not None}
    packed = torch.tensor([[0, 1, 1]], dtype=torch.int32)

    def op(*inputs):
        return run(**dict(zip(present, inputs, strict=True)), seq_idx=packed)

    assert gradcheck(op, [*present.values()], fast_mode=True)
    assert gradgradcheck(op, [*present.values()], fast_mode=True)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"q": torch.zeros(2, 5, 19)}, r"q must be \(B, L, H, K\)"),
        ({"k": torch.zeros(2, 7, 2, 19)}, r"k must be \(B, n L, H, K\) with L = 5"),
        ({"k": torch.zeros(2, 10, 2, 18)}, r"k must be \(B, n L, H, K\) = \(2, 10, 2, 19\)"),
        ({"v": torch.zeros(2, 10, 2, 35)}, r"v must be \(B, n L, H, V\) = \(2, 5, 2, 35\)"),
        ({"beta": torch.zeros(2, 5, 2, 19)}, r"beta must be \(B, n L, H, V\) = \(2, 5, 2, 35\)"),
        ({"beta": torch.zeros(2, 5)}, r"beta must be \(B, n L, H\) or"),
        ({"g": torch.zeros(2, 5, 3)}, r"g must be \(B, L, H\) or \(B, L, H, K\) = \(2, 5, 2\)"),
        ({"g": torch.zeros(2, 5, 2, 35)}, r"g must be \(B, L, H, K\) = \(2, 5, 2, 19\)"),
        ({"initial_state": torch.zeros(2, 2, 35, 19)}, r"initial_state must be \(B, H, K, V\)"),
        ({"seq_idx": torch.zeros(2, 5)}, "seq_idx must be int32 or int64, got torch.float32"),
        ({"v": torch.zeros(2, 5, 2, 35, dtype=torch.int64)}, "v must be floating point"),
        ({"beta": torch.zeros(2, 5, 2, device="meta")}, "beta is on meta, but q is on cpu"),
        ({"backend": "cuda"}, "unknown backend 'cuda'"),
    ],
)
def test_refuses_what_does_not_fit(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        gated_delta_rule(**{**problem(5)[0], **change})


def test_named_cpu_backend_refuses_float64():
    with pytest.raises(ValueError, match="no cpu backend for these arguments"):
        gated_delta_rule(**double(problem(5)[0]), backend="cpu")
