"""Long Range Arena's ListOps as a classification: from its release's files, or drawn."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tristate.core.errors import UserError
from tristate.core.tasks.drawn import TEST, VAL, Fixed, Fresh
from tristate.core.tasks.listops import TOKENS, ListOps
from tristate.core.tasks.texts import Texts
from tristate.core.training.data import PartedData
from tristate.core.training.loader import Source

WHERE = (
    "unpack lra_release.gz from https://github.com/google-research/long-range-arena and name the "
    "folder listops-1000, or leave root out to draw expressions here"
)
_IDS = {token: index for index, token in enumerate(TOKENS) if token}
_BRACKETS = ("(", ")")


class Expressions(PartedData):
    """Expressions of 501 to 1,999 tokens and their values; ids are those of ListOps' ``TOKENS``.

    Args:
        root: folder of the release's ``basic_train.tsv``, ``basic_val.tsv`` and ``basic_test.tsv``;
            None to draw them: new ones in every epoch to train on, the same ones to validate and
            to test.
        batch_size: expressions of a batch.
        n_train: expressions of an epoch, where they are drawn.
        n_val: to validate on, likewise.
        n_test: to test on, likewise.
        workers: processes that draw ahead.
        seed: as :class:`tristate.core.training.data.DataModule`.

    Raises:
        UserError: a file is missing or damaged.

    Source: Tay et al. 2020, https://arxiv.org/abs/2011.04006, section 2.2.1; see
    :class:`tristate.core.tasks.listops.ListOps`.
    """

    def __init__(
        self,
        root: str | None = None,
        batch_size: int = 32,
        n_train: int = 96_000,
        n_val: int = 2_000,
        n_test: int = 2_000,
        workers: int = 0,
        seed: int | None = None,
    ) -> None:
        super().__init__(batch_size, workers, seed)
        if min(n_train, n_val, n_test) < 1:
            raise ValueError("n_train, n_val and n_test must be positive")
        self.root = Path(root) if root is not None else None
        self.problem = ListOps(length=2000, min_length=500, max_depth=10, max_args=10)
        self.counts = {"train": n_train, "val": n_val, "test": n_test}

    @property
    def facts(self) -> dict[str, Any]:
        """Class names, the number of ids, and what stands for each."""
        return {
            "class_names": [str(value) for value in range(self.problem.n_classes)],
            "vocab_size": self.problem.vocab_size,
            "tokens": [f"{token} " for token in TOKENS],
        }

    def setup(self, stage: str) -> None:
        """Read the files, where there are any."""
        if self.parts:
            return
        if self.root is not None:
            self.parts = {part: read_tsv(self.root / f"basic_{part}.tsv") for part in self.counts}
            return
        length = self.problem.length
        self.parts = {
            "train": Whole(Fresh(self.problem, self.counts["train"])),
            "val": Whole(Fixed(self.problem, self.counts["val"], length, (self.seed, VAL))),
            "test": Whole(Fixed(self.problem, self.counts["test"], length, (self.seed, TEST))),
        }


class Whole:
    """A problem that asks once a sequence, as one that asks for the class of the whole.

    Args:
        source: gives sequences and labels ``(B, L)``.
    """

    def __init__(self, source: Source) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def batch(self, indices: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The sequences as wide as the longest of them, and their labels ``(B,)``."""
        inputs, labels = self.source.batch(indices, generator)
        width = int((inputs != 0).any(0).sum())
        return inputs[:, :width], labels.amax(1)


def read_tsv(path: Path) -> Texts:
    """The expressions of a file of the release: a header, then expression, tab, value.

    Round brackets, which only tell how the expression was built, are left out, as the source does.

    Raises:
        UserError: the file is missing, or a line is no such thing.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}: {WHERE}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text in UTF-8: fetch it again") from error
    if not lines or lines[0].split("\t") != ["Source", "Target"]:
        raise UserError(f"{path} must begin with a line of Source and Target, tab between")
    sequences, labels = [], []
    for number, line in enumerate(lines[1:], 2):
        expression, _, value = line.partition("\t")
        words = [word for word in expression.split() if word not in _BRACKETS]
        if strange := [word for word in words if word not in _IDS]:
            raise UserError(f"{path}:{number} holds {strange[0]!r}, which is no token of ListOps")
        if not words or value.strip() not in map(str, range(10)):
            raise UserError(f"{path}:{number} must be an expression, a tab and a value of 0 to 9")
        sequences.append(torch.tensor([_IDS[word] for word in words]))
        labels.append(int(value))
    if not labels:
        raise UserError(f"{path} holds no expression: fetch it again")
    return Texts(sequences, labels)
