"""Long Range Arena's text task: is a film review, read byte by byte, kind or not?"""

from pathlib import Path
from typing import Any

from tristate.core.errors import UserError
from tristate.core.tasks.texts import BYTES, Texts, byte_ids
from tristate.core.training.data import PartedData

WHERE = "unpack aclImdb_v1.tar.gz from https://ai.stanford.edu/~amaas/data/sentiment"
CLASSES = ["neg", "pos"]


class Reviews(PartedData):
    """IMDB's 25,000 + 25,000 reviews as bytes: byte ``b`` is id ``b + 1``, 0 is padding.

    Args:
        root: the folder ``aclImdb`` with ``train/pos/*.txt``, ``train/neg``, ``test/pos`` and
            ``test/neg``.
        max_length: bytes of a review that are read.
        held_out: one training review in so many is set aside to validate on; the source validates
            on the test part.
        batch_size: reviews of a batch.
        workers: as :class:`tristate.core.training.data.DataModule`.
        seed: likewise.

    Raises:
        UserError: a folder is missing or empty.

    Source: Maas et al. 2011, https://aclanthology.org/P11-1015; as bytes Tay et al. 2020,
    https://arxiv.org/abs/2011.04006, section 2.2.
    """

    def __init__(
        self,
        root: str,
        max_length: int = 4096,
        held_out: int = 20,
        batch_size: int = 32,
        workers: int = 0,
        seed: int | None = None,
    ) -> None:
        super().__init__(batch_size, workers, seed)
        if max_length < 1 or held_out < 2:
            raise ValueError(
                "max_length must be at least 1 and held_out at least 2, "
                f"got {max_length} and {held_out}"
            )
        self.root, self.max_length, self.held_out = Path(root), max_length, held_out

    @property
    def facts(self) -> dict[str, Any]:
        """Class names, the number of ids, and what stands for each."""
        return {"class_names": list(CLASSES), "vocab_size": len(BYTES), "tokens": BYTES}

    def setup(self, stage: str) -> None:
        """Read the files."""
        if self.parts:
            return
        train, test = self._read("train"), self._read("test")
        kept = {"train": [], "val": [], "test": test}
        for index, one in enumerate(train):
            kept["val" if index % self.held_out == 0 else "train"].append(one)
        self.parts = {
            part: Texts(*zip(*items, strict=True)) for part, items in kept.items() if items
        }

    def _read(self, part: str) -> list[tuple[Any, int]]:
        items = []
        for label, name in enumerate(CLASSES):
            folder = self.root / part / name
            paths = sorted(folder.glob("*.txt"))
            if not paths:
                raise UserError(f"there is no review (*.txt) in {folder}: {WHERE}")
            items += [(byte_ids(p.read_bytes()[: self.max_length]), label) for p in paths]
        return items
