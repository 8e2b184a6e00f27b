"""Short motifs: a convolution over embedded letters."""

from torch import Tensor, nn


class MotifConv(nn.Module):
    """Adds to each token what a convolution sees around it, as far on either side.

    Args:
        d_model: width.
        width: letters that are seen, an odd number.

    Raises:
        ValueError: ``width`` is even or below 3.
    """

    def __init__(self, d_model: int, width: int) -> None:
        super().__init__()
        if width < 3 or width % 2 == 0:
            raise ValueError(f"the convolution's width is odd and at least 3, got {width}")
        self.conv = nn.Conv1d(d_model, d_model, width, padding=width // 2)

    def forward(self, x: Tensor, seq_idx: Tensor | None = None) -> Tensor:
        """``(B, L, d_model)``; positions with negative ``seq_idx (B, L)`` are seen as zeros."""
        if seq_idx is not None:
            x = x.where((seq_idx >= 0)[..., None], 0)
        return x + nn.functional.silu(self.conv(x.mT)).mT
