"""The inputs of several selective scans whose outputs are summed, shared ones given once."""

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from torch import Tensor

Tensors = Sequence[Tensor]


class Branches(NamedTuple):
    """Inputs of ``K`` scans, each field a list of tensors whose first axis numbers the scans.

    The first axes of a list add up to ``K``, or to 1 where the scans share the input; a list is
    empty where an optional input is absent. The gate, on the sum of all outputs, is always shared.
    """

    u: Tensors  # (., B, D, L)
    delta: Tensors  # (., B, D, L)
    A: Tensors  # (., D, N)
    B: Tensors  # (., B, N, L), (., B, G, N, L), or (., D, N) constant in time
    C: Tensors  # like B
    D: Tensors  # (., D)
    delta_bias: Tensors  # (., D)
    z: Tensors  # (1, B, D, L)

    @property
    def counts(self) -> list[int]:
        """How many tensors each field has."""
        return [len(field) for field in self]

    @property
    def flat(self) -> list[Tensor]:
        """All tensors in one list."""
        return [tensor for field in self for tensor in field]

    @classmethod
    def unflatten(cls, flat: Tensors, counts: Sequence[int]) -> "Branches":
        """What :attr:`flat` and :attr:`counts` were taken from."""
        ends = [0, *accumulate(counts)]
        return cls(*(flat[i:j] for i, j in zip(ends, ends[1:], strict=False)))

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


def is_shared(field: Tensors) -> bool:
    """Whether there is one tensor for all scans."""
    return len(field) == 1 and field[0].shape[0] == 1


def pick(field: Tensors, k: int) -> Tensor | None:
    """What scan ``k`` takes of a field."""
    if not field:
        return None
    if is_shared(field):
        return field[0][0]
    for tensor in field:
        if k < tensor.shape[0]:
            return tensor[k]
        k -= tensor.shape[0]
    raise AssertionError("as many as there are scans, or one")
