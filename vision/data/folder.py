"""Images in folders, one for each class, as ImageNet's; or in tar files of such folders."""

import os
import tarfile
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image
from timm.data import create_transform
from timm.data.readers.img_extensions import get_img_extensions
from timm.data.readers.reader_image_folder import ReaderImageFolder
from timm.data.readers.reader_image_in_tar import ReaderImageInTar
from timm.utils.misc import natural_key
from torch import Tensor

from tristate.core.errors import UserError
from tristate.core.training.data import DataModule
from tristate.core.training.loader import Items, Loader, Named
from tristate.vision.data.files import ImageFiles, open_image

# What a part may be called on disk.
PARTS = {"train": ("train",), "val": ("val", "validation"), "test": ("test",)}

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's


class ImageFolder(DataModule):
    """Images in ``root/train/CLASS/*`` and ``root/val/CLASS/*``, and ``root/test`` if it is there.

    Each part may be a folder, a tar file of the same layout (``train.tar``) or one that holds a
    tar file for each class, or a folder of such. Without ``test`` the validation part is tested
    on. Files are read and augmented by ``timm.data``.

    Args:
        root: folder of the parts.
        image_size: height and width in pixels of what the model gets.
        batch_size: images of a batch.
        workers: processes that decode.
        scale: least and largest share of the area that a random crop takes.
        flip: share of the training images that are mirrored.
        color_jitter: strength of brightness, contrast and saturation jitter; ``auto_augment``
            replaces it.
        auto_augment: timm's policy, such as ``"rand-m9-mstd0.5-inc1"``; None for none.
        interpolation: ``"bicubic"``, ``"bilinear"``, or ``"random"`` in training.
        random_erasing: share of the training images with a part erased.
        repeats: how often an image follows itself in an epoch, each time augmented anew.
        crop_pct: share of the side that the central crop takes in evaluation.
        mean: of each channel.
        std: of each channel.
        seed: root of order and augmentation; None takes the run's global seed.
        predict_path: image files or folders to predict on; None for the test images.

    Raises:
        UserError: a folder is missing, a class has no image, or a part has classes of its own;
            in a run, an image is damaged.
    """

    def __init__(
        self,
        root: str,
        image_size: int = 224,
        batch_size: int = 64,
        workers: int = 4,
        scale: tuple[float, float] = (0.08, 1.0),
        flip: float = 0.5,
        color_jitter: float = 0.4,
        auto_augment: str | None = None,
        interpolation: str = "bicubic",
        random_erasing: float = 0.0,
        repeats: int = 1,
        crop_pct: float = 0.875,
        mean: tuple[float, float, float] = MEAN,
        std: tuple[float, float, float] = STD,
        seed: int | None = None,
        predict_path: str | list[str] | None = None,
    ) -> None:
        super().__init__(batch_size, workers, seed)
        self.root, self.predict_path, self.repeats = Path(root), predict_path, repeats
        self._readers: dict[Path, tuple[Any, list[str]]] = {}
        self.mean, self.std, self.image_size = list(mean), list(std), image_size
        shared: dict[str, Any] = {"input_size": image_size, "mean": mean, "std": std}
        self.augment: Any = create_transform(
            **shared,
            is_training=True,
            scale=scale,
            hflip=flip,
            color_jitter=color_jitter,
            auto_augment=auto_augment,
            interpolation=interpolation,
            re_prob=random_erasing,
            re_mode="pixel",
        )
        self.plain: Any = create_transform(
            **shared,
            crop_pct=crop_pct,
            interpolation="bicubic" if interpolation == "random" else interpolation,
        )

    @property
    def facts(self) -> dict[str, Any]:
        """Class names (the training folders'), channels, size, mean and deviation."""
        return {
            "class_names": list(self.class_to_index),
            "in_chans": 3,
            "input_size": [self.image_size, self.image_size],
            "mean": self.mean,
            "std": self.std,
        }

    @cached_property
    def class_to_index(self) -> dict[str, int]:
        """Index of each class, from the names in the training part."""
        path = self._find("train")
        names = self._reader("train")[1] if _is_tar(path) else _class_folders(path)
        return {name: index for index, name in enumerate(names)}

    def _find(self, part: str) -> Path:
        for name in PARTS[part]:
            for path in (self.root / name, self.root / f"{name}.tar"):
                if path.exists():
                    return path
        if part == "test":
            return self._find("val")
        there = sorted(path.name for path in self.root.iterdir()) if self.root.is_dir() else None
        found = f"it has {', '.join(there[:5]) or 'nothing'}" if there is not None else "no folder"
        raise UserError(
            f"{self.root} must hold {part}/CLASS/IMAGE or {part}.tar, and {found}: name the folder "
            "that has train and val in it"
        )

    def _reader(self, part: str) -> tuple[Any, list[str]]:
        """The reader of a part, and the class names by its labels; read once."""
        path = self._find(part)
        if path not in self._readers:
            self._readers[path] = _tar_reader(path) if _is_tar(path) else _folder_reader(path)
        return self._readers[path]

    def items(self, part: str, transform: Callable[[Image.Image], Tensor]) -> Items:
        """The images of ``"train"``, ``"val"`` or ``"test"`` with their labels."""
        reader, names = self._reader(part)
        if unknown := [name for name in names if name not in self.class_to_index]:
            raise UserError(
                f"{self._find(part)} has images of a class {unknown[0]!r}, which is no class of "
                f"{self._find('train')}: remove or rename its folder"
            )
        labels = [self.class_to_index[name] for name in names]
        return Items(_Labelled(reader, labels, transform))

    def train_dataloader(self) -> Loader:
        """Augmented training images in a new order each epoch."""
        return self.loader(self.items("train", self.augment), train=True, repeats=self.repeats)

    def val_dataloader(self) -> Loader:
        """Validation images."""
        return self.loader(self.items("val", self.plain))

    def test_dataloader(self) -> Loader:
        """Test images, or the validation images where there are none."""
        return self.loader(self.items("test", self.plain))

    def predict_dataloader(self) -> Loader:
        """The images at ``predict_path``, else those of the test part, with their names."""
        if self.predict_path is not None:
            return self.loader(Items(ImageFiles(self.predict_path, self.plain)))
        return self.loader(Named(self.items("test", self.plain), "test"))


