"""The gated delta rule at the sizes of models, against chunked forms in PyTorch."""

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, normalize

from tristate.kernels.delta import chunked, gated_delta_rule, reference
from tristate.recipes.bench.cases import Case

# Name: batch, length, heads, key and value channels of each, corrections a token; and whether it
# is quick.
SIZES = {
    "64 channels": ((1, 2048, 4, 64, 64, 1), True),
    "128 channels": ((1, 2048, 4, 128, 128, 1), True),
    "product of two": ((1, 1024, 4, 64, 64, 2), True),
    "short": ((8, 256, 4, 64, 64, 1), True),
}


def cases(quick: bool) -> Iterator[Case]:
    """One case a size."""
    for name, ((batch, length, heads, d_key, d_value, n), small) in SIZES.items():
        if quick and not small:
            continue
        steps = (batch, n * length, heads)
        inputs = {
            "q": torch.randn(batch, length, heads, d_key),
            "k": normalize(torch.randn(*steps, d_key), dim=-1),
            "v": torch.randn(*steps, d_value),
            "beta": torch.rand(steps),
            "g": logsigmoid(torch.randn(batch, length, heads) + 3),
        }
        peers: dict[str, Callable[..., Any]] = {"PyTorch, chunked": by_chunk}
        if n == 1 and find_spec("transformers"):
            peers["transformers, chunked"] = _transformers()
        # Autograd through a loop takes time that grows with the square of the length.
        if length <= 256:
            peers["PyTorch, step by step"] = _step_by_step
        shape = {"B": batch, "L": length, "H": heads, "K": d_key, "V": d_value, "n": n}
        yield Case(f"gated_delta_rule, {name}", shape, inputs, _ours, peers)


def _ours(**inputs: Any) -> Tensor:
    return gated_delta_rule(**inputs, backend="cpu")[0]


def by_chunk(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, g: Tensor) -> Tensor:
    """Matrix products of 64 steps at once, and a recurrence between them."""
    scale = q.shape[3] ** -0.5
    return chunked.gated_delta_rule(q, k, v, beta, g, None, None, scale, False)[0]


def _step_by_step(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, g: Tensor) -> Tensor:
    scale = q.shape[3] ** -0.5
    return reference.gated_delta_rule(q, k, v, beta, g, None, None, scale, False)[0]


def _transformers() -> Callable[..., Tensor]:
    from transformers.models.qwen3_next import modeling_qwen3_next as module

    def rule(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, g: Tensor) -> Tensor:
        return module.torch_chunk_gated_delta_rule(q, k, v, g, beta)[0]

    return rule
