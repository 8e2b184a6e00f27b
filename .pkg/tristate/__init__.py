"""State-space models for vision, audio and genomics, on one core."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from tristate.core.zoo import create_model as create_model
    from tristate.core.zoo import list_models as list_models

__all__ = ["__version__", "create_model", "list_models"]


def __getattr__(name: str) -> Any:
    # timm and the backbones take seconds to import: they are loaded when first asked for.
    if name in ("create_model", "list_models"):
        from tristate.core import zoo

        return getattr(zoo, name)
    raise AttributeError(f"module 'tristate' has no attribute {name!r}")
