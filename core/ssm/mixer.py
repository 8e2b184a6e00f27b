"""The mixer that all of S4's family are: a state-space model, and what each position does."""

import torch
from torch import Tensor

from tristate.core.mixer import Mixer, refuse_segments
from tristate.core.parts.pointwise import make_output
from tristate.core.ssm.base import StateSpace
from tristate.core.ssm.conv import StateSpaceConv, StateSpaceState


class StateSpaceMixer(Mixer):
    """``output(conv(x))``: a convolution with a state-space model's kernels, then channels mix.

    Causal, it also runs as a recurrence, one position at a time or from a state on; two-sided, or
    where the kernel follows from the input's length, there is no state. A change of the sampling
    rate is :func:`tristate.core.rate.set_rate`.

    Args:
        ssm: the model, with ``channels`` outputs (twice as many where two-sided).
        bidirectional: look ahead, too.
        gate: see :class:`tristate.core.ssm.conv.StateSpaceConv`.
        kernel_length: taps of the kernel at most; see there as well.
        activation: behind the convolution, a name in
            :data:`tristate.core.activation.ACTIVATIONS`.
        output: what follows, a name in :data:`tristate.core.parts.pointwise.OUTPUTS`;
            ``"none"`` leaves ``channels * d_model`` values at each position.
        dropout: rate, behind the activation and at the end.
    """

    def __init__(
        self,
        ssm: StateSpace,
        *,
        bidirectional: bool = False,
        gate: str | None = None,
        kernel_length: int | None = None,
        activation: str = "gelu",
        output: str = "glu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.d_model = ssm.d_model
        self.conv = StateSpaceConv(
            ssm, bidirectional=bidirectional, gate=gate, kernel_length=kernel_length
        )
        self.causal = self.conv.streams
        self.memory = "constant" if self.causal else "none"
        d_out = self.conv.d_out if output == "none" else self.d_model
        self.output = make_output(
            output, self.conv.d_out, d_out, activation=activation, dropout=dropout
        )

    def forward(self, x: Tensor, *, seq_idx: Tensor | None = None) -> Tensor:
        """Mix ``x (B, L, d_model)``; one row is one sequence."""
        refuse_segments(self, seq_idx)
        return self.output(self.conv(x))

    def forward_state(
        self,
        x: Tensor,
        state: StateSpaceState | None = None,
        *,
        seq_idx: Tensor | None = None,
    ) -> tuple[Tensor, StateSpaceState]:
        """Mix ``x`` from ``state`` on."""
        if not self.causal:
            return super().forward_state(x, state, seq_idx=seq_idx)
        refuse_segments(self, seq_idx)
        y, last = self.conv.forward_state(x, state)
        return self.output(y), last

    def step(self, x: Tensor, state: StateSpaceState) -> tuple[Tensor, StateSpaceState]:
        """Mix one position, ``(B, d_model)``, in ``O(d_state)`` a channel."""
        if not self.causal:
            return super().step(x, state)
        y, last = self.conv.step(x, state)
        return self.output(y[:, None])[:, 0], last

    def init_state(
        self,
        batch_size: int,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> StateSpaceState:
        """Zeros."""
        if not self.causal:
            return super().init_state(batch_size)
        return self.conv.init_state(batch_size, device=device, dtype=dtype)


def n_outputs(channels: int, bidirectional: bool, gate: str | None) -> int:
    """How many outputs of each channel a mixer needs of its model, for ``channels`` of its own."""
    return channels * (1 + bidirectional) * (1 + (gate is not None))
