"""Ids have no slopes, what they are embedded as has: the tables of a model, faded."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

SHUFFLES = 16


class Lookups:
    """A model of ids ``(B, L)`` in which each position's vectors may be there to a degree.

    Vectors come of the modules without parts of their own that take whole numbers, one a position,
    and give floats: embeddings, tables of k-mers, weights by letter and place. The reference of
    each is the mean of what it gives for shuffles of the same ids: letters of this composition, in
    no order.

    Args:
        model: maps ids to anything.
        ids: ``(L,)``.
        fixed: which positions keep their ids in shuffles, ``(L,)`` bool; padding, say.
    """

    def __init__(
        self, model: nn.Module, run: Callable[[Tensor], Tensor], ids: Tensor, fixed: Tensor
    ) -> None:
        self.model, self.run, self.ids = model, run, ids
        drawn = torch.Generator().manual_seed(0)
        rows = ids.repeat(SHUFFLES, 1)
        free = (~fixed).nonzero()[:, 0]
        for row in rows:
            row[free] = row[free[torch.randperm(len(free), generator=drawn)]]
        self.references: list[Tensor] = []

        def keep(out: Tensor) -> Tensor:
            self.references.append(out.mean(0))
            return out

        with torch.no_grad(), self._each(keep):
            run(rows)

    def __call__(self, masks: Tensor) -> Tensor:
        """What ``run`` gives where vectors are theirs at 1 and their reference at 0.

        Args:
            masks: ``(S, L)``.
        """
        references = iter(self.references)

        def fade(out: Tensor) -> Tensor:
            return torch.lerp(next(references).to(out.dtype), out, masks[..., None].to(out.dtype))

        with self._each(fade):
            return self.run(self.ids.expand(len(masks), -1))

    @contextmanager
    def _each(self, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Put ``change`` behind every lookup inside the block."""
        length = len(self.ids)

        def hook(_module: nn.Module, inputs: tuple[Any, ...], out: Any) -> Any:
            given = inputs[0] if inputs else None
            if not isinstance(given, Tensor) or not isinstance(out, Tensor):
                return out
            looks_up = not given.is_floating_point() and out.is_floating_point()
            by_place = given.shape[1:] == (length,) and out.shape[:2] == given.shape
            return change(out) if looks_up and by_place and out.dim() == 3 else out

        leaves = [m for m in self.model.modules() if not list(m.children())]
        handles = [module.register_forward_hook(hook) for module in leaves]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
