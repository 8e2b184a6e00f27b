"""Pathfinder: do two discs lie on one dashed path? Drawn as needed, at three sizes."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from tristate.core.seeds import mix
from tristate.core.training.data import PartedData
from tristate.core.training.loader import Loader
from tristate.vision.data.dashes import Style, pictures

CLASSES = ["apart", "joined"]

# Number of dashes, their length, the discs' radius and the distance of the two beginnings as Long
# Range Arena has them ("hard"); the rest so that a picture has one reading.
STYLES = {
    32: Style(32, 2.0, 1.25, 3.0, 1.0, 1.5, 7.0, 60.0, 14, 4, 5, 1.5),
    64: Style(64, 5.0, 2.25, 4.0, 1.0, 2.5, 12.0, 50.0, 14, 4, 5, 3.0),
    128: Style(128, 5.0, 3.0, 5.0, 1.5, 3.0, 20.0, 40.0, 14, 4, 8, 6.0),
}

# Mean and deviation that the source normalises with, on the scale 0 to 1.
MEAN, STD = 0.5, 0.5
# Keys of the draws for validation and test, apart from those of training epochs.
_VAL, _TEST = 2**31, 2**31 + 1


def style_of(side: int, contour: int | None = None) -> Style:
    """The style of pictures of ``side`` pixels whose long paths have ``contour`` dashes.

    Raises:
        ValueError: there is no style of that size, or a path has fewer than 3 dashes or more than
            14, for which there is no room.
    """
    if side not in STYLES:
        raise ValueError(f"side is {', '.join(map(str, STYLES))} pixels, got {side}")
    hard = STYLES[side]
    if contour is None:
        return hard
    if not 3 <= contour <= hard.contour:
        raise ValueError(f"contour is from 3 to {hard.contour} dashes, got {contour}")
    # Short paths are a third as long as long ones, as published.
    return hard._replace(contour=contour, distractor=contour // 3)


def draw(style: Style, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Pictures ``(count, 1, side, side)`` uint8 and labels ``(count,)``, one half each.

    Args:
        style: sizes.
        count: of pictures.
        seed: of all that is random.
    """
    random = np.random.default_rng(seed)
    joined = random.permutation(np.arange(count) % 2 == int(random.integers(2))).astype(bool)
    images, _, _ = pictures(style, joined, int(random.integers(2**62)))
    return torch.from_numpy(images)[:, None], torch.from_numpy(joined).long()


class Drawn:
    """New pictures in every epoch.

    Args:
        style: of the pictures.
        count: pictures of an epoch.
    """

    def __init__(self, style: Style, count: int) -> None:
        self.style, self.count = style, count

    def __len__(self) -> int:
        return self.count

    def batch(self, indices: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """As many pictures as there are indices, normalised, and their labels."""
        seed = int(torch.randint(2**62, (), generator=generator))
        images, labels = draw(self.style, len(indices), seed)
        return normalised(images), labels


class Kept:
    """The same pictures at each look.

    Args:
        style: of the pictures.
        count: how many there are.
        seed: what they follow from.
    """

    def __init__(self, style: Style, count: int, seed: int) -> None:
        self.images, self.labels = draw(style, count, seed)

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The pictures at ``indices``, normalised, and their labels."""
        return normalised(self.images[indices]), self.labels[indices]


def normalised(images: Tensor) -> Tensor:
    """Pictures as a model reads them, float32, from -1 to 1."""
    return images.float().div_(255).sub_(MEAN).div_(STD)


class Pathfinder(PartedData):
    """Two long dashed paths among short ones; two discs lie on one long path, or on both.

    Pictures are drawn as they are needed: new ones in every epoch of training, the same ones to
    validate and to test. A label is independent of the picture but for the place of the discs, and
    their distance tells next to nothing of it: see :func:`tristate.vision.data.dashes.pictures`.

    Args:
        side: 32, 64 or 128 pixels; Long Range Arena's Pathfinder has 32, its Path-X 128.
        contour: dashes of a long path; the arena's 14 when absent, 6 and 9 are easier.
        n_train: pictures of an epoch.
        n_val: to validate on.
        n_test: to test on.
        batch_size: pictures of a batch.
        workers: processes that draw ahead.
        seed: as :class:`tristate.core.training.data.DataModule`.

    Raises:
        ValueError: there are no such pictures.

    Source: Linsley et al. 2018, https://arxiv.org/abs/1805.08315; sizes as Tay et al. 2020,
    https://arxiv.org/abs/2011.04006. Theirs may come closer to each other than their dashes are.
    """

    def __init__(
        self,
        side: int = 32,
        contour: int | None = None,
        n_train: int = 160_000,
        n_val: int = 2_000,
        n_test: int = 10_000,
        batch_size: int = 64,
        workers: int = 0,
        seed: int | None = None,
    ) -> None:
        super().__init__(batch_size, workers, seed)
        self.style = style_of(side, contour)
        if min(n_train, n_val, n_test) < 1:
            raise ValueError("n_train, n_val and n_test must be positive")
        self.n_train, self.n_val, self.n_test = n_train, n_val, n_test

    @property
    def facts(self) -> dict[str, Any]:
        """Class names, channels, size in pixels, mean and deviation of a channel."""
        return {
            "class_names": list(CLASSES),
            "in_chans": 1,
            "input_size": [self.style.side, self.style.side],
            "mean": [MEAN],
            "std": [STD],
        }

    def setup(self, stage: str) -> None:
        """Draw what is looked at again, when it is first needed."""
        needed = {"fit": ["val"], "validate": ["val"]}.get(stage, ["test"])
        sizes = {"val": (self.n_val, _VAL), "test": (self.n_test, _TEST)}
        for part in needed:
            count, key = sizes[part]
            if part not in self.parts:
                self.parts[part] = Kept(self.style, count, mix(self.seed, key))

    def train_dataloader(self) -> Loader:
        """New pictures."""
        return self.loader(Drawn(self.style, self.n_train), train=True)
