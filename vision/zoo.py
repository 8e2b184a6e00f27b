"""Vision models by name: this package's own and all of timm's."""

import inspect
import re
import sys
from typing import Any

import timm
from torch import nn

from tristate.kernels.registry import nearest

PREFIXES = ("vim_",)
"""What the names of this package's own models begin with."""


def list_models() -> list[str]:
    """Names of this package's own models."""
    return [name for name in timm.list_models() if name.startswith(PREFIXES)]


def knows(name: str) -> bool:
    """Whether timm can build ``name``, with or without a tag of weights behind a dot."""
    return timm.is_model(name)


def create_model(name: str, **kwargs: Any) -> nn.Module:
    """Build a model through timm.

    Raises:
        ValueError: the model's constructor does not take one of the arguments.
    """
    try:
        return timm.create_model(name, **kwargs)
    except TypeError as error:
        refused = re.match(r"(\w+)\.__init__\(\).*unexpected keyword argument '(\w+)'", str(error))
        if not refused:
            raise
        module = sys.modules[timm.model_entrypoint(name).__module__]
        known = inspect.signature(getattr(module, refused[1])).parameters
        wrong = f"{name} has no argument {refused[2]!r}"
        raise ValueError(f"{wrong}; {nearest(refused[2], known)}") from error
