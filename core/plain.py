"""The plain stack: one kind of mixer, block after block, as most backbones have it."""

from typing import Any, Literal

import torch
from timm.layers import DropPath
from torch import nn

from tristate.core.arguments import call
from tristate.core.block import Block
from tristate.core.mixers import MIXERS
from tristate.core.norm import LayerNorm, RMSNorm
from tristate.core.stack import Stack

NORMS = {"rms": RMSNorm, "layer": LayerNorm}


def plain_stack(
    d_model: int,
    n_layers: int,
    *,
    mixer: str,
    mixer_args: dict[str, Any] | None = None,
    norm: Literal["rms", "layer"] = "rms",
    norm_eps: float = 1e-5,
    residual_in_fp32: bool = True,
    layer_scale: float | None = None,
    drop_path_rate: float = 0.0,
) -> Stack:
    """``n_layers`` blocks of one mixer, and the norm that closes them.

    Args:
        d_model: width of the tokens.
        n_layers: blocks.
        mixer: name in :data:`tristate.core.mixers.MIXERS`.
        mixer_args: its arguments beside ``d_model``.
        norm: ``"rms"`` or ``"layer"``.
        norm_eps: added to the norms' variance.
        residual_in_fp32: keep the residual stream in float32 under half precision.
        layer_scale: initial factor per channel on each mixer's output; None for no such factor.
        drop_path_rate: stochastic depth, from 0 at the first block to this at the last.

    Raises:
        ValueError: ``norm`` is unknown, or the mixer does not know an argument or refuses it.
        KeyError: ``mixer`` is unknown; the nearest names are in the message.
    """
    if norm not in NORMS:
        raise ValueError(f"norm is one of {', '.join(NORMS)}, got {norm!r}")
    make_mixer, make_norm = MIXERS[mixer], NORMS[norm]
    norm_args = {"eps": norm_eps, "residual_in_fp32": residual_in_fp32}
    rates = [drop_path_rate * i / max(1, n_layers - 1) for i in range(n_layers)]
    return Stack(
        (
            Block(
                call(make_mixer, d_model, **(mixer_args or {})),
                make_norm(d_model, **norm_args),
                drop_path=DropPath(rate) if rate else None,
                scale=None
                if layer_scale is None
                else nn.Parameter(torch.full((d_model,), layer_scale)),
            )
            for rate in rates
        ),
        make_norm(d_model, **norm_args),
    )
