"""Calls with arguments from recipes, where a misspelt name is told with the nearest ones."""

import inspect
import re
from collections.abc import Callable
from types import TracebackType
from typing import Any

from tristate.kernels.registry import nearest


def call(make: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """``make(*args, **kwargs)``, for a class or a function.

    Raises:
        ValueError: one of ``kwargs`` is known neither to ``make`` nor to what it hands it on to.
    """
    try:
        return make(*args, **kwargs)
    except TypeError as error:
        refused = re.search(r"(\w+)(?:\.__init__)?\(\) got an unexpected.*'(\w+)'", str(error))
        if refused is None or refused[2] not in kwargs:
            raise
        known = _names(make) | _names(_named(refused[1], error.__traceback__))
        raise ValueError(
            f"{make.__name__} has no argument {refused[2]!r}; {nearest(refused[2], known)}"
        ) from error


def _named(name: str, traceback: TracebackType | None) -> Any:
    """What is called ``name`` where the error arose; None where that can't be told."""
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback.tb_frame.f_globals.get(name) if traceback is not None else None


def _names(make: Any) -> set[str]:
    """The arguments of ``make`` that have names."""
    if make is None:
        return set()
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {p.name for p in inspect.signature(make).parameters.values() if p.kind in kinds}
