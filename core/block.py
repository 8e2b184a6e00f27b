"""One residual block: norm, then whatever mixes."""

from typing import Any

import torch
from torch import Tensor, nn

from tristate.core.mixer import Mixer
from tristate.core.norm import AddNorm


class Block(nn.Module):
    """Pre-norm residual block whose addition is left to the next norm.

    ``residual += hidden; hidden = drop_path(scale * mixer(norm(residual)))``. The sum is the next
    block's (or the last norm's) first step, so that adding and normalising are one pass.

    Args:
        mixer: maps ``(B, L, D)`` to ``(B, L, D)``: a :class:`Mixer`, or any module, an MLP say.
        norm: the norm at the entrance.
        drop_path: stochastic depth or the like, on the mixer's output; None for nothing.
        scale: learnt factor per channel on the mixer's output, ``nn.Parameter (D,)``; None for 1.
    """

    def __init__(
        self,
        mixer: nn.Module,
        norm: AddNorm,
        *,
        drop_path: nn.Module | None = None,
        scale: nn.Parameter | None = None,
    ) -> None:
        super().__init__()
        self.norm = norm
        self.mixer = mixer
        self.drop_path = drop_path if drop_path is not None else nn.Identity()
        self.scale: nn.Parameter | None
        self.register_parameter("scale", scale)

    def forward(
        self, hidden: Tensor, residual: Tensor | None = None, *, seq_idx: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """``(hidden, residual)`` after this block; both are ``(B, L, D)``."""
        x, total = self.norm(hidden, residual)
        x = self.mixer(x, seq_idx=seq_idx) if isinstance(self.mixer, Mixer) else self.mixer(x)
        return self._leave(x), total

    def forward_state(
        self,
        hidden: Tensor,
        residual: Tensor | None,
        state: Any | None = None,
        *,
        seq_idx: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Any]:
        """``(hidden, residual, state)``: as :meth:`forward`, with the mixer's state handed on."""
        x, total = self.norm(hidden, residual)
        if isinstance(self.mixer, Mixer):
            x, state = self.mixer.forward_state(x, state, seq_idx=seq_idx)
        else:
            x = self.mixer(x)
        return self._leave(x), total, state

    def init_state(
        self,
        batch_size: int,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> Any:
        """The mixer's first state; None where it has none because it mixes no positions."""
        if not isinstance(self.mixer, Mixer):
            return None
        return self.mixer.init_state(batch_size, device=device, dtype=dtype)

    def _leave(self, x: Tensor) -> Tensor:
        return self.drop_path(x if self.scale is None else x * self.scale)
