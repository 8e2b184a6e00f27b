"""Weights on disk: safetensors, or PyTorch's own files read without running what is in them."""

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tristate.core.errors import UserError

SHOWN = 3  # names of a long list that a sentence holds


def save_weights(path: str | Path, module: nn.Module) -> None:
    """Write the parameters and buffers of ``module`` as safetensors.

    Tensors that share memory are written once under each of their names. The file appears whole or
    not at all.

    Raises:
        UserError: a value is not finite, or the file can't be written.
    """
    path = Path(path)
    state = {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}
    if broken := not_finite(state):
        raise UserError(f"{path} is not written: {broken} is no longer finite; lower lr")
    # Shared memory is refused by safetensors: every name gets its own.
    seen: set[int] = set()
    for name, value in state.items():
        if value.data_ptr() in seen:
            state[name] = value.clone()
        seen.add(value.data_ptr())
    part = path.with_name(f"{path.name}.part")
    try:
        save_file(state, part)
        part.replace(path)
    except (OSError, safetensors.SafetensorError) as error:
        part.unlink(missing_ok=True)
        raise UserError(f"can't write {path}: {error}") from error


def load_weights(path: str | Path, module: nn.Module) -> None:
    """Put the weights in ``path`` into ``module``; names and shapes must be the same.

    For another number of classes, or a checkpoint that fits in part, use
    :func:`tristate.core.pretrained.load_pretrained`.

    Raises:
        UserError: as :func:`read_weights`, or the weights belong to another architecture.
    """
    state, own = read_weights(path), module.state_dict()
    problems = []
    if missing := sorted(own.keys() - state.keys()):
        problems.append(f"lacks {some(missing)}")
    if extra := sorted(state.keys() - own.keys()):
        problems.append(f"has {some(extra)}, which the model has not")
    shared = sorted(own.keys() & state.keys())
    if other := [name for name in shared if own[name].shape != state[name].shape]:
        shapes = [f"{n} {tuple(state[n].shape)} for {tuple(own[n].shape)}" for n in other]
        problems.append(f"has {some(shapes)}")
    if problems:
        raise UserError(
            f"{path} holds weights of another architecture than this {type(module).__name__}: it "
            f"{' and '.join(problems)}; build the model that they were saved from"
        )
    module.load_state_dict(state)


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors by name in a file of weights or a checkpoint.

    Args:
        path: ``.safetensors``; else a file of ``torch.save``: a state dict, or a dictionary that
            holds one as ``model`` or ``state_dict`` (Lightning). It is read with
            ``weights_only=True``, so that no code in it can run.

    Raises:
        UserError: the file is missing, cut short, would run code or holds no weights.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no file {path}: name a .safetensors, .pth or .ckpt file")
    content = _safetensors(path) if path.suffix == ".safetensors" else _torch_file(path)
    for key in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise UserError(f"{path} holds a {type(content).__name__} and no weights by name")
    state = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if not state:
        raise UserError(f"{path} holds no tensors, only {some([str(key) for key in content])}")
    return state


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"{path} is damaged or no safetensors file ({error}): fetch it again"
        ) from error


def _torch_file(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            # PyTorch wonders at a pickle that is not its own, then refuses it.
            warnings.filterwarnings("ignore", "Detected pickle protocol")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # A text ends up here, too: only a zip file or a pickle begins with these.
        if not path.read_bytes()[:2].startswith((b"PK", b"\x80")):
            raise UserError(_damaged(path)) from error
        raise UserError(
            f"{path} is refused: it holds Python objects that could run code, and only plain "
            "tensors are loaded; convert it to safetensors where you trust it"
        ) from error
    except (EOFError, RuntimeError, OSError, zipfile.BadZipFile, ValueError, KeyError) as error:
        raise UserError(_damaged(path)) from error


def _damaged(path: Path) -> str:
    size = path.stat().st_size
    return f"{path} ({size} bytes) is cut short or no file of weights: fetch or save it again"


def not_finite(state: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor with a NaN or an infinity, if there is one."""
    for name, value in state.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            return name
    return None


def some(names: list[str]) -> str:
    """The first few of ``names``, and how many more there are."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
