"""transformers' Mamba models through ``tristate.compat`` against their own slow path."""

import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from tristate.core import compat
from tristate.recipes.bench.cases import Case

# Name: folder in transformers, and what differs from the small sizes below.
FAMILIES: dict[str, tuple[str, dict[str, int]]] = {
    "Mamba": ("mamba", {"state_size": 16}),
    "FalconMamba": ("falcon_mamba", {"state_size": 16}),
    "Mamba2": (
        "mamba2", {"state_size": 128, "num_heads": 24, "head_dim": 64, "n_groups": 1}
    ),
}  # fmt: skip
# As wide as Mamba-130m.
SIZES = {"hidden_size": 768, "num_hidden_layers": 2, "vocab_size": 1024, "pad_token_id": 0}
LENGTH = 256
# Autograd through the slow path's loop over time takes time that grows with the square of it.
TRAINED = 64


def cases(quick: bool) -> Iterator[Case]:
    """Each family's prompt, training and next token; none where transformers isn't installed."""
    if not find_spec("transformers"):
        return
    for family in FAMILIES:
        yield from of_family(family, SIZES, LENGTH, quick)


def of_family(family: str, sizes: dict[str, int], length: int, quick: bool) -> Iterator[Case]:
    """The cases of one family; the weights count as inputs, which the floor moves once."""
    slow, fast = models(family, sizes)
    weights = {name: p.detach() for name, p in fast.named_parameters()}
    shape = {"L": length, "D": sizes["hidden_size"], "layers": sizes["num_hidden_layers"]}
    prompt = torch.randn(1, length, sizes["hidden_size"])
    for what, x, direction in (
        ("prompt", prompt, "forward"),
        ("training", prompt[:, :TRAINED] if quick else prompt, "forward+backward"),
    ):
        yield Case(
            f"transformers' {family}, {what}",
            shape | {"L": x.shape[1]},
            {"x": x} | weights,
            partial(logits, fast),
            {"its slow path": partial(logits, slow)},
            directions=(direction,),
        )
    yield Case(
        f"transformers' {family}, next token",
        shape | {"L": 1},
        {"x": prompt[:, :1]} | weights,
        generation(fast, prompt),
        {"its slow path": generation(slow, prompt)},
        directions=("forward",),
    )


def models(family: str, sizes: dict[str, int]) -> tuple[Any, Any]:
    """The same model without and with the kernels, in evaluation."""
    folder, own = FAMILIES[family]
    name = f"transformers.models.{folder}"
    config_class = getattr(import_module(f"{name}.configuration_{folder}"), f"{family}Config")
    built = []
    for enabled in (False, True):
        module = _imported(f"{name}.modeling_{folder}", enabled)
        built.append(getattr(module, f"{family}ForCausalLM")(config_class(**sizes, **own)).eval())
    slow, fast = built
    fast.load_state_dict(slow.state_dict())
    return slow, fast


def _imported(name: str, enabled: bool) -> ModuleType:
    """A model's module of its own, which found our kernels or did not, and stays so."""
    before = sys.modules.pop(name, None)
    if enabled:
        compat.enable(shadow=True)
    try:
        return import_module(name)
    finally:
        # Out of the table before the kernels go: those who stay there are told.
        sys.modules.pop(name, None)
        if before is not None:
            sys.modules[name] = before
        if enabled:
            compat.disable()


def logits(model: Any, x: Tensor, **_: Tensor) -> Tensor:
    """A whole prompt's; as in generation, the states are kept where there are no gradients."""
    return model(inputs_embeds=x, use_cache=not torch.is_grad_enabled()).logits


def generation(model: Any, prompt: Tensor) -> Callable[..., Tensor]:
    """A function that takes one more token each time, after the prompt."""
    with torch.no_grad():
        cache = model(inputs_embeds=prompt, use_cache=True).cache_params

    def step(x: Tensor, **_: Tensor) -> Tensor:
        return model(inputs_embeds=x, cache_params=cache, use_cache=True).logits

    return step
