"""The inputs of several selective scans whose outputs are summed, shared ones given once."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

Field = Tensor | Sequence[Tensor]
"""An input of ``K`` scans: one tensor whose first axis numbers them, or a list with a tensor for
each or with the one that they share; an empty list where an optional input is absent."""

_STACKED = -1


class Branches(NamedTuple):
    """Inputs of several scans; the gate, on the sum of their outputs, is shared."""

    u: Field  # (B, D, L) for each
    delta: Field  # (B, D, L)
    A: Field  # (D, N)
    B: Field  # (B, N, L), (B, G, N, L), or (D, N) constant in time
    C: Field  # like B
    D: Field  # (D,)
    delta_bias: Field  # (D,)
    z: Sequence[Tensor]  # one (B, D, L), or none

    @property
    def counts(self) -> list[int]:
        """How many tensors each field lists; -1 where one numbers the scans."""
        return [_STACKED if isinstance(field, Tensor) else len(field) for field in self]

    @property
    def flat(self) -> list[Tensor]:
        """All tensors in one list."""
        return [x for field in self for x in tensors_of(field)]

    @classmethod
    def unflatten(cls, flat: Sequence[Tensor], counts: Sequence[int]) -> "Branches":
        """What :attr:`flat` and :attr:`counts` were taken from."""
        rest = iter(flat)
        fields = [
            next(rest) if count == _STACKED else [next(rest) for _ in range(count)]
            for count in counts
        ]
        return cls(*fields)  # pyright: ignore[reportArgumentType]

    def branch(self, k: int) -> "Branch":
        """The inputs of scan ``k``."""
        return Branch(*(pick(field, k) for field in self))  # pyright: ignore[reportArgumentType]


class Branch(NamedTuple):
    """The inputs of one scan."""

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    delta_bias: Tensor | None
    z: Tensor | None


def tensors_of(field: Field) -> Sequence[Tensor]:
    """The tensors of a field."""
    return [field] if isinstance(field, Tensor) else field


def each(function: Callable[[Tensor], Tensor], field: Field) -> Field:
    """A field of what the function makes of each tensor."""
    return function(field) if isinstance(field, Tensor) else [function(x) for x in field]


def is_shared(field: Field) -> bool:
    """Whether there is one tensor for all scans."""
    return not isinstance(field, Tensor) and len(field) == 1


def pick(field: Field, k: int) -> Tensor | None:
    """What scan ``k`` takes of a field."""
    if isinstance(field, Tensor):
        return field[k]
    if not field:
        return None
    return field[0] if len(field) == 1 else field[k]


def gather(field: Field, found: Sequence[Tensor]) -> Field:
    """One tensor a scan, as the field has them; summed where the scans share it."""
    if isinstance(field, Tensor):
        gathered = torch.empty_like(field)
        for place, one in zip(gathered, found, strict=True):
            place.copy_(one)
        return gathered
    return [sum(found[1:], found[0])] if is_shared(field) else found[: len(field)]
