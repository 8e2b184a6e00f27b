"""S4: a HiPPO model of each channel, diagonal less a correction of low rank."""

from collections.abc import Sequence
from typing import Any

from tristate.core.ssm.low_rank import LowRankSSM
from tristate.core.ssm.mixer import StateSpaceMixer, n_outputs


class S4(StateSpaceMixer):
    """Structured state spaces: ``output(k * x + D x)`` with one long kernel for each channel.

    ``k`` is that of ``x' = (A - P P*) x + B u``, ``y = 2 Re C x``, discretised bilinearly; ``A``,
    ``B`` and ``P`` start as HiPPO's.

    Time O(d_model (L (d_state + log L) + d_state^3 log L)), the latter once for a whole batch, and
    memory O(d_model (L + d_state)), a step and a state O(d_model d_state). At another sampling
    rate: :func:`tristate.core.rate.set_rate`.

    Args:
        d_model: width of input and output.
        d_state: states of each channel, even.
        channels: outputs of each channel.
        init: initial model: ``"legs"``, ``"fourier"``, ``"legt"`` (with rank 2), or several.
        rank: of the correction.
        bidirectional: look ahead, too; then the mixer is not causal.
        gate: activation by which a second set of outputs weighs the first, a name in
            :data:`tristate.core.activation.ACTIVATIONS`; None for no gate.
        kernel_length: taps of the kernel at most, for inputs without a state; None for no limit.
        activation: behind the convolution, likewise a name.
        output: what follows, a name in :data:`tristate.core.parts.pointwise.OUTPUTS`.
        dropout: rate, behind the activation and at the end.
        **ssm: the other arguments of :class:`tristate.core.ssm.low_rank.LowRankSSM`.

    Raises:
        ValueError: sizes that don't divide, or an unknown name.

    Source: Gu et al. 2022, https://arxiv.org/abs/2111.00396; https://github.com/state-spaces/s4.
    """

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        channels: int = 1,
        init: str | Sequence[str] = "legs",
        rank: int = 1,
        bidirectional: bool = False,
        gate: str | None = None,
        kernel_length: int | None = None,
        activation: str = "gelu",
        output: str = "glu",
        dropout: float = 0.0,
        **ssm: Any,
    ) -> None:
        rows = n_outputs(channels, bidirectional, gate)
        super().__init__(
            LowRankSSM(d_model, d_state=d_state, channels=rows, init=init, rank=rank, **ssm),
            bidirectional=bidirectional,
            gate=gate,
            kernel_length=kernel_length,
            activation=activation,
            output=output,
            dropout=dropout,
        )
