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
    n_inputs = len(inputs)

    def backward(*tensors: Tensor | None) -> list[Tensor | None]:
        leaves, weights = tensors[:n_inputs], tensors[n_inputs:]
        outputs = function(*leaves)
        used = [(y, g.to(y.dtype)) for y, g in zip(outputs, weights, strict=True) if g is not None]
        first = iter(
            torch.autograd.grad(
                [y for y, _ in used],
                [x for x in leaves if x is not None],
                [g for _, g in used],
                create_graph=True,
                materialize_grads=True,
            )
        )
        return [None if x is None else next(first) for x in leaves]

    found = vector_jacobian(backward, [*inputs, *grad_outputs], cotangents)
    return found[n_inputs:], found[:n_inputs]


def vector_jacobian(
    function: Callable[..., Sequence[Tensor | None]], inputs: Tensors, cotangents: Tensors
) -> list[Tensor | None]:
    """Vector-Jacobian product of any function of tensors.

    Args:
        function: from the inputs to outputs.
        inputs: its arguments; None where an optional one is absent.
        cotangents: gradients of the outputs; None where one has none, anything where it is absent.

    Returns:
        A gradient for each input; None where nothing depends on one.
    """
    with torch.enable_grad():
        leaves = [None if x is None else x.detach().requires_grad_() for x in inputs]
        outputs = function(*leaves)
    pairs = [
        (y, c.to(y.dtype))
        for y, c in zip(outputs, cotangents, strict=True)
        if y is not None and c is not None and y.requires_grad
    ]
    if not pairs:
        return [None] * len(leaves)
    present = [x for x in leaves if x is not None]
    grads = iter(
        torch.autograd.grad(
            [y for y, _ in pairs], present, [c for _, c in pairs], allow_unused=True
        )
    )
    return [None if x is None else next(grads) for x in leaves]
