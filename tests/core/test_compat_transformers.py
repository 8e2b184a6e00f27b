"""transformers' Mamba models on our kernels: the slow path's results by the fast path's code."""

import importlib
import inspect
import sys
from functools import wraps

import pytest
import torch
import transformers
from transformers.models.mamba import modeling_mamba

from tristate import compat
from tristate.core.compat import conv, scan, ssd

# Float32 by two orders of summation; logits here are about 1 to 4.
LOGITS = {"rtol": 0, "atol": 1e-4}
SMALL = {"vocab_size": 64, "hidden_size": 32, "state_size": 8, "num_hidden_layers": 2}
MAMBA2 = {"head_dim": 16, "num_heads": 4, "n_groups": 2, "chunk_size": 16}
MODELS = {"Mamba": SMALL, "FalconMamba": SMALL, "Mamba2": SMALL | MAMBA2}

# What a model's fast path calls: in training, in evaluation, in a step of generation.
FAST = {
    "Mamba": ("mamba_inner_fn", "selective_scan_fn", "selective_state_update"),
    "FalconMamba": ("mamba_inner_fn", "selective_scan_fn", "selective_state_update"),
    "Mamba2": (
        "mamba_split_conv1d_scan_combined",
        "mamba_chunk_scan_combined",
        "selective_state_update",
    ),
}


@pytest.fixture(autouse=True)
def disabled_after():
    yield
    compat.disable()


@pytest.fixture
def calls(monkeypatch):
    """Names of our functions, in the order in which they are called from now on."""
    names = []

    def watch(module, name):
        function = getattr(module, name)

        # transformers hands on the arguments that the signature names: keep it.
        @wraps(function)
        def watched(*args, **kwargs):
            names.append(name)
            return function(*args, **kwargs)

        monkeypatch.setattr(module, name, watched)

    for module in (scan, ssd, conv):
        for name in vars(module).copy():
            if name.startswith(("mamba_", "selective_", "causal_conv1d_")):
                watch(module, name)
    return names


@pytest.fixture(params=MODELS)
def family(request):
    return request.param


def build(family):
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**MODELS[family], pad_token_id=0)
    return getattr(transformers, f"{family}ForCausalLM")(config)


def logits_and_gradients(model, ids):
    model.zero_grad()
    out = model(ids, labels=ids)
    out.loss.backward()
    return out.logits.detach(), {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("training", [True, False])
def test_logits_and_gradients_are_the_slow_paths(family, training, calls):
    model = build(family).train(training)
    ids = torch.randint(1, 64, (2, 37))
    logits, grads = logits_and_gradients(model, ids)
    assert not calls

    compat.enable()
    fast_logits, fast_grads = logits_and_gradients(model, ids)
    assert FAST[family][0 if training else 1] in calls
    torch.testing.assert_close(fast_logits, logits, **LOGITS)
    for name, grad in grads.items():
        got = fast_grads[name]
        assert got.isfinite().all(), name
        torch.testing.assert_close(got, grad, rtol=0, atol=1e-4 * float(grad.abs().max()) + 1e-9)


def test_generation_is_the_slow_paths(family, calls):
    model = build(family).eval()
    ids = torch.randint(1, 64, (2, 13))
    mask = torch.ones_like(ids)
    mask[1, :4] = 0
    options = {
        "attention_mask": mask,
        "max_new_tokens": 9,
        "do_sample": False,
        "output_logits": True,
        "return_dict_in_generate": True,
    }
    slow = model.generate(ids, **options)
    assert not calls
    compat.enable()
    fast = model.generate(ids, **options)
    assert {FAST[family][2], "causal_conv1d_update"} <= set(calls)
    assert torch.equal(fast.sequences, slow.sequences)
    torch.testing.assert_close(torch.stack(fast.logits), torch.stack(slow.logits), **LOGITS)


def test_a_model_goes_back_when_disabled(calls):
    model = build("Mamba").eval()
    ids = torch.randint(1, 64, (1, 5))
    for _ in range(2):
        compat.enable()
        model(ids)
        assert calls
        compat.disable()
        calls.clear()
        model(ids)
        assert not calls


def found(function):
    """The implementation that transformers' wrapper of ``function`` calls."""
    return inspect.getclosurevars(function).nonlocals["implementation"]


def test_a_model_that_is_imported_later_is_fast_and_goes_back():
    name = "transformers.models.jamba.modeling_jamba"
    sys.modules.pop(name, None)
    compat.enable()
    jamba = importlib.import_module(name)
    assert found(jamba.mamba_selective_scan) is scan.selective_scan_fn
    compat.disable()
    assert found(jamba.mamba_selective_scan) is inspect.unwrap(jamba.mamba_selective_scan)


def test_another_transformers_is_left_alone(monkeypatch):
    hub = sys.modules["transformers.integrations.hub_kernels"]
    monkeypatch.delattr(hub, "use_kernel_func_from_hub_with_fallback")
    compat.enable()
    scan_function = modeling_mamba.mamba_selective_scan
    assert found(scan_function) is inspect.unwrap(scan_function)
