"""Weights that a run begins with: from a file, a hub or timm's table, as far as they fit."""

import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import timm
import torch
from timm.models import adapt_input_conv, load_state_dict_from_hf
from torch import Tensor, nn

from tristate.core.checkpoint import read_weights, some
from tristate.core.errors import UserError
from tristate.kernels.registry import nearest

LEAST = 0.5  # share of the model's numbers that must come from the file


class Loaded(NamedTuple):
    """What :func:`load_pretrained` did, as names of the model's or the file's tensors."""

    loaded: list[str]
    new: list[str]  # in the model, not in the file or of another shape there
    left: list[str]  # in the file, not in the model or of another shape there

    def __str__(self) -> str:
        new = f"; new: {some(self.new)}" if self.new else ""
        left = f"; left over: {some(self.left)}" if self.left else ""
        return f"{len(self.loaded)} tensors loaded{new}{left}"


def load_pretrained(model: nn.Module, source: str) -> Loaded:
    """Fill ``model`` from ``source``; what has another shape, such as the head, stays new.

    Weights pass through the ``checkpoint_filter_fn`` of the model's family, which renames
    them and resamples positions, and the first convolution is adapted to the channels.

    Args:
        model: a backbone.
        source: a file (``.safetensors``, ``.pth``, a Lightning ``.ckpt``), ``hf:OWNER/REPO``
            (``hf:OWNER/REPO/FILE`` for one file of it), or the name of a model in timm's table,
            with or without a tag of weights behind a dot.

    Returns:
        The names that were loaded, are new and were left over.

    Raises:
        UserError: the source can't be read, or less than half of the model would come from it.
    """
    state = _fetch(source)
    own = model.state_dict()
    # A checkpoint of a task holds the backbone beside other parts.
    inside = {k.removeprefix("backbone."): v for k, v in state.items() if k.startswith("backbone.")}
    state = _filtered(inside or state, model)
    state = _adapted(state, own, model)
    fits = {k: v for k, v in state.items() if k in own and v.shape == own[k].shape}
    numbers, total = (sum(own[k].numel() for k in names) for names in (fits, own))
    result = Loaded(
        [k for k in own if k in fits],
        [k for k in own if k not in fits],
        [k for k in state if k not in fits],
    )
    if numbers < LEAST * total:
        raise UserError(
            f"{source} fits {numbers / total:.0%} of this {type(model).__name__} "
            f"({result}): name weights of this architecture"
        )
    model.load_state_dict(fits, strict=False)
    return result


def _fetch(source: str) -> dict[str, Tensor]:
    if source.startswith("hf:"):
        owner, _, rest = source[3:].partition("/")
        repository, _, file = rest.partition("/")
        if not owner or not repository:
            raise UserError(f"{source!r} must be hf:OWNER/REPO or hf:OWNER/REPO/FILE")
        return _from_hub(f"{owner}/{repository}", file)
    if timm.is_model(source):
        known = timm.list_pretrained(f"{source.partition('.')[0]}.*")
        if not known:
            raise UserError(f"there are no released weights for {source}: name a file")
        if "." in source and source not in known:
            raise UserError(f"there are no weights {source}; {nearest(source, known)}")
        cfg: Any = timm.get_pretrained_cfg(source)
        if cfg.file:
            return read_weights(cfg.file)
        if cfg.hf_hub_id:
            return _from_hub(cfg.hf_hub_id, cfg.hf_hub_filename or "")
        return _from_url(cfg.url)
    return read_weights(source)


def _from_hub(repository: str, file: str) -> dict[str, Tensor]:
    try:
        state = (
            load_state_dict_from_hf(repository, file)
            if file
            else load_state_dict_from_hf(repository)
        )
    except Exception as error:  # The hub's client raises of many kinds, requests' among them.
        raise _unreachable(f"hf:{repository}", error) from error
    return _unwrapped(state)


def _from_url(url: str) -> dict[str, Tensor]:
    try:
        state = torch.hub.load_state_dict_from_url(
            url, map_location="cpu", progress=False, weights_only=True
        )
    except Exception as error:
        raise _unreachable(url, error) from error
    return _unwrapped(state)


def _unreachable(where: str, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return UserError(f"can't get weights from {where} ({reason}): download a file and name it")


def _unwrapped(content: Mapping[str, Any]) -> dict[str, Tensor]:
    state = content.get("model", content.get("state_dict", content))
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def _cfg(model: nn.Module) -> dict[str, Any]:
    cfg: Any = getattr(model, "pretrained_cfg", None) or {}
    return cfg if isinstance(cfg, dict) else cfg.to_dict()


def _filtered(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """``state`` through the filter that stands beside the model's entry point."""
    name = _cfg(model).get("architecture")
    module = sys.modules[timm.model_entrypoint(name).__module__] if name else None
    filter_fn = getattr(module, "checkpoint_filter_fn", None)
    return filter_fn(state, model) if filter_fn else state


def _adapted(
    state: dict[str, Tensor], own: Mapping[str, Tensor], model: nn.Module
) -> dict[str, Tensor]:
    """``state`` with the first convolutions summed or repeated for the model's channels."""
    first = _cfg(model).get("first_conv") or ()
    for name in (first,) if isinstance(first, str) else first:
        key = f"{name}.weight"
        if key in state and key in own and state[key].shape[1] == 3:
            state = {**state, key: adapt_input_conv(own[key].shape[1], state[key])}
    return state
