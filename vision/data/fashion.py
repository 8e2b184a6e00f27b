"""Fashion-MNIST: the part that comes with the package, or the full set."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tristate.core.errors import UserError
from tristate.core.training.data import PartedData
from tristate.core.training.loader import Items, Loader
from tristate.vision.data.files import ImageFiles, plain_transform
from tristate.vision.data.idx import find_idx, read_idx
from tristate.vision.data.tensors import TensorImages

EMBEDDED = Path(__file__).parent / "fashion_mnist"

CLASSES = [
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
]

# Of the embedded training images, on the scale 0 to 1.
MEAN, STD = 0.2867, 0.3540


class FashionMNIST(PartedData):
    """28x28 grey images of ten kinds of clothing, kept in memory.

    For validation the last training images of each class are set aside; the test images are only
    tested on.

    Args:
        root: folder of the full set's IDX files (plain or ``.gz``), such as Debian's
            ``/usr/share/datasets/fashion-mnist``; None for the embedded 10,000 + 2,000 images.
        batch_size: images of a batch.
        val_size: training images set aside, as many of each class.
        shift: training images are shifted by up to so many pixels.
        flip: training images are mirrored at random.
        workers: processes that prepare batches; none are needed.
        seed: root of order and augmentation; None takes the run's global seed.
        predict_path: image files or folders to predict on; None for the test images.

    Raises:
        UserError: a file is missing or damaged.

    Source: Xiao et al. 2017, https://arxiv.org/abs/1708.07747.
    """

    test_name = "t10k-images"

    def __init__(
        self,
        root: str | None = None,
        batch_size: int = 64,
        val_size: int = 500,
        shift: int = 1,
        flip: bool = True,
        workers: int = 0,
        seed: int | None = None,
        predict_path: str | list[str] | None = None,
    ) -> None:
        super().__init__(batch_size, workers, seed)
        if val_size < len(CLASSES) or val_size % len(CLASSES):
            raise ValueError(f"val_size must be a multiple of {len(CLASSES)}, got {val_size}")
        if shift < 0:
            raise ValueError(f"shift must be at least 0, got {shift}")
        self.root = Path(root) if root is not None else EMBEDDED
        self.val_size, self.shift, self.flip = val_size, shift, flip
        self.predict_path = predict_path

    @property
    def facts(self) -> dict[str, Any]:
        """Class names, channels, size in pixels, mean and deviation of a channel."""
        return {
            "class_names": list(CLASSES),
            "in_chans": 1,
            "input_size": [28, 28],
            "mean": [MEAN],
            "std": [STD],
        }

    def setup(self, stage: str) -> None:
        """Read the files."""
        if self.parts:
            return
        images, labels = self._read("train")
        held_out = torch.zeros(len(labels), dtype=torch.bool)
        each = self.val_size // len(CLASSES)
        for label in range(len(CLASSES)):
            of_class = (labels == label).nonzero()[:, 0]
            if len(of_class) <= each:
                raise UserError(
                    f"{self.root} has {len(of_class)} training images of class "
                    f"{CLASSES[label]!r}: that leaves none when {each} are set aside (val_size)"
                )
            held_out[of_class[-each:]] = True
        plain = partial(TensorImages, mean=[MEAN], std=[STD])
        self.parts = {
            "train": plain(images[~held_out], labels[~held_out], shift=self.shift, flip=self.flip),
            "val": plain(images[held_out], labels[held_out]),
            "test": plain(*self._read("t10k")),
        }

    def _read(self, part: str) -> tuple[Tensor, Tensor]:
        paths = [
            find_idx(self.root, f"{part}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1")
        ]
        images, labels = map(read_idx, paths)
        if images.shape[1:] != (28, 28) or labels.shape != images.shape[:1]:
            raise UserError(
                f"{paths[0]} and {paths[1]} must hold as many 28x28 images as labels, "
                f"got {tuple(images.shape)} and {tuple(labels.shape)}"
            )
        if labels.max() >= len(CLASSES):
            raise UserError(f"{paths[1]} holds the label {labels.max()}: there are classes 0 to 9")
        return images[:, None], labels.long()

    def predict_dataloader(self) -> Loader:
        """The images at ``predict_path``, else the test images, with their names."""
        if self.predict_path is None:
            return super().predict_dataloader()
        return self.loader(Items(ImageFiles(self.predict_path, plain_transform(self.facts), "L")))
