"""Letters that are read wrongly now and then, so that a model leans on no single one."""

from collections.abc import Sequence

import torch
from torch import Tensor

from tristate.core.training.loader import Source


class Misread:
    """A :class:`~tristate.core.training.loader.Source` of ids, some replaced anew each time.

    Args:
        source: hands out ``(ids, labels)``.
        share: of the bases that are replaced by A, C, G or T, each as likely.
        base_ids: the ids of these; no other letter is touched.
    """

    def __init__(self, source: Source, share: float, base_ids: Sequence[int]) -> None:
        self.source, self.share = source, share
        self.bases = torch.tensor(base_ids)

    def __len__(self) -> int:
        return len(self.source)

    def batch(self, indices: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Ids ``(B, L)`` and labels ``(B,)``, int64."""
        ids, labels = self.source.batch(indices, generator)
        wrong = torch.rand(ids.shape, generator=generator) < self.share
        others = self.bases[torch.randint(len(self.bases), ids.shape, generator=generator)]
        return ids.where(~(wrong & torch.isin(ids, self.bases)), others), labels
