"""The linear recurrent unit: a diagonal complex recurrence, initialised on a ring."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from tristate.core.mixer import at_least_float32
from tristate.core.parts.diagonal import DiagonalRecurrence
from tristate.core.parts.pointwise import Followed, make_output
from tristate.core.ssm.positive import time_constant


class LinearRecurrence(DiagonalRecurrence):
    """``h[t] = a h[t-1] + exp(gamma_log) (B x[t])``, ``y[t] = Re(C h[t]) + D x[t]``, linear.

    ``a = exp(-exp(nu_log) + i exp(theta_log))`` is stable whatever training does; ``gamma_log`` is
    a parameter that starts where the states of white noise have variance 1. Time O(L d_model
    d_state), state O(d_state).

    Args:
        d_model: width of input and output.
        d_state: complex states.
        r_min: least initial modulus of ``a``.
        r_max: largest initial modulus of ``a``: near 1 for long memory.
        max_phase: largest initial angle of ``a``, radians: small for long sequences.
        bidirectional: read both ways, with a ``C`` for each.

    Raises:
        ValueError: the ring is empty or leaves the unit disc.

    Source: Orvieto et al. 2023, https://arxiv.org/abs/2303.06349, section 3 and appendix A; the
    free ``gamma`` as in https://github.com/NicolasZucchet/minimal-LRU.
    """

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        r_min: float = 0.0,
        r_max: float = 1.0,
        max_phase: float = 6.28,
        bidirectional: bool = False,
    ) -> None:
        if not 0 <= r_min <= r_max <= 1:
            raise ValueError(f"wanted 0 <= r_min <= r_max <= 1, got {r_min} and {r_max}")
        super().__init__(d_model, d_state, bidirectional=bidirectional)
        self.ring, self.max_phase = (r_min, r_max), max_phase
        self.nu_log = time_constant(torch.empty(d_state))
        self.theta_log = time_constant(torch.empty(d_state))
        self.gamma_log = time_constant(torch.empty(d_state))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """``a`` uniform on the ring's area, ``B`` and ``C`` normal as Glorot, ``D`` normal."""
        low, high = self.ring
        # Float64 keeps 1 - |a|^2 apart from zero; the ends themselves have no logarithm.
        inside = torch.rand(self.n_states, dtype=torch.float64).clamp(1e-9, 1 - 1e-9)
        squared = (inside * (high**2 - low**2) + low**2).clamp(max=1 - 1e-9)
        self.nu_log.copy_(torch.log(-0.5 * torch.log(squared)))
        self.gamma_log.copy_(0.5 * torch.log1p(-squared))
        angle = torch.rand(self.n_states, dtype=torch.float64).clamp(min=1e-9) * self.max_phase
        self.theta_log.copy_(angle.log())
        nn.init.normal_(self.B, std=1 / math.sqrt(2 * self.d_model))
        nn.init.normal_(self.C, std=1 / math.sqrt(self.n_states))
        nn.init.normal_(self.D)

    def transition(self) -> tuple[Tensor, Tensor]:
        """``a`` on the ring, and the gain ``exp(gamma_log)``."""
        nu, theta, gamma = (
            at_least_float32(x).exp() for x in (self.nu_log, self.theta_log, self.gamma_log)
        )
        return torch.exp(torch.complex(-nu, theta)), gamma


class LRU(Followed):
    """The LRU's layer without norm and residual: the recurrence, GELU, a gated linear unit.

    Args:
        d_model: width of input and output.
        output: what follows the recurrence, in :data:`tristate.core.parts.pointwise.OUTPUTS`.
        activation: the output's activation.
        dropout: the output's dropout.
        **recurrence: the other arguments of :class:`LinearRecurrence`.

    Source: Orvieto et al. 2023, https://arxiv.org/abs/2303.06349, section 2.
    """

    def __init__(
        self,
        d_model: int,
        *,
        output: str = "glu",
        activation: str = "gelu_tanh",
        dropout: float = 0.0,
        **recurrence: Any,
    ) -> None:
        after = make_output(output, d_model, d_model, activation=activation, dropout=dropout)
        super().__init__(LinearRecurrence(d_model, **recurrence), after)
