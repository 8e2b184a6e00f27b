"""S5's and the LRU's recurrence, learning online."""

from typing import NamedTuple

import torch
from torch import Tensor

from tristate.core.mixer import at_least_float32
from tristate.core.online.mixer import OnlineMixer
from tristate.core.online.trace import through
from tristate.core.parts.diagonal import DiagonalRecurrence


class DiagonalTraces(NamedTuple):
    """The state of a :class:`DiagonalRecurrence` and its derivatives."""

    hidden: Tensor  # (B, N)
    by_decay: Tensor  # (B, N): by a
    by_input: Tensor  # (B, N, D): by the rows of g B


class OnlineDiagonal(OnlineMixer[DiagonalRecurrence, DiagonalTraces]):
    """``h[t] = a h[t-1] + g (B x[t])`` with its traces; time and memory O(N d_model) a step."""

    learns = DiagonalRecurrence

    def init_state(
        self,
        batch_size: int,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> DiagonalTraces:
        """Zeros."""
        (hidden,) = self.mixer.init_state(batch_size, device=device, dtype=dtype)
        by_input = hidden.new_zeros(*hidden.shape, self.d_model)
        return DiagonalTraces(hidden, torch.zeros_like(hidden), by_input)

    def step(self, x: Tensor, state: DiagonalTraces) -> tuple[Tensor, DiagonalTraces]:
        """One position, ``(B, d_model)``."""
        a, gain = self.mixer.transition()
        rows = gain[:, None] * torch.view_as_complex(at_least_float32(self.mixer.B))
        wide = at_least_float32(x)
        fixed, before = a.detach(), state.hidden
        # Through the present input alone do layers below learn.
        hidden = fixed * before + (wide.to(rows.dtype) @ rows.detach().mT)
        traces = DiagonalTraces(
            hidden.detach(),
            fixed * state.by_decay + before,
            fixed[:, None] * state.by_input + wide.detach()[:, None],
        )
        hidden = hidden + through(traces.by_decay, a) + through(traces.by_input, rows).sum(-1)
        return self.mixer.read(hidden, x), traces
