"""Does this piece of a bacterial genome code for a protein? Windows of an annotated genome."""

from collections.abc import Sequence

from tristate.bio.data.genbank import Record, read_genbank
from tristate.bio.data.labelled import LabelledWindows
from tristate.bio.data.tsv import Labelled
from tristate.core.errors import UserError

# Every so many records one is tested on.
TEST_EVERY = 5


class CodingWindows(LabelledWindows):
    """Windows inside of coding sequences, and as many between all genes.

    Windows lie side by side; those of a CDS are on the strand of the file, so that half of all
    genes are read backwards. Between genes means at no place that any feature covers. Of the coding
    windows, of which a bacterium has many more, as many are kept as lie between genes, evenly
    spread. Every fifth record (contig) is tested on, those to validate on are records of their own.

    Args:
        path: an annotated genome as GenBank keeps it, plain or compressed, of some contigs.
        length: of a window, in bases.
        val_share: share of the training windows that is set aside to validate on.
        misread: share of the training windows' bases that are replaced at random, anew each epoch.
        batch_size: windows of a batch.
        workers: processes that prepare batches; none are needed.
        seed: root of all that is random; None takes the run's global seed.
        predict_fasta: genome to predict in; None for the test windows.
        predict_bed: intervals of it.

    Raises:
        UserError: the file is missing or damaged, or has too few records, genes or places between
            them for such windows.
        ValueError: as :class:`LabelledWindows`.
    """

    def __init__(
        self,
        path: str,
        length: int = 200,
        val_share: float = 0.1,
        misread: float = 0.0,
        batch_size: int = 64,
        workers: int = 0,
        seed: int | None = None,
        predict_fasta: str | None = None,
        predict_bed: str | None = None,
    ) -> None:
        if length < 1:
            raise ValueError(f"length must be at least 1, got {length}")
        self.length = length
        super().__init__(
            path,
            path,
            val_share=val_share,
            both_strands=True,
            misread=misread,
            batch_size=batch_size,
            workers=workers,
            seed=seed,
            predict_fasta=predict_fasta,
            predict_bed=predict_bed,
        )

    def read(self, part: str) -> list[Labelled]:
        """The windows of the records of ``part``, ``"train"`` or ``"test"``."""
        records = [
            record
            for number, record in enumerate(read_genbank(self.train), 1)
            if (number % TEST_EVERY == 0) == (part == "test")
        ]
        coding = [row for record in records for row in coding_windows(record, self.length)]
        between = [row for record in records for row in intergenic_windows(record, self.length)]
        count = min(len(coding), len(between))
        if not count:
            raise UserError(
                f"{self.train} has {len(coding)} coding windows of {self.length} bases and "
                f"{len(between)} between genes in {len(records)} records to {part} on: "
                "a smaller --data.length may fit"
            )
        return [*spread(coding, count), *spread(between, count)]


def coding_windows(record: Record, length: int) -> list[Labelled]:
    """Windows side by side in every piece of a CDS."""
    pieces = [piece for f in record.features if f.kind == "CDS" for piece in f.pieces]
    return _windows(record, pieces, length, "coding")


def intergenic_windows(record: Record, length: int) -> list[Labelled]:
    """Windows side by side where no feature is but the one that is the whole record."""
    covered = [piece for f in record.features if f.kind != "source" for piece in f.pieces]
    gaps, done = [], 0
    for start, end in [*sorted(covered), (len(record.sequence), len(record.sequence))]:
        if done < start:
            gaps.append((done, start))
        done = max(done, end)
    return _windows(record, gaps, length, "intergenic")


def spread(rows: Sequence[Labelled], count: int) -> list[Labelled]:
    """``count`` of ``rows``, evenly spread."""
    return [rows[i * len(rows) // count] for i in range(count)]


def _windows(
    record: Record, pieces: Sequence[tuple[int, int]], length: int, label: str
) -> list[Labelled]:
    return [
        Labelled(record.sequence[at : at + length], label, record.name)
        for start, end in pieces
        for at in range(start, end - length + 1, length)
    ]
