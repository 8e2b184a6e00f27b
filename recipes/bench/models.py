"""A prompt and the token after it: every mixer that has a state, and language models of others."""

from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tristate.core.mixer import state_tensors
from tristate.core.mixers import MIXERS
from tristate.kernels.registry import nearest
from tristate.recipes.bench.cases import Case
from tristate.recipes.bench.pairs import FAMILIES, Pair, pair
from tristate.recipes.usage import UsageError

ABOUT = """Times what generation does, in one process and turn by turn: medians, one sequence.

prompt  so many positions at once, with the state after them: tokens a second
step    one more token from the state: microseconds
floor   of a prompt the dense products by PyTorch, of a step reading weights and state once
peers   how many times longer transformers' model with the same weights takes

Mixers have their own defaults at width 256, one layer each; transformers' models are small random
ones of that width with two to four layers, read as ours by from_original. transformers has no
compiled kernels of its own here, as after `pip install transformers` on any CPU.
"""

D_MODEL = 256
PROMPTS = (256, 2048)


def names() -> list[str]:
    """What can be measured: mixers, and with ``transformers.`` in front models of transformers."""
    return [*sorted(MIXERS), *(f"transformers.{family}" for family in FAMILIES)]


def cases(only: Iterable[str], quick: bool) -> Iterator[Case]:
    """Prompts and a step of each; the short prompt alone where it must be quick.

    Raises:
        UsageError: a name is unknown, has no state, or needs transformers, which isn't installed.
    """
    only, prompts = list(only), PROMPTS[:1] if quick else PROMPTS
    for name in only:
        if name not in names():
            raise UsageError(f"no model {name!r} to measure; {nearest(name, names())}")
    for name in only or names():
        family = name.removeprefix("transformers.")
        if family != name and not find_spec("transformers"):
            if only:
                raise UsageError(f"{name} needs transformers, which isn't installed")
            continue
        if family != name:
            yield from of(name, pair(family, D_MODEL), prompts)
            continue
        mixer = MIXERS[name](D_MODEL).eval()
        if mixer.causal:
            yield from of(name, Pair(mixer, lambda n: torch.randn(1, n, D_MODEL)), prompts)
        elif only:
            raise UsageError(f"{name} is not causal: it has no state to go on from")


def of(name: str, models: Pair, prompts: Iterable[int]) -> Iterator[Case]:
    """The prompts of a pair, and the step behind the last one."""
    ours, x, state = models.ours, torch.empty(0), None
    weights = {name: p.detach() for name, p in ours.named_parameters()}
    for length in prompts:
        x = models.draw(length)
        yield Case(
            f"{name}, prompt",
            {"B": 1, "L": length, "D": D_MODEL},
            {"x": x, **weights},
            lambda x, **_: ours.forward_state(x)[0],
            {p: lambda x, call=call, **_: call.prompt(x)[0] for p, call in models.peers.items()},
            floor=products(ours, length),
            directions=("forward",),
        )
    with torch.no_grad():
        _, state = ours.forward_state(x)
        caches = {peer: call.prompt(x)[1] for peer, call in models.peers.items()}
    kept = {f"state.{i}": part for i, part in enumerate(state_tensors(state))}

    def step(x: Tensor, **_: Tensor) -> Tensor:
        return ours.step(x, state)[0]

    def theirs(peer: str) -> Callable[..., Tensor]:
        return lambda x, **_: models.peers[peer].step(x, caches[peer])

    yield Case(
        f"{name}, step",
        {"B": 1, "D": D_MODEL, "seen": x.shape[1]},
        {"x": models.draw(1)[:, 0], **weights, **kept},
        step,
        {peer: theirs(peer) for peer in models.peers},
        directions=("forward",),
    )


def products(model: nn.Module, length: int) -> Callable[[], object]:
    """A call that does the products of a model's linear maps for so many positions."""
    linears = [m for m in model.modules() if isinstance(m, nn.Linear)]
    pairs = [(m.weight.detach(), torch.randn(length, m.in_features)) for m in linears]

    def run() -> list[Any]:
        return [F.linear(x, weight) for weight, x in pairs]

    return run
