"""Tells transformers' models that are imported already that the packages came or went.

transformers looks for an implementation once, where a model's module defines a function with
``@use_kernel_func_from_hub_with_fallback(name, package)``, and keeps it in the function's closure.
A model that is imported while the packages are there needs nothing more. For one that was imported
before, the decorator is applied again and what it finds now is written into the same closure, so
that every reference to the function sees it.
"""

import sys
from collections.abc import Iterator
from types import CellType, FunctionType
from typing import Any

from tristate.core.compat.names import PACKAGES

# What the decorator found, as its closure names it.
_FOUND = ("implementation", "is_new_implementation", "applicable_params")


def transformers() -> None:
    """Look for the packages' functions again, in all models that are imported."""
    hub = sys.modules.get("transformers.integrations.hub_kernels")
    decorate = getattr(hub, "use_kernel_func_from_hub_with_fallback", None)
    if decorate is None:
        return
    for cells in list(_decorated()):
        name, package = cells["func_name"].cell_contents, cells["package"].cell_contents
        if package in PACKAGES:
            fresh = _cells(decorate(name, package)(cells["torch_function"].cell_contents))
            for part in _FOUND:
                cells[part].cell_contents = fresh[part].cell_contents


def _decorated() -> Iterator[dict[str, CellType]]:
    """The closures of all decorated functions in the models' modules."""
    for name, module in list(sys.modules.items()):
        if name.startswith("transformers.models.") and module is not None:
            for value in vars(module).values():
                cells = _cells(value)
                if cells.keys() >= {"func_name", "package", "torch_function", *_FOUND}:
                    yield cells


def _cells(value: Any) -> dict[str, CellType]:
    """A function's closure by the names in its code; empty for what has none."""
    if not isinstance(value, FunctionType):
        return {}
    return dict(zip(value.__code__.co_freevars, value.__closure__ or (), strict=True))
