"""Small images that fit in memory: whole batches by indexing, augmentation included."""

import torch
from torch import Tensor


class TensorImages:
    """Images in one tensor as a :class:`tristate.core.training.loader.Source`; no work per image.

    Flip and shift are one gather: every output pixel is looked up at its shifted, mirrored place.
    What is shifted in from outside is black.

    Args:
        images: ``(M, C, H, W)`` uint8.
        labels: ``(M,)`` int64.
        mean: of each channel, on the scale 0 to 1.
        std: of each channel.
        shift: largest random shift, in pixels, in either direction of both axes.
        flip: mirror every other image left to right.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        mean: list[float],
        std: list[float],
        shift: int = 0,
        flip: bool = False,
    ) -> None:
        self.labels, self.shift, self.flip = labels, shift, flip
        self.size = images.shape[-2:]
        # Channels last, so that one lookup brings a whole pixel.
        self.pixels = torch.nn.functional.pad(images, (shift,) * 4).permute(0, 2, 3, 1).contiguous()
        self.scale = 1 / (255 * torch.tensor(std))
        self.offset = torch.tensor(mean) / torch.tensor(std)

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Normalised images ``(B, C, H, W)`` float32 and their labels ``(B,)``."""
        if self.shift or self.flip:
            pixels = self._moved(indices, generator)
        else:
            pixels = self.pixels[indices]
        images = pixels.float().mul_(self.scale).sub_(self.offset)
        return images.permute(0, 3, 1, 2).contiguous(), self.labels[indices]

    def _moved(self, indices: Tensor, generator: torch.Generator) -> Tensor:
        count, (height, width) = len(indices), self.size
        by = torch.randint(2 * self.shift + 1, (2, count, 1), generator=generator)
        columns = torch.arange(width).expand(count, width)
        if self.flip:
            mirrored = torch.rand(count, 1, generator=generator) < 0.5
            columns = torch.where(mirrored, width - 1 - columns, columns)
        rows, columns = torch.arange(height) + by[0], columns + by[1]
        return self.pixels[indices[:, None, None], rows[:, :, None], columns[:, None, :]]
