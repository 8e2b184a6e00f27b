"""The splice sites that come with the package, as a data module."""

from collections.abc import Sequence
from pathlib import Path

from tristate.bio.data.bed import Interval
from tristate.bio.data.decoys import FreshDecoys
from tristate.bio.data.genes import FLANK, read_genes
from tristate.bio.data.labelled import LabelledIds, LabelledWindows
from tristate.bio.data.tsv import Labelled
from tristate.core.errors import UserError
from tristate.core.training.loader import Source

EMBEDDED = Path(__file__).parent / "splice"


class SpliceSites(LabelledWindows):
    """The embedded windows around splice sites of Drosophila: donor, acceptor or decoy.

    8,528 windows of 486 genes to train on, 1,814 of 100 other genes to test on; those to validate
    on are of genes of their own. A window has 80 bases on the gene's strand, and the junction in
    the middle.

    Args:
        fresh_decoys: draw the training decoys anew for each epoch, from the training genes.
        val_share: share of the training windows that is set aside to validate on, gene by gene.
        misread: share of the training windows' bases that are replaced at random, anew each epoch.
        batch_size: windows of a batch.
        workers: processes that prepare batches; none are needed.
        seed: root of all that is random; None takes the run's global seed.
        predict_fasta: genome to predict in; None for the test windows.
        predict_bed: intervals of it, of 80 bases, each on its strand.

    Raises:
        UserError: an interval to predict for has another length.
        ValueError: as :class:`LabelledWindows`.
    """

    def __init__(
        self,
        fresh_decoys: bool = True,
        val_share: float = 0.1,
        misread: float = 0.0,
        batch_size: int = 64,
        workers: int = 0,
        seed: int | None = None,
        predict_fasta: str | None = None,
        predict_bed: str | None = None,
    ) -> None:
        super().__init__(
            str(EMBEDDED / "train.tsv.gz"),
            str(EMBEDDED / "test.tsv.gz"),
            val_share=val_share,
            group="gene",
            misread=misread,
            batch_size=batch_size,
            workers=workers,
            seed=seed,
            predict_fasta=predict_fasta,
            predict_bed=predict_bed,
        )
        self.fresh_decoys = fresh_decoys

    def training_source(self, rows: Sequence[Labelled]) -> Source:
        """The windows to train on, decoys drawn afresh where that is wanted."""
        ids, labels = self.encode(rows, self.train)
        if not self.fresh_decoys:
            return LabelledIds(ids, labels, self.tokenizer)
        genes = {gene.name: gene for gene in read_genes(EMBEDDED / "train_genes.fa.gz")}
        return FreshDecoys(
            ids,
            labels,
            [genes[row.group] for row in rows],
            decoy=self.class_names.index("decoy"),
            tokenizer=self.tokenizer,
        )

    def check_intervals(self, intervals: Sequence[Interval]) -> None:
        """Refuse intervals that have not 80 bases."""
        for row in intervals:
            if row.end - row.start != 2 * FLANK:
                raise UserError(
                    f"{self.predict_bed}:{row.line} has {row.end - row.start} bases: wanted "
                    f"{2 * FLANK}, with the junction in the middle"
                )
