"""Gradients of a fast backward op, by way of the reference.

A fast op has a hand-written backward op, which has no backward of its own. Where it is itself
differentiated, PyTorch differentiates its meaning: the vector-Jacobian product of the reference.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Tensors = Sequence[Tensor | None]


def gradients(
    function: Callable[..., tuple[Tensor, ...]],
    inputs: Tensors,
    grad_outputs: Tensors,
    cotangents: Tensors,
) -> tuple[list[Tensor | None], list[Tensor | None]]:
    """Vector-Jacobian product of a vector-Jacobian product.

    Args:
        function: the reference, from the differentiable inputs to all outputs.
        inputs: its arguments; None where an optional one is absent.
        grad_outputs: what the backward op was given, one for each output.
        cotangents: gradients of what the backward op returned, one for each input; None or whatever
            stands for an absent one where the input is absent.

    Returns:
        The gradients of ``grad_outputs`` and of ``inputs``; None where nothing depends on one.
    """
    with torch.enable_grad():
        leaves = [None if x is None else x.detach().requires_grad_() for x in inputs]
        weights = [None if g is None else g.detach().requires_grad_() for g in grad_outputs]
        outputs = function(*leaves)
        used = [(y, g.to(y.dtype)) for y, g in zip(outputs, weights, strict=True) if g is not None]
        present = [x for x in leaves if x is not None]
        first = torch.autograd.grad(
            [y for y, _ in used],
            present,
            [g for _, g in used],
            create_graph=True,
            materialize_grads=True,
        )
    wanted = [c for c, x in zip(cotangents, leaves, strict=True) if x is not None]
    pairs = [
        (g, c.to(g.dtype))
        for g, c in zip(first, wanted, strict=True)
        if c is not None and g.requires_grad
    ]
    every = [x for x in (*weights, *leaves) if x is not None]
    if not pairs:
        return [None] * len(weights), [None] * len(leaves)
    second = iter(
        torch.autograd.grad([g for g, _ in pairs], every, [c for _, c in pairs], allow_unused=True)
    )
    return (
        [None if x is None else next(second) for x in weights],
        [None if x is None else next(second) for x in leaves],
    )
