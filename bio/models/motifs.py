"""Short motifs: a convolution over embedded letters; letters that count by where they stand."""

import torch
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


class LetterSkip(nn.Module):
    """A vector for each letter at each position, zeros at first.

    What a position weight matrix is for a score: pooled and mapped, it is one for each class.

    Args:
        max_length: length of the windows.
        vocab_size: ids are below it.
        d_model: width.

    Source: Stormo et al. 1982, https://doi.org/10.1093/nar/10.9.2997, for weights by position.
    """

    def __init__(self, max_length: int, vocab_size: int, d_model: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(max_length, vocab_size, d_model))

    def forward(self, ids: Tensor) -> Tensor:
        """``(B, L, d_model)`` of ids ``(B, L)``.

        Raises:
            ValueError: the windows have another length.
        """
        if ids.shape[1] != len(self.weight):
            raise ValueError(f"wanted windows of {len(self.weight)} letters, got {ids.shape[1]}")
        return self.weight[torch.arange(ids.shape[1], device=ids.device), ids]
