"""Dropout that silences a channel for the whole of a sequence."""

from torch import Tensor, nn
from torch.nn import functional as F


class TiedDropout(nn.Module):
    """Dropout of ``(B, L, D)`` whose mask is the same at every position.

    Args:
        rate: share of the channels that are zeroed; the rest grow by ``1 / (1 - rate)``.

    Source: Gal & Ghahramani 2016, https://arxiv.org/abs/1512.05287 (variational dropout).
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Zero channels of ``x (B, L, D)``; ``x`` itself outside of training."""
        return F.dropout1d(x.transpose(1, 2), self.rate, self.training).transpose(1, 2)

    def extra_repr(self) -> str:
        """The rate, for ``print(model)``."""
        return f"rate={self.rate}"
