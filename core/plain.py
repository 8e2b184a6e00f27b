"""The stack that most backbones have: one kind of mixer, block after block, or a named pattern."""

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from timm.layers import DropPath
from torch import nn

from tristate.core.arguments import call
from tristate.core.block import Block
from tristate.core.mixers import MIXERS
from tristate.core.norm import (
    AddOnly,
    AddThen,
    BatchNorm,
    LayerNorm,
    PostNorm,
    RMSNorm,
    ScaleNorm,
)
from tristate.core.patterns import PATTERNS, Beside
from tristate.core.side import SideBlock
from tristate.core.stack import Stack
from tristate.kernels.registry import nearest


def _batch_norm(d_model: int, *, eps: float, residual_in_fp32: bool) -> AddThen:
    return AddThen(BatchNorm(d_model, eps=eps), residual_in_fp32=residual_in_fp32)


def _scale_norm(d_model: int, *, eps: float, residual_in_fp32: bool) -> AddThen:
    return AddThen(ScaleNorm(eps=eps), residual_in_fp32=residual_in_fp32)


NORMS: dict[str, Callable[..., nn.Module]] = {
    "rms": RMSNorm,
    "layer": LayerNorm,
    "batch": _batch_norm,
    "scale": _scale_norm,
}

NormName = Literal["rms", "layer", "batch", "scale"]


def plain_stack(
    d_model: int,
    n_layers: int,
    *,
    mixer: str,
    mixer_args: dict[str, Any] | None = None,
    norm: NormName = "rms",
    norm_eps: float = 1e-5,
    prenorm: bool = True,
    residual_in_fp32: bool = True,
    layer_scale: float | None = None,
    drop_path_rate: float = 0.0,
) -> Stack:
    """``n_layers`` blocks of one mixer, or the layers of a hybrid, and the norm that closes them.

    Args:
        d_model: width of the tokens.
        n_layers: layers; each is a block, in hybrids mostly two: a mixer and an MLP.
        mixer: name in :data:`tristate.core.mixers.MIXERS`, or for a hybrid in
            :data:`tristate.core.patterns.PATTERNS`.
        mixer_args: its arguments beside ``d_model`` (and ``n_layers``).
        norm: ``"rms"``, ``"layer"``, ``"batch"`` or ``"scale"``, see :mod:`tristate.core.norm`.
        norm_eps: added to the norms' variance.
        prenorm: norm in front of each block, ``x + f(norm(x))``; else behind, ``norm(x + f(x))``.
        residual_in_fp32: keep the residual stream in float32 under half precision.
        layer_scale: initial factor per channel on each block's output; None for no such factor.
        drop_path_rate: stochastic depth, from 0 at the first layer to this at the last.

    Raises:
        ValueError: ``norm`` is unknown, or the mixer does not know an argument or refuses it.
        KeyError: ``mixer`` is unknown; the nearest names are in the message.
    """
    if norm not in NORMS:
        raise ValueError(f"norm is one of {', '.join(NORMS)}, got {norm!r}")
    make_norm = NORMS[norm]
    norm_args = {"eps": norm_eps, "residual_in_fp32": residual_in_fp32}

    def norm_of(first: bool) -> nn.Module:
        if prenorm:
            return make_norm(d_model, **norm_args)
        # What stands behind a block stands in front of the next.
        return AddOnly() if first else PostNorm(make_norm(d_model, **norm_args))

    def block(part: Any, rate: float, first: bool) -> Block:
        options = {
            "norm": norm_of(first),
            "drop_path": DropPath(rate) if rate else None,
            "scale": None
            if layer_scale is None
            else nn.Parameter(torch.full((d_model,), layer_scale)),
        }
        if isinstance(part, Beside):
            return SideBlock(part.mixer, side=part.side, **options)
        return Block(part, **options)

    layers = _layers(d_model, n_layers, mixer, mixer_args or {})
    rates = [drop_path_rate * i / max(1, n_layers - 1) for i in range(n_layers)]
    parts = ((part, rate) for layer, rate in zip(layers, rates, strict=True) for part in layer)
    return Stack(
        (block(part, rate, index == 0) for index, (part, rate) in enumerate(parts)),
        make_norm(d_model, **norm_args),
    )


def _layers(
    d_model: int, n_layers: int, mixer: str, mixer_args: dict[str, Any]
) -> Iterable[list[Any]]:
    """The modules of each layer; a plain stack's are made when they are asked for."""
    if mixer in PATTERNS:
        return call(PATTERNS[mixer], d_model, n_layers, **mixer_args)
    if mixer not in MIXERS:
        names = [*MIXERS, *PATTERNS]
        raise KeyError(f"unknown mixer {mixer!r}; {nearest(mixer, names)}")
    make = MIXERS[mixer]
    return ([call(make, d_model, **mixer_args)] for _ in range(n_layers))
