"""Reads what a model's repository on the Hugging Face hub holds, through transformers' cache."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def load_config_hf(model_name: str) -> dict[str, Any]:
    """The ``config.json`` of a repository or local folder.

    Raises:
        OSError: there is none.
    """
    return json.loads(_file(model_name, "config.json").read_text())


def load_state_dict_hf(
    model_name: str, device: Any = None, dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    """The ``pytorch_model.bin`` of a repository or local folder, on ``device`` in ``dtype``.

    Raises:
        OSError: there is none.
    """
    state = torch.load(_file(model_name, "pytorch_model.bin"), map_location="cpu", mmap=True)
    return {name: tensor.to(device=device, dtype=dtype) for name, tensor in state.items()}


def _file(model_name: str, name: str) -> Path:
    from transformers.utils import cached_file

    found = cached_file(model_name, name)
    assert found is not None  # it raises where it finds nothing
    return Path(found)
