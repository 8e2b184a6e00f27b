"""Mega's encoder: gated attention over a moving average, and an MLP behind each."""

from typing import Any

from torch import nn

from tristate.core.arguments import call
from tristate.core.mixers.mega import Mega
from tristate.core.mlp import MLP


def layers(
    d_model: int,
    n_layers: int,
    *,
    d_hidden: int | None = None,
    dropout: float = 0.0,
    **mega: Any,
) -> list[list[Any]]:
    """Mega and an MLP, in turn.

    Args:
        d_model: width.
        n_layers: mixers, each with its MLP.
        d_hidden: width inside the MLPs and of the values; ``2 d_model`` when absent.
        dropout: rate on averages, outputs and the MLPs' outputs.
        **mega: the other arguments of :class:`tristate.core.mixers.mega.Mega`.

    Source: Ma et al. 2022, https://arxiv.org/abs/2209.10655, section 3.3.
    """
    width = d_hidden or 2 * d_model
    return [
        [
            call(Mega, d_model, **{"d_value": width, "dropout": dropout, **mega}),
            nn.Sequential(MLP(d_model, d_hidden=width, activation="silu"), nn.Dropout(dropout)),
        ]
        for _ in range(n_layers)
    ]
