"""Softmax regression: what a linear model reaches is the least that a deep one has to."""

import torch
from torch import Tensor
from torch.nn import functional as F


def softmax_regression(
    features: Tensor, labels: Tensor, *, penalty: float = 3e-4, steps: int = 200
) -> tuple[Tensor, Tensor]:
    """Weight ``(D, K)`` and bias ``(K,)`` of the classes' scores, ``features @ weight + bias``.

    Args:
        features: ``(M, D)``.
        labels: ``(M,)`` int64, from 0 on.
        penalty: of the sum of squares of the weights.
        steps: at most, of L-BFGS.
    """
    n_classes = int(labels.max()) + 1
    weight = features.new_zeros(features.shape[1], n_classes, requires_grad=True)
    bias = features.new_zeros(n_classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=steps, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        fit = F.cross_entropy(features @ weight + bias, labels)
        value = fit + penalty * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)  # pyright: ignore[reportArgumentType]
    return weight.detach(), bias.detach()
