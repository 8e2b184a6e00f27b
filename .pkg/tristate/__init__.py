"""State-space models for vision, audio and genomics, on one core."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from tristate import compat as compat
    from tristate.core.zoo import create_model as create_model
    from tristate.core.zoo import list_models as list_models

__all__ = ["__version__", "compat", "create_model", "list_models"]


def __getattr__(name: str) -> Any:
    # timm and the backbones take seconds to import: they are loaded when first asked for.
    if name in ("create_model", "list_models"):
        from tristate.core import zoo

        return getattr(zoo, name)
    if name == "compat":
        from importlib import import_module

        return import_module("tristate.compat")
    raise AttributeError(f"module 'tristate' has no attribute {name!r}")
