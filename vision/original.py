"""Original vision models as ours: see :mod:`tristate.core.original`."""

from collections.abc import Mapping
from typing import Any

from tristate.core.original import Original, build
from tristate.kernels.registry import Registry

ORIGINALS = Registry(
    "original vision model",
    {
        "vim.Mamba": "tristate.vision.originals.vim:mixer",
        "vim.VisionMamba": "tristate.vision.originals.vim:backbone",
    },
)


def from_original(entry: str, config: Mapping[str, Any]) -> Original:
    """Our module for the original ``entry`` built with ``config``, and the map of its weights."""
    return build(ORIGINALS, entry, config)
