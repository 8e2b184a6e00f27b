"""S4D: a diagonal model of each channel, with frequencies spread as S4's."""

from collections.abc import Sequence
from typing import Any

from tristate.core.ssm.diagonal import DiagonalSSM
from tristate.core.ssm.mixer import StateSpaceMixer, n_outputs
from tristate.core.ssm.real import RealSSM


class S4D(StateSpaceMixer):
    """Diagonal state spaces: ``output(k * x + D x)`` with one long kernel for each channel.

    ``k[l] = 2 Re sum_n C_n b_n exp(l a_n)``, of ``x' = A x + B u``, ``y = 2 Re C x``.

    Time O(d_model L (d_state + log L)) and memory O(d_model (L + d_state)), a step and a state
    O(d_model d_state). At another sampling rate: :func:`tristate.core.rate.set_rate`.

    Args:
        d_model: width of input and output.
        d_state: states of each channel, even.
        channels: outputs of each channel.
        init: initial model: ``"lin"`` (S4D-Lin), ``"inv"`` (S4D-Inv), ``"legs"`` (S4D-LegS),
            another of :func:`tristate.core.hippo.spectrum`, or several; or ``"real"`` (S4D-Real):
            ``d_state`` real states then, which no frequency ever joins.
        bidirectional: look ahead, too; then the mixer is not causal.
        gate: activation by which a second set of outputs weighs the first, a name in
            :data:`tristate.core.activation.ACTIVATIONS`; None for no gate.
        kernel_length: taps of the kernel at most, for inputs without a state; None for no limit.
        activation: behind the convolution, likewise a name.
        output: what follows, a name in :data:`tristate.core.parts.pointwise.OUTPUTS`.
        dropout: rate, behind the activation and at the end.
        **ssm: the other arguments of :class:`tristate.core.ssm.diagonal.DiagonalSSM`, or of
            :class:`tristate.core.ssm.real.RealSSM`.

    Raises:
        ValueError: sizes that don't divide, or an unknown name.

    Source: Gu et al. 2022, https://arxiv.org/abs/2206.11893; https://github.com/state-spaces/s4.
    """

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        channels: int = 1,
        init: str | Sequence[str] = "lin",
        bidirectional: bool = False,
        gate: str | None = None,
        kernel_length: int | None = None,
        activation: str = "gelu",
        output: str = "glu",
        dropout: float = 0.0,
        **ssm: Any,
    ) -> None:
        ssm |= {"d_state": d_state, "channels": n_outputs(channels, bidirectional, gate)}
        super().__init__(
            RealSSM(d_model, **ssm) if init == "real" else DiagonalSSM(d_model, init=init, **ssm),
            bidirectional=bidirectional,
            gate=gate,
            kernel_length=kernel_length,
            activation=activation,
            output=output,
            dropout=dropout,
        )
