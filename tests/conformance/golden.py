"""One file of golden vectors: what was built or called, on which tensors, how near to come."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor


@dataclass(frozen=True)
class Golden:
    """The tensors and metadata of one ``.safetensors`` file.

    Attributes:
        path: the file.
        entry: ``family.Name`` of what the original built or called.
        kind: ``"module"``, ``"op"``, ``"table"`` or ``"pipeline"``.
        config: the original's constructor arguments.
        call: what else determined the call.
        cotangents: name of the input -> name of the output that it weighs.
        tolerance: dtype name -> ``{"output": ..., "grad": ...}``, relative.
        tensors: every tensor by its full name, complex where the metadata says so.
    """

    path: Path
    entry: str
    kind: str
    config: dict[str, Any]
    call: dict[str, Any]
    cotangents: dict[str, str]
    tolerance: dict[str, dict[str, float]]
    tensors: dict[str, Tensor]

    def group(self, prefix: str) -> dict[str, Tensor]:
        """The tensors called ``<prefix>.<name>``, by ``name``."""
        start = f"{prefix}."
        return {k[len(start) :]: v for k, v in self.tensors.items() if k.startswith(start)}

    def inputs(self) -> dict[str, Tensor]:
        """The arguments of the call: what is no cotangent."""
        return {k: v for k, v in self.group("input").items() if k not in self.cotangents}


def load(path: Path) -> Golden:
    """Read a golden file.

    Raises:
        ValueError: its metadata lacks what the format asks for.
    """
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    missing = {"entry", "kind", "tolerance"} - metadata.keys()
    if missing:
        raise ValueError(f"no {', '.join(sorted(missing))} in the metadata of {path.name}")

    def parsed(key: str, default: Any) -> Any:
        return json.loads(metadata[key]) if key in metadata else default

    for name in parsed("complex", []):
        # A tensor read from safetensors may be misaligned for complex numbers: clone first.
        tensors[name] = torch.view_as_complex(tensors[name].clone())
    return Golden(
        path=path,
        entry=metadata["entry"],
        kind=metadata["kind"],
        config=parsed("config", {}),
        call=parsed("call", {}),
        cotangents=parsed("cotangents", {}),
        tolerance=parsed("tolerance", {}),
        tensors=tensors,
    )


def cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A copy of ``tensor`` in ``dtype``, or its complex; integers and booleans stay as they are."""
    if tensor.is_complex():
        return tensor.to(dtype.to_complex(), copy=True)
    return tensor.to(dtype, copy=True) if tensor.is_floating_point() else tensor.clone()
