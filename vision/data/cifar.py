"""CIFAR-10 in grey, as Long Range Arena reads it: a pixel at a time."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tristate.core.errors import UserError
from tristate.core.training.data import PartedData
from tristate.vision.data.tensors import TensorImages

WHERE = (
    "unpack cifar-10-binary.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html and name the "
    "folder cifar-10-batches-bin"
)
CLASSES = [
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
]
SIDE = 32
_RECORD = 1 + 3 * SIDE * SIDE
# ITU-R 601: what colours weigh in grey.
_LUMA = np.array([0.299, 0.587, 0.114])

# Of the grey training images, on the scale 0 to 1.
MEAN, STD = 122.6 / 255, 61.0 / 255


class GreyCIFAR10(PartedData):
    """32x32 grey images of ten kinds of things, kept in memory.

    Args:
        root: folder of the binary version's ``data_batch_1.bin`` to ``data_batch_5.bin`` and
            ``test_batch.bin``. The version for Python is of pickles, which could run anything, and
            is not read.
        batch_size: images of a batch.
        val_size: training images, the last of them, that are set aside to validate on.
        workers: processes that prepare batches; none are needed.
        seed: as :class:`tristate.core.training.data.DataModule`.

    Raises:
        UserError: a file is missing or damaged.

    Source: Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/learning-features-2009-TR.pdf; in grey
    Tay et al. 2020, https://arxiv.org/abs/2011.04006, section 2.2.4.
    """

    test_name = "test_batch"

    def __init__(
        self,
        root: str,
        batch_size: int = 50,
        val_size: int = 5000,
        workers: int = 0,
        seed: int | None = None,
    ) -> None:
        super().__init__(batch_size, workers, seed)
        if val_size < 1:
            raise ValueError(f"val_size must be positive, got {val_size}")
        self.root, self.val_size = Path(root), val_size

    @property
    def facts(self) -> dict[str, Any]:
        """Class names, channels, size in pixels, mean and deviation of a channel."""
        return {
            "class_names": list(CLASSES),
            "in_chans": 1,
            "input_size": [SIDE, SIDE],
            "mean": [MEAN],
            "std": [STD],
        }

    def setup(self, stage: str) -> None:
        """Read the files."""
        if self.parts:
            return
        batches = [read_batch(self.root / f"data_batch_{index}.bin") for index in range(1, 6)]
        images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
        if len(labels) <= self.val_size:
            raise UserError(
                f"{self.root} has {len(labels)} training images: that leaves none when "
                f"{self.val_size} are set aside (val_size)"
            )
        plain = partial(TensorImages, mean=[MEAN], std=[STD])
        self.parts = {
            "train": plain(images[: -self.val_size], labels[: -self.val_size]),
            "val": plain(images[-self.val_size :], labels[-self.val_size :]),
            "test": plain(*read_batch(self.root / "test_batch.bin")),
        }


def read_batch(path: Path) -> tuple[Tensor, Tensor]:
    """Grey images ``(M, 1, 32, 32)`` uint8 and labels ``(M,)`` of a file of the binary version.

    A record is a byte of label, then 1,024 bytes each of red, green and blue, row by row.

    Raises:
        UserError: the file is missing, or no such file.
    """
    try:
        raw = np.frombuffer(path.read_bytes(), np.uint8)
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}: {WHERE}") from error
    if not len(raw) or len(raw) % _RECORD:
        raise UserError(
            f"{path} has {len(raw):,} bytes, and whole records of {_RECORD:,} are wanted: "
            "fetch it again"
        )
    records = raw.reshape(-1, _RECORD)
    labels = torch.from_numpy(records[:, 0].astype(np.int64))
    if labels.max() >= len(CLASSES):
        raise UserError(f"{path} holds the label {int(labels.max())}: there are classes 0 to 9")
    colours = records[:, 1:].reshape(-1, 3, SIDE, SIDE)
    grey = np.rint(np.tensordot(_LUMA, colours, (0, 1))).astype(np.uint8)
    return torch.from_numpy(grey)[:, None], labels
