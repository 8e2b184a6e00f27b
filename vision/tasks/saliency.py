"""What an answer about an image rests on: shares of its pixels, and the patches that are read."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tristate.core.explain.pictures import heat, overlaid
from tristate.core.explain.subject import Subject, Unit
from tristate.core.training.figures import grid, picture

LEAST = 168  # pixels of the shorter side of a picture on the page


class ImageSubject(Subject):
    """An image whose every pixel may fade into the image's own mean colour.

    Args:
        item: as the model gets it, ``(C, H, W)``.
        image: as people see it, ``(C, H, W)`` from 0 to 1.
        score: of ``S`` images like the item.
        backbone: the model, which may know where its positions lie on the image.
    """

    reference = "the image's own mean colour"
    unit = Unit("patches")

    def __init__(
        self,
        item: Tensor,
        image: Tensor,
        score: Callable[[Tensor], Tensor],
        backbone: nn.Module,
    ) -> None:
        self.item, self.image, self.backbone = item, image, backbone
        self.shape = tuple(item.shape[1:])
        self._score, self._mean = score, item.mean((1, 2), keepdim=True)

    def score(self, masks: Tensor) -> Tensor:
        """Of images ``(S, C, H, W)`` under masks ``(S, H, W)``."""
        return self._score(torch.lerp(self._mean, self.item, masks[:, None]))

    def draw(self, shares: Tensor) -> str:
        """The image, and its pixels' shares over it."""
        over = overlaid(self.image.mean(0), shares).permute(2, 0, 1)
        cells = [
            (picture(self.image, "the image", LEAST), "what it saw"),
            (picture(over, "shares of its pixels", LEAST), "what counted"),
        ]
        return grid(cells, 120)

    def reading(self, weights: Tensor) -> tuple[str, str] | None:
        """How much is read of each patch, as brightness, by the class token where it is pooled."""
        reader = None
        if getattr(self.backbone, "global_pool", None) == "token":
            reader = _token(self.backbone, len(weights))
        row = weights.mean(0) if reader is None else weights[reader]
        places = patch_map(self.backbone, row, self.shape)
        if places is None:
            return None
        bright = (places / places.max().clamp(min=1e-12))[None, None]
        bright = nn.functional.interpolate(bright, self.shape, mode="nearest")[0, 0]
        # Where nothing is read the image is hardly seen.
        seen = heat(bright) * 0.75 + 0.25 * self.image.mean(0)[..., None]
        who = "all patches read, on average" if reader is None else "the class token reads"
        drawn = picture(seen.permute(2, 0, 1), "how much is read of each patch", LEAST)
        return drawn, f"On the image, what {who}: the brighter, the more."


def _token(model: Any, length: int) -> int:
    """Where the class token stands among ``length`` positions."""
    if not hasattr(model, "split_tokens"):
        return 0
    token = model.split_tokens(torch.arange(length)[None, :, None])[0]
    return int(token)


def patch_map(model: Any, weights: Tensor, size: tuple[int, ...]) -> Tensor | None:
    """Weights of positions ``(L,)`` as a map of patches ``(H', W')``.

    Of models of this package and of timm's with a grid of patches and a few tokens besides; None
    where positions are something else.

    Args:
        model: with ``patch_embed``.
        weights: of its positions.
        size: of the image, (height, width) in pixels.
    """
    embed = getattr(model, "patch_embed", None)
    if embed is None:
        return None
    rows, columns = embed.grid_of(*size) if hasattr(embed, "grid_of") else embed.grid_size
    if hasattr(model, "split_tokens"):
        patches = model.split_tokens(weights[None, :, None])[1][0, :, 0]
    else:
        patches = weights[getattr(model, "num_prefix_tokens", 0) :]
    return patches.view(rows, columns) if len(patches) == rows * columns else None
