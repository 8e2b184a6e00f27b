"""Patches of scikit-image's own pictures: which picture is it from?"""

from importlib.resources import as_file, files
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tristate.core.seeds import generator
from tristate.core.training.data import DataModule
from tristate.core.training.loader import Items, Loader, Named
from tristate.vision.data.files import ImageFiles, open_image, plain_transform

# All that come with scikit-image itself and have enough texture.
PICTURES = {
    "astronaut": "png",
    "brick": "png",
    "camera": "png",
    "chelsea": "png",
    "coffee": "png",
    "coins": "png",
    "grass": "png",
    "gravel": "png",
    "hubble_deep_field": "jpg",
    "ihc": "png",
    "moon": "png",
    "motorcycle_left": "png",
    "page": "png",
    "retina": "jpg",
    "rocket": "jpg",
    "text": "png",
}

# Columns of a picture that a part sees, as shares of its width.
SPANS = {"train": (0.0, 0.6), "val": (0.6, 0.7), "test": (0.7, 1.0)}

MEAN = STD = 0.5


class RGBPatches(DataModule):
    """Random square patches of 16 colour pictures; the label is the picture.

    Training patches come from the left 60 % of each picture and are drawn anew in each epoch;
    those for validation come from the next 10 %, those for the test from the right 30 %, and are
    always the same. Grey pictures have three equal channels.

    Args:
        size: side of a patch in pixels, at most 38 (a tenth of the narrowest picture).
        train_size: patches of an epoch.
        val_size: patches for validation.
        test_size: patches for the test.
        flip: mirror training patches at random.
        batch_size: patches of a batch.
        workers: processes that prepare batches; none are needed.
        seed: root of the training patches; None takes the run's global seed.
        predict_path: image files or folders to predict on, resized; None for the test patches.

    Raises:
        ValueError: a size is out of range.

    Source: scikit-image's data folder, licences there.
    """

    def __init__(
        self,
        size: int = 32,
        train_size: int = 4800,
        val_size: int = 800,
        test_size: int = 1600,
        flip: bool = True,
        batch_size: int = 64,
        workers: int = 0,
        seed: int | None = None,
        predict_path: str | list[str] | None = None,
    ) -> None:
        super().__init__(batch_size, workers, seed)
        if not 1 <= size <= 38:
            raise ValueError(f"size must be 1 to 38 pixels, got {size}")
        if min(train_size, val_size, test_size) < 1:
            raise ValueError(
                "train_size, val_size and test_size must be at least 1, "
                f"got {train_size}, {val_size} and {test_size}"
            )
        self.size, self.flip, self.predict_path = size, flip, predict_path
        self.sizes = {"train": train_size, "val": val_size, "test": test_size}
        self.pictures: list[Tensor] = []

    @property
    def facts(self) -> dict[str, Any]:
        """Class names, channels, size in pixels, mean and deviation of a channel."""
        return {
            "class_names": list(PICTURES),
            "in_chans": 3,
            "input_size": [self.size, self.size],
            "mean": [MEAN] * 3,
            "std": [STD] * 3,
        }

    def setup(self, stage: str) -> None:
        """Read the pictures."""
        if not self.pictures:
            self.pictures = [_read(f"{name}.{ending}") for name, ending in PICTURES.items()]

    def patches(self, part: str) -> "Patches":
        """The patches of ``"train"``, ``"val"`` or ``"test"`` as a source of batches."""
        low, high = SPANS[part]
        spans = [p[:, :, int(low * p.shape[2]) : int(high * p.shape[2])] for p in self.pictures]
        train = part == "train"
        return Patches(spans, self.sizes[part], self.size, self.flip and train, fresh=train)

    def train_dataloader(self) -> Loader:
        """Patches drawn anew in each epoch."""
        return self.loader(self.patches("train"), train=True)

    def val_dataloader(self) -> Loader:
        """The patches between those of training and test."""
        return self.loader(self.patches("val"))

    def test_dataloader(self) -> Loader:
        """The patches of the right 30 %."""
        return self.loader(self.patches("test"))

    def predict_dataloader(self) -> Loader:
        """The images at ``predict_path``, else the test patches, with their names."""
        if self.predict_path is None:
            return self.loader(Named(self.patches("test"), "test"))
        return self.loader(Items(ImageFiles(self.predict_path, plain_transform(self.facts))))


class Patches:
    """Patches of pictures as a :class:`~tristate.core.training.loader.Source`, in turns.

    Args:
        pictures: ``(3, H, W)`` uint8 each.
        count: how many patches there are.
        size: side in pixels.
        flip: mirror every other one.
        fresh: draw places from the batch's generator; else each index has a place of its own.
    """

    def __init__(
        self, pictures: list[Tensor], count: int, size: int, flip: bool, *, fresh: bool
    ) -> None:
        self.pictures, self.count, self.size = pictures, count, size
        self.flip, self.fresh = flip, fresh

    def __len__(self) -> int:
        return self.count

    def batch(self, indices: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Normalised patches ``(B, 3, size, size)`` and the numbers of their pictures ``(B,)``."""
        labels = indices % len(self.pictures)
        if self.fresh:
            draws = torch.rand(len(indices), 3, generator=generator)
        else:
            draws = torch.stack([_fixed_draw(index) for index in indices.tolist()])
        patches = []
        for label, (down, right, mirror) in zip(labels.tolist(), draws.tolist(), strict=True):
            picture = self.pictures[label]
            y = int(down * (picture.shape[1] - self.size + 1))
            x = int(right * (picture.shape[2] - self.size + 1))
            patch = picture[:, y : y + self.size, x : x + self.size]
            patches.append(patch.flip(2) if self.flip and mirror < 0.5 else patch)
        return torch.stack(patches).float().div_(255).sub_(MEAN).div_(STD), labels


def _fixed_draw(index: int) -> Tensor:
    return torch.rand(3, generator=generator(index))


def _read(name: str) -> Tensor:
    """A picture of scikit-image's as ``(3, H, W)`` uint8."""
    with as_file(files("skimage.data") / name) as path:
        image = open_image(path, path)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)
