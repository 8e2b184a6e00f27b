"""A two-sided mixer made of two one-sided ones."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tristate.core.mixer import Mixer


class Bidirectional(Mixer):
    """Reads a sequence with one mixer ahead and one back, and combines what they give.

    Args:
        ahead: the mixer that reads forwards.
        back: one that reads backwards, e.g. ``Mamba(d_model, reverse=True)``; nothing is flipped.
        tied: names of submodules that ``back`` takes over from ``ahead``, so that both directions
            share their weights (Caduceus ties ``("in_proj", "out_proj")``).
        combine: what to do with the two outputs; their sum by default.

    Raises:
        ValueError: the widths differ, ``ahead`` is not causal, or ``back`` is.

    Source: Schiff et al. 2024, https://arxiv.org/abs/2403.03234, section 4.1 (BiMamba).
    """

    causal = False
    memory = "none"

    def __init__(
        self,
        ahead: Mixer,
        back: Mixer,
        *,
        tied: Sequence[str] = (),
        combine: Callable[[Tensor, Tensor], Tensor] = torch.add,
    ) -> None:
        super().__init__()
        if ahead.d_model != back.d_model:
            raise ValueError(f"widths differ: {ahead.d_model} ahead and {back.d_model} back")
        if not ahead.causal or back.causal:
            raise ValueError("wanted a mixer that reads forwards and one made with reverse=True")
        self.d_model = ahead.d_model
        self.packs = ahead.packs and back.packs
        self.ahead, self.back, self.combine = ahead, back, combine
        for name in tied:
            setattr(back, name, getattr(ahead, name))

    def forward(self, x: Tensor, *, seq_idx: Tensor | None = None) -> Tensor:
        """Mix ``x (B, L, d_model)``."""
        return self.combine(self.ahead(x, seq_idx=seq_idx), self.back(x, seq_idx=seq_idx))
