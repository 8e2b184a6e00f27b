"""From an image to tokens."""

from itertools import pairwise

from timm.layers import lecun_normal_
from torch import Tensor, nn


class PatchEmbed(nn.Module):
    """One token a patch, row by row; patches may overlap.

    Args:
        img_size: side, or (height, width), of the expected image, in pixels.
        patch_size: side, or (height, width), of a patch, in pixels.
        stride: distance between patches, in pixels; the patch size when absent.
        in_chans: channels of the image.
        d_model: width of a token.

    Raises:
        ValueError: the image is smaller than a patch.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int],
        patch_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None,
        in_chans: int,
        d_model: int,
    ) -> None:
        super().__init__()
        self.patch_size = _pair(patch_size)
        self.stride = _pair(stride if stride is not None else patch_size)
        self.grid_size = self.grid_of(*_pair(img_size))
        self.num_patches = self.grid_size[0] * self.grid_size[1]
        self.proj = nn.Conv2d(in_chans, d_model, self.patch_size, self.stride)
        lecun_normal_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)  # pyright: ignore[reportArgumentType]

    def grid_of(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches in an image of this size, in pixels."""
        (ph, pw), (sh, sw) = self.patch_size, self.stride
        if height < ph or width < pw:
            raise ValueError(f"an image of {height}x{width} is smaller than a patch of {ph}x{pw}")
        return (height - ph) // sh + 1, (width - pw) // sw + 1

    def forward(self, x: Tensor) -> Tensor:
        """Tokens ``(B, M, d_model)`` of images ``(B, in_chans, H, W)``."""
        return self.proj(x).flatten(2).transpose(1, 2)


class ConvEmbed(PatchEmbed):
    """One token a patch by a few small convolutions, each of which halves the image.

    Learns faster than one large filter on small sets. Patches are square, of a power of two, and
    don't overlap; an image's sides are rounded up to whole patches.

    Source: Xiao et al. 2021, https://arxiv.org/abs/2106.14881.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int],
        patch_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None,
        in_chans: int,
        d_model: int,
    ) -> None:
        side, other = _pair(patch_size)
        if side != other or side < 2 or side & (side - 1) or stride not in (None, patch_size):
            raise ValueError(
                "convolutions want square patches of a power of two and no stride of their own, "
                f"got patch_size {patch_size} and stride {stride}"
            )
        super().__init__(img_size, patch_size, stride, in_chans, d_model)
        n_halvings = side.bit_length() - 1
        widths = [in_chans, *(d_model >> n for n in reversed(range(1, n_halvings)))]
        self.stem = nn.Sequential(*(_halve(*pair) for pair in pairwise(widths)))
        self.proj = nn.Conv2d(widths[-1], d_model, 3, stride=2, padding=1)

    def grid_of(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches in an image of this size, in pixels."""
        return -(-height // self.stride[0]), -(-width // self.stride[1])

    def forward(self, x: Tensor) -> Tensor:
        """Tokens ``(B, M, d_model)`` of images ``(B, in_chans, H, W)``."""
        return super().forward(self.stem(x))


def _halve(before: int, after: int) -> nn.Sequential:
    conv = nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(after), nn.GELU())


def _pair(side: int | tuple[int, int]) -> tuple[int, int]:
    return (side, side) if isinstance(side, int) else (side[0], side[1])
