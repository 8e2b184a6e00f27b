"""The optimiser's groups of parameters, and the schedule of its learning rate."""

import math
from typing import Any

from timm.models import group_parameters
from torch import nn


def parameter_groups(
    module: nn.Module,
    weight_decay: float,
    *,
    lr: float | None = None,
    ssm_lr: float | None = None,
    layer_decay: float | None = None,
) -> list[dict[str, Any]]:
    """Groups for an optimiser, with their own ``weight_decay`` and ``lr_scale``.

    No decay falls on parameters with fewer than two axes (biases, norms, ``D``), on those that
    carry ``_no_weight_decay = True`` (``A_log``), and on those that a submodule names in its
    ``no_weight_decay()`` (positions, class tokens).

    Args:
        module: whose parameters; frozen ones are left out.
        weight_decay: decay of all others.
        lr: the learning rate that ``lr_scale`` is a share of. Parameters that carry ``_max_lr``
            (step sizes and eigenvalues of S4's family) learn no faster than that. None: no limit.
        ssm_lr: the limit in place of theirs; None leaves it.
        layer_decay: the learning rate falls by this factor from each layer to the one below it.
            Submodules with timm's ``group_matcher`` tell their layers; what stands outside of
            them keeps the full rate. None: one rate for all.

    Raises:
        ValueError: ``layer_decay`` is set and no submodule has a ``group_matcher``.

    Source: layer-wise decay after Bao et al. 2021, https://arxiv.org/abs/2106.08254.
    """
    spared = _spared(module)
    scales = _layer_scales(module, layer_decay) if layer_decay is not None else {}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        plain = (
            name in spared or parameter.ndim < 2 or getattr(parameter, "_no_weight_decay", False)
        )
        scale = scales.get(name, 1.0)
        most = getattr(parameter, "_max_lr", None)
        if lr and most is not None:
            scale = min(scale, (most if ssm_lr is None else ssm_lr) / lr)
        key = (0.0 if plain else weight_decay, scale)
        groups.setdefault(key, []).append(parameter)
    return [
        {"params": parameters, "weight_decay": decay, "lr_scale": scale}
        for (decay, scale), parameters in groups.items()
    ]


def _spared(module: nn.Module) -> set[str]:
    """Full names of the parameters that submodules name in ``no_weight_decay()``."""
    spared: set[str] = set()
    for prefix, child in module.named_modules():
        own: Any = getattr(child, "no_weight_decay", None)
        if callable(own):
            dot = f"{prefix}." if prefix else ""
            spared.update(dot + name for name in own())  # pyright: ignore[reportGeneralTypeIssues]
    return spared


def _layer_scales(module: nn.Module, decay: float) -> dict[str, float]:
    """Factor of the learning rate for each parameter of the submodules that know their layers."""
    scales: dict[str, float] = {}
    for prefix, child in module.named_modules():
        matcher: Any = getattr(child, "group_matcher", None)
        if not callable(matcher):
            continue
        layers: dict[str, Any] = group_parameters(child, matcher(coarse=False), reverse=True)
        top = max(layers.values())
        dot = f"{prefix}." if prefix else ""
        scales.update({dot + name: decay ** (top - layer) for name, layer in layers.items()})
    if not scales:
        raise ValueError(
            "layer_decay needs a backbone with a group_matcher that tells its layers; "
            f"{type(module).__name__} has none: leave layer_decay out"
        )
    return scales


def warmup_cosine(progress: float, warmup: float, floor: float) -> float:
    """Factor of the learning rate at ``progress``, 0 to 1: a linear rise, then half a cosine.

    Args:
        progress: share of the run that lies behind.
        warmup: share of the run in which the factor rises from 0 to 1.
        floor: the factor at the end.
    """
    if progress < warmup:
        return progress / warmup
    rest = min((progress - warmup) / (1 - warmup), 1.0) if warmup < 1 else 1.0
    return floor + (1 - floor) * (1 + math.cos(math.pi * rest)) / 2
