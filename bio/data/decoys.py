"""Windows around splice sites whose decoys are other ones in each epoch."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tristate.bio.data.genes import FLANK, Gene
from tristate.bio.data.tokenize import CharacterTokenizer


class FreshDecoys:
    """Labelled windows as a :class:`~tristate.core.training.loader.Source`; decoys change.

    Each decoy is replaced in each batch by one drawn from all decoys of the same gene, by the rule
    that the table's were drawn by; the true sites stay.

    Args:
        ids: ``(M, 80)`` int64.
        labels: ``(M,)`` int64.
        genes: the gene of each window; no other is drawn from.
        decoy: the label of decoys.
        tokenizer: made the ids.
    """

    def __init__(
        self,
        ids: Tensor,
        labels: Tensor,
        genes: Sequence[Gene],
        *,
        decoy: int,
        tokenizer: CharacterTokenizer,
    ) -> None:
        self.ids, self.labels, self.decoy = ids, labels, decoy
        # The genes one after another, and the decoys in them, so that a batch is one look-up.
        kinds = list({gene.name: gene for gene in genes}.values())
        number = {gene.name: index for index, gene in enumerate(kinds)}
        starts = np.cumsum([0, *(len(gene.sequence) for gene in kinds)])
        decoys = [gene.decoys() + start for gene, start in zip(kinds, starts[:-1], strict=True)]
        letters = "".join(gene.sequence for gene in kinds).encode("ascii")
        self.letters = tokenizer.encode_letters(np.frombuffer(letters, np.uint8)).to(torch.uint8)
        self.decoys = torch.from_numpy(np.concatenate(decoys))
        self.counts = torch.tensor([len(places) for places in decoys])
        self.firsts = self.counts.cumsum(0) - self.counts
        self.gene = torch.tensor([number[gene.name] for gene in genes])

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Ids ``(B, 80)`` int64 and labels ``(B,)``."""
        ids, labels = self.ids[indices], self.labels[indices]
        rows = (labels == self.decoy).nonzero()[:, 0]
        gene = self.gene[indices[rows]]
        share = torch.rand(len(rows), generator=generator, dtype=torch.float64)
        places = self.decoys[self.firsts[gene] + (share * self.counts[gene]).long()]
        around = places[:, None] + torch.arange(-FLANK, FLANK)
        return ids.index_copy(0, rows, self.letters[around].long()), labels
