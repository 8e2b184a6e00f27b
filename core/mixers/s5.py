"""S5: one state-space model of many inputs and outputs, diagonal, run by a scan."""

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tristate.core import hippo
from tristate.core.mixer import at_least_float32
from tristate.core.parts.diagonal import DiagonalRecurrence
from tristate.core.parts.pointwise import Followed, make_output
from tristate.core.rate import Sampled
from tristate.core.ssm.positive import log_uniform, time_constant

# Standard deviation of a standard normal variable cut off at two.
_CUT = 0.87962566103423978


class S5SSM(DiagonalRecurrence, Sampled):
    """The S5 state-space model, linear: ``h' = A h + B x``, ``y = C h + D x``, sampled with ``dt``.

    ``A`` is diagonal and complex, from the HiPPO-N matrix in ``n_blocks`` blocks; ``B`` and ``C``
    are dense; each state has its own step size. Time O(L d_model d_state), state O(d_state).

    Args:
        d_model: width of input and output.
        d_state: states, conjugates counted.
        n_blocks: blocks of ``A`` at the start, each a HiPPO-N matrix of ``d_state / n_blocks``.
        conjugate: keep one state of each conjugate pair; half the cost, the same model.
        bidirectional: read both ways, with a ``C`` for each.
        discretization: ``"zoh"`` (``a = exp(dt A)``, ``g = (a - 1) / A``) or ``"bilinear"``
            (``a = (1 + dt A / 2) / (1 - dt A / 2)``, ``g = dt / (1 - dt A / 2)``).
        stable: keep the real parts of ``A`` at or below ``-1e-4`` whatever training does.
        C_init: how ``C`` is drawn: ``"trunc_standard_normal"``, ``"lecun_normal"`` or
            ``"complex_normal"``; the first two are turned into the basis of ``A``.
        dt_min: least initial step size.
        dt_max: largest initial step size.
        rate: factor on the step sizes, :class:`tristate.core.rate.Sampled`.

    Raises:
        ValueError: ``d_state`` doesn't fall into such blocks, or a name is unknown.

    Source: Smith et al. 2022, https://arxiv.org/abs/2208.04933; initial values after
    https://github.com/lindermanlab/S5.
    """

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        n_blocks: int = 1,
        conjugate: bool = True,
        bidirectional: bool = False,
        discretization: Literal["zoh", "bilinear"] = "zoh",
        stable: bool = False,
        C_init: str = "trunc_standard_normal",
        dt_min: float = 1e-3,
        dt_max: float = 0.1,
        rate: float = 1.0,
    ) -> None:
        parts = 2 * n_blocks if conjugate else n_blocks
        if d_state < 1 or d_state % parts:
            raise ValueError(
                f"d_state must be a multiple of {parts} for {n_blocks} blocks"
                f"{' of conjugate pairs' if conjugate else ''}, got {d_state}"
            )
        if discretization not in ("zoh", "bilinear"):
            raise ValueError(f"discretization is 'zoh' or 'bilinear', got {discretization!r}")
        if C_init not in ("trunc_standard_normal", "lecun_normal", "complex_normal"):
            raise ValueError(
                "C_init is 'trunc_standard_normal', 'lecun_normal' or 'complex_normal', "
                f"got {C_init!r}"
            )
        n_states = d_state // 2 if conjugate else d_state
        super().__init__(d_model, n_states, bidirectional=bidirectional, conjugate=conjugate)
        self.d_state, self.n_blocks, self.stable = d_state, n_blocks, stable
        self.discretization, self.rate = discretization, rate
        self.C_init, self.dt_range = C_init, (dt_min, dt_max)
        self.A_real = time_constant(torch.empty(n_states))
        self.A_imag = time_constant(torch.empty(n_states))
        self.log_dt = time_constant(torch.empty(n_states))
        self.B = time_constant(self.B.data)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """HiPPO-N in blocks; ``B`` and ``C`` normal, in its basis; ``dt`` log-uniform."""
        size = self.d_state // self.n_blocks
        eigenvalues, vectors = _normal_basis(size)
        kept = size // 2 if self.conjugate else size
        self.A_real.copy_(eigenvalues.real[:kept].repeat(self.n_blocks))
        self.A_imag.copy_(eigenvalues.imag[:kept].repeat(self.n_blocks))
        basis = torch.block_diag(*[vectors[:, :kept]] * self.n_blocks)  # (d_state, n_states)

        B = _truncated_normal((self.d_state, self.d_model), self.d_state)
        self.B.copy_(torch.view_as_real(basis.mH @ B.to(basis.dtype)))
        if self.C_init == "complex_normal":
            nn.init.normal_(self.C, std=math.sqrt(0.5))
        else:
            # The original's second rule takes all of C for one neuron's inputs.
            fan_in = self.d_state * (self.d_model if self.C_init == "lecun_normal" else 1)
            C = _truncated_normal((*self.C.shape[:2], self.d_state, 2), fan_in)
            self.C.copy_(torch.view_as_real(torch.view_as_complex(C) @ basis))
        nn.init.normal_(self.D)
        self.log_dt.copy_(log_uniform(self.log_dt.shape, *self.dt_range).log())

    def transition(self) -> tuple[Tensor, Tensor]:
        """``a`` and ``g``, discretised."""
        real = at_least_float32(self.A_real)
        if self.stable:
            real = real.clamp(max=-1e-4)
        A = torch.complex(real, at_least_float32(self.A_imag))
        dt = self.rate * at_least_float32(self.log_dt).exp()
        if self.discretization == "zoh":
            return torch.exp(dt * A), torch.expm1(dt * A) / A
        below = 1 - dt * A / 2
        return (1 + dt * A / 2) / below, dt / below


class S5(Followed):
    """S5's layer without norm and residual: the state-space model, GELU, a gate.

    Args:
        d_model: width of input and output.
        output: what follows, a name in :data:`tristate.core.parts.pointwise.OUTPUTS`.
        activation: the output's activation.
        dropout: the output's dropout.
        **ssm: the other arguments of :class:`S5SSM`.

    Source: Smith et al. 2022, https://arxiv.org/abs/2208.04933, section 3 and appendix G.
    """

    def __init__(
        self,
        d_model: int,
        *,
        output: str = "half_glu",
        activation: str = "gelu_tanh",
        dropout: float = 0.0,
        **ssm: Any,
    ) -> None:
        after = make_output(output, d_model, d_model, activation=activation, dropout=dropout)
        super().__init__(S5SSM(d_model, **ssm), after)


def _normal_basis(size: int) -> tuple[Tensor, Tensor]:
    """Eigenvalues of HiPPO-N, negative imaginary parts first, and its unitary eigenvectors."""
    normal, _ = hippo.transition("legsd", size)
    decay = normal.diagonal().mean()
    frequencies, vectors = torch.linalg.eigh(-1j * (normal - normal.T) / 2)
    return torch.complex(decay.expand(size), frequencies), vectors


def _truncated_normal(shape: tuple[int, ...], fan_in: int) -> Tensor:
    """Normal of variance ``1 / fan_in`` cut off at two deviations, and rescaled; float64."""
    std = 1 / (_CUT * math.sqrt(fan_in))
    values = torch.empty(shape, dtype=torch.float64)
    return nn.init.trunc_normal_(values, std=std, a=-2 * std, b=2 * std)
