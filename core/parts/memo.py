"""Remembers what was made of parameters until they change: filters in step-by-step use."""

from collections.abc import Callable, Iterable
from operator import is_
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class Memo(Generic[T]):
    """Keeps one value made of some parameters, and makes it anew where any of them has changed.

    An implicit filter is a network evaluated at every lag: a step that did so would cost more than
    the convolution. Where gradients are wanted, or a program is traced, nothing is remembered.
    Copies of it start empty.
    """

    def __init__(self) -> None:
        self._parameters: list[Tensor] = []
        self._key: list[Any] = []
        self._value: T | None = None

    def __call__(self, parameters: Iterable[Tensor], argument: Any, make: Callable[[], T]) -> T:
        """What ``make`` returned when it was last called with these parameters and ``argument``.

        Args:
            parameters: all that ``make`` reads.
            argument: what else the value depends on, to be compared.
            make: makes the value.
        """
        parameters = list(parameters)
        if (
            torch.is_grad_enabled()
            or torch.compiler.is_compiling()
            or any(p.is_inference() for p in parameters)
        ):
            return make()
        # A parameter that was written in place has a new version, one whose data were replaced a
        # new address. They are held, so that no other can take their place in memory.
        key = [argument, *((p.data_ptr(), p._version, p.dtype) for p in parameters)]
        same = len(parameters) == len(self._parameters) and all(
            map(is_, parameters, self._parameters)
        )
        if self._value is None or not same or key != self._key:
            self._parameters, self._key, self._value = parameters, key, make()
        return self._value

    def __reduce__(self) -> tuple[type["Memo[T]"], tuple[()]]:
        return Memo, ()
