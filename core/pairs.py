"""A model of pairs: one encoder for both, and a head over what it makes of them."""

from typing import Any

import torch
from torch import Tensor, nn

from tristate.core.tasks.texts import padding


class PairModel(nn.Module):
    """Logits from ``[a, b, a * b, a - b]``, where ``a`` and ``b`` are the two encodings.

    Args:
        encoder: a backbone without a head, whose pooled features are the encodings.
        num_classes: outputs.

    Source: Tay et al. 2020, https://arxiv.org/abs/2011.04006, section 2.2.3; the hidden layer as in
    https://github.com/state-spaces/s4.
    """

    def __init__(self, encoder: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.encoder: Any = encoder
        width: int = self.encoder.num_features
        self.head = nn.Sequential(
            nn.Linear(4 * width, width), nn.GELU(), nn.Linear(width, num_classes)
        )

    def get_classifier(self) -> nn.Module:
        """The head."""
        return self.head

    def forward(self, ids: Tensor) -> Tensor:
        """Logits ``(B, num_classes)`` of ``ids (B, 2, L)``."""
        flat = ids.flatten(0, 1)
        tokens = self.encoder.forward_features(flat)
        pooled = self.encoder.forward_head(tokens, pre_logits=True, seq_idx=padding(flat))
        a, b = pooled.unflatten(0, (-1, 2)).unbind(1)
        return self.head(torch.cat([a, b, a * b, a - b], -1))
