"""DSS: a diagonal model of each channel, whose eigenvalues all channels share."""

from typing import Any

from tristate.core.ssm.mixer import StateSpaceMixer, n_outputs
from tristate.core.ssm.softmax import SoftmaxSSM
from tristate.core.ssm.spectra import ExponentialSSM
from tristate.kernels.registry import nearest

VERSIONS = {"exp": ExponentialSSM, "softmax": SoftmaxSSM}


class DSS(StateSpaceMixer):
    """Diagonal state spaces: ``output(k * x + D x)`` with one long kernel for each channel.

    ``k = Re sum_n C_n w_n exp(z_n l)``, ``z = dt A``, where ``w`` is ``(exp(z) - 1) / A`` (exp), or
    what makes each state's powers sum to ``1 / A`` (softmax). Time O(d_model L (d_state + log L))
    and memory O(d_model (L + d_state)), a step and a state O(d_model d_state). A softmax over the
    input's own length leaves no state to hand on: the mixer is not causal then. At another sampling
    rate: :func:`tristate.core.rate.set_rate`.

    Args:
        d_model: width of input and output.
        d_state: complex states of each channel.
        channels: outputs of each channel.
        version: ``"exp"`` or ``"softmax"``.
        bidirectional: look ahead, too; then the mixer is not causal.
        gate: activation by which a second set of outputs weighs the first, a name in
            :data:`tristate.core.activation.ACTIVATIONS`; None for no gate.
        kernel_length: taps of the kernel at most, for inputs without a state; None for no limit.
        activation: behind the convolution, likewise a name.
        output: what follows, a name in :data:`tristate.core.parts.pointwise.OUTPUTS`.
        dropout: rate, behind the activation and at the end.
        **ssm: the other arguments of :class:`tristate.core.ssm.spectra.ExponentialSSM` or
            :class:`tristate.core.ssm.softmax.SoftmaxSSM`, ``normal_length`` among them.

    Raises:
        ValueError: sizes that don't divide, or an unknown name.

    Source: Gupta et al. 2022, https://arxiv.org/abs/2203.14343; https://github.com/ag1988/dss.
    """

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        channels: int = 1,
        version: str = "exp",
        bidirectional: bool = False,
        gate: str | None = None,
        kernel_length: int | None = None,
        activation: str = "gelu",
        output: str = "linear",
        dropout: float = 0.0,
        **ssm: Any,
    ) -> None:
        if version not in VERSIONS:
            raise ValueError(f"unknown version {version!r}; {nearest(version, VERSIONS)}")
        rows = n_outputs(channels, bidirectional, gate)
        super().__init__(
            VERSIONS[version](d_model, d_state=d_state, channels=rows, **ssm),
            bidirectional=bidirectional,
            gate=gate,
            kernel_length=kernel_length,
            activation=activation,
            output=output,
            dropout=dropout,
        )