class _Labelled:
    """The images of a timm reader, refused when damaged, with our labels for the reader's."""

    def __init__(
        self, reader: Any, labels: list[int], transform: Callable[[Image.Image], Tensor]
    ) -> None:
        self.reader, self.labels, self.transform = reader, labels, transform

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        file, label = self.reader[index]
        with file:
            image = open_image(file, self.reader.filename(index, absolute=True))
        return self.transform(image), self.labels[label]


def _is_tar(path: Path) -> bool:
    return path.suffix == ".tar" or any(path.glob("*.tar"))


def _tar_reader(path: Path) -> tuple[ReaderImageInTar, list[str]]:
    for file in [path] if path.is_file() else path.glob("*.tar"):
        _check_end(file)
    try:
        # timm's cache of the members would be a pickle beside the data.
        reader = ReaderImageInTar(str(path), cache_tarinfo=False)
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise UserError(
            f"{path} is damaged or holds no images in class folders ({error}): fetch it again"
        ) from error
    return reader, list(reader.class_name_to_idx or {})


def _check_end(path: Path) -> None:
    """Refuse a tar file without its end, two blocks of zeros: some cuts read as a short file."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1024))
        if size < 1024 or any(file.read()):
            raise UserError(f"{path} ({size} bytes) is no tar file or cut short: fetch it again")


def _folder_reader(path: Path) -> tuple[ReaderImageFolder, list[str]]:
    _class_folders(path)
    reader = ReaderImageFolder(str(path))
    return reader, list(reader.class_to_idx)


def _class_folders(path: Path) -> list[str]:
    """The names of the class folders in ``path``, in timm's order; each has an image.

    Raises:
        UserError: a class has none, or there is no class.
    """
    known = get_img_extensions(as_set=True)
    folders = [p for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")]
    if not folders:
        raise UserError(f"{path} holds no class folder: images stand in {path}/CLASS/")
    for folder in folders:
        if not any(file.suffix.lower() in known for file in folder.iterdir()):
            raise UserError(
                f"the class folder {folder} holds no image ({', '.join(sorted(known))}): "
                "put images there or remove it"
            )
    return sorted((folder.name for folder in folders), key=natural_key)
