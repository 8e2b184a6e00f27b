"""One residual block: norm, then whatever mixes."""

from typing import Any

import torch
from torch import Tensor, nn

from tristate.core.context import Context
from tristate.core.mixer import Mixer


class Block(nn.Module):
    """Residual block whose addition is left to the next norm.

    ``residual += hidden; hidden = drop_path(scale * mixer(norm(residual)))``. The sum is the next
    block's (or the last norm's) first step, so that adding and normalising are one pass.

    Args:
        mixer: maps ``(B, L, D)`` to ``(B, L, D)``: a :class:`Mixer`, or any module, an MLP say. One
            that sets ``wants_context = True`` gets the stack's ``context`` as well.
        norm: at the entrance, one of :mod:`tristate.core.norm`, which add first.
        drop_path: stochastic depth or the like, on the mixer's output; None for nothing.
        scale: learnt factor per channel on the mixer's output, ``nn.Parameter (D,)``; None for 1.
    """

    def __init__(
        self,
        mixer: nn.Module,
        norm: nn.Module,
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
        self,
        hidden: Tensor,
        residual: Tensor | None = None,
        *,
        seq_idx: Tensor | None = None,
        context: Context | None = None,
    ) -> tuple[Tensor, Tensor]:
        """``(hidden, residual)`` after this block; both are ``(B, L, D)``."""
        x, total = self.norm(hidden, residual)
        extra = self._extra(context)
        if isinstance(self.mixer, Mixer):
            extra["seq_idx"] = seq_idx
        return self._leave(self.mixer(x, **extra)), total

    def forward_state(
        self,
        hidden: Tensor,
        residual: Tensor | None,
        state: Any | None = None,
        *,
        seq_idx: Tensor | None = None,
        context: Context | None = None,
    ) -> tuple[Tensor, Tensor, Any]:
        """``(hidden, residual, state)``: as :meth:`forward`, with the mixer's state handed on."""
        x, total = self.norm(hidden, residual)
        x, state = self._mix(x, state, seq_idx, context)
        return self._leave(x), total, state

    def step(
        self,
        hidden: Tensor,
        residual: Tensor | None,
        state: Any,
        *,
        context: Context | None = None,
    ) -> tuple[Tensor, Tensor, Any]:
        """As :meth:`forward_state` for one position, ``(B, 1, D)``, by the mixer's own step."""
        x, total = self.norm(hidden, residual)
        x, state = self._step(x, state, context)
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

    def _mix(
        self, x: Tensor, state: Any, seq_idx: Tensor | None, context: Context | None
    ) -> tuple[Tensor, Any]:
        extra = self._extra(context)
        if isinstance(self.mixer, Mixer):
            return self.mixer.forward_state(x, state, seq_idx=seq_idx, **extra)
        return self.mixer(x, **extra), state

    def _step(self, x: Tensor, state: Any, context: Context | None) -> tuple[Tensor, Any]:
        extra = self._extra(context)
        if extra or not isinstance(self.mixer, Mixer):
            return self._mix(x, state, None, context)
        y, state = self.mixer.step(x[:, 0], state)
        return y[:, None], state

    def _extra(self, context: Context | None) -> dict[str, Any]:
        return {"context": context} if getattr(self.mixer, "wants_context", False) else {}

    def _leave(self, x: Tensor) -> Tensor:
        return self.drop_path(x if self.scale is None else x * self.scale)
