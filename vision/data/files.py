"""Images in files, to predict on."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image, UnidentifiedImageError
from timm.data.readers.img_extensions import get_img_extensions
from torch import Tensor
from torchvision.transforms import v2

from tristate.core.errors import UserError


def open_image(file: Any, name: str | Path, mode: Literal["RGB", "L"] = "RGB") -> Image.Image:
    """The image in ``file`` (a path or an open file), decoded to the last byte.

    Raises:
        UserError: it is missing, damaged or no image; ``name`` is in the sentence.
    """
    try:
        with Image.open(file) as image:
            return image.convert(mode)
    except FileNotFoundError as error:
        raise UserError(f"there is no file {name}") from error
    except UnidentifiedImageError as error:
        raise UserError(f"{name} is no image that can be read: remove or replace it") from error
    # Pillow's decoders raise these for files that are cut short or changed.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{name} is damaged ({error}): remove or replace it") from error


def find_images(paths: str | Sequence[str]) -> list[Path]:
    """The image files that ``paths`` name, folders with all that is below them, in order.

    Raises:
        UserError: a path does not exist, or a folder holds no image.
    """
    known = get_img_extensions(as_set=True)
    found: list[Path] = []
    for path in map(Path, [paths] if isinstance(paths, str) else paths):
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in known and p.is_file())
            if not inside:
                raise UserError(f"there is no image ({', '.join(sorted(known))}) in {path}")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"there is no file or folder {path}")
    return found


class ImageFiles:
    """Image files as items ``(image, name)``.

    Args:
        paths: a file or folder, or several.
        transform: makes a tensor of a PIL image.
        mode: ``"RGB"``, or ``"L"`` for grey.
    """

    def __init__(
        self,
        paths: str | Sequence[str],
        transform: Callable[[Image.Image], Tensor],
        mode: Literal["RGB", "L"] = "RGB",
    ) -> None:
        self.files, self.transform = find_images(paths), transform
        self.mode: Literal["RGB", "L"] = mode

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, str]:
        file = self.files[index]
        return self.transform(open_image(file, file, self.mode)), str(file)


def plain_transform(facts: dict[str, Any]) -> Callable[[Image.Image], Tensor]:
    """Resize to ``input_size``, normalise with ``mean`` and ``std``: all from ``facts``."""
    return v2.Compose(
        [
            v2.Resize(facts["input_size"], antialias=True),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(facts["mean"], facts["std"]),
        ]
    )
