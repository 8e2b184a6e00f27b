"""Liquid-S4: a state-space layer that also hears products of its last inputs."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tristate.core.arguments import call
from tristate.core.mixer import Mixer, at_least_float32, refuse_segments
from tristate.core.parts.memo import Memo
from tristate.core.parts.pointwise import make_output
from tristate.core.ssm.recurrence import Recurrence
from tristate.core.ssm.table import SSMS
from tristate.kernels.registry import nearest


class LiquidState(NamedTuple):
    """What the layer remembers: the inputs that the next products need, and the states."""

    inputs: Tensor  # (B, d_model, degree - 1)
    scan: Tensor  # (B, d_model, d_state / 2), complex


class Weights(NamedTuple):
    """Weights ``(d_model,)`` of the products of each degree from 2 on, of either kind or none."""

    driven: list[Tensor]  # of what enters the state-space model
    added: list[Tensor]  # of what is added to its output


def _kernel_times_b(model: Recurrence, degree: int) -> Weights:
    """KB: products go through the kernel, times ``sum(B)`` for each factor beyond the first."""
    total = _sum(model.b)
    return Weights([total ** (p - 1) for p in range(2, degree + 1)], [])


def _powers_of_b(model: Recurrence, degree: int) -> Weights:
    """PB: the transition is taken for the identity, and only the products themselves count."""
    total, first = _sum(model.b), _sum(model.c[0] * model.b)
    return Weights([], [first * total ** (p - 1) for p in range(2, degree + 1)])


def _sum(x: Tensor) -> Tensor:
    """``(H,)``: the sum over all states, of which ``x (H, N)`` has one of each conjugate pair."""
    return 2 * x.sum(-1).real


LIQUID = {"kb": _kernel_times_b, "pb": _powers_of_b}


class LiquidS4(Mixer):
    """A linearised liquid time-constant network: ``x' = (A + B u) x + B u``, ``y = C x``.

    Unrolled, its output is a state-space model's plus terms in products of two and more inputs. Of
    these the ones of adjacent inputs are kept, ``u_p[t] = u[t] u[t-1] ... u[t-p+1]``, up to a
    degree, and with the discretised ``A``, ``B``, ``C`` of the linear part, with its kernel ``K``
    and with ``|B|`` the sum of ``B`` over the states:

    - KB: ``y = K * (u + sum_p |B|^(p-1) u_p) + D u``;
    - PB: ``y = K * u + sum_p (C B) |B|^(p-1) u_p + D u``, with ``A`` taken for the identity.

    Then follow activation and gate, as in S4. No parameters beside S4's; time O(L (log L + d_state)
    + degree L) a channel, state O(d_state + degree).

    The published code is not this: it reverses the products in time, takes them from the end of the
    sequence, weighs them by the initial parameters, and multiplies spectra of unequal frequencies.
    :mod:`tristate.core.originals.liquid_s4` computes what it computes. This is the paper's model,
    causal and with a state.

    Args:
        d_model: width of input and output.
        degree: most inputs of a product, at least 2.
        liquid: ``"kb"`` or ``"pb"``.
        d_state: states of the linear part.
        ssm: the linear part, a name in :data:`tristate.core.ssm.table.SSMS`.
        activation: behind the sum; a name in :data:`tristate.core.activation.ACTIVATIONS`.
        output: what follows, a name in :data:`tristate.core.parts.pointwise.OUTPUTS`.
        dropout: rate, behind the activation and at the end.
        **kernel: the other arguments of the linear part.

    Raises:
        ValueError: an argument is out of range or unknown.

    Source: Hasani et al. 2022, https://arxiv.org/abs/2209.12951, section 3.
    """

    def __init__(
        self,
        d_model: int,
        *,
        degree: int = 2,
        liquid: str = "pb",
        d_state: int = 64,
        ssm: str = "low_rank",
        activation: str = "gelu",
        output: str = "glu",
        dropout: float = 0.0,
        **kernel: Any,
    ) -> None:
        super().__init__()
        if degree < 2:
            raise ValueError(f"degree must be at least 2, got {degree}")
        if liquid not in LIQUID:
            raise ValueError(f"unknown liquid kernel {liquid!r}; {nearest(liquid, LIQUID)}")
        self.d_model, self.degree = d_model, degree
        self._weights = LIQUID[liquid]
        self._memo: Memo[Weights] = Memo()
        self.ssm = call(SSMS[ssm], d_model, d_state=d_state, **kernel)
        self.D = nn.Parameter(torch.randn(d_model))
        self.output = make_output(output, d_model, d_model, activation=activation, dropout=dropout)

    def forward_state(
        self, x: Tensor, state: LiquidState | None = None, *, seq_idx: Tensor | None = None
    ) -> tuple[Tensor, LiquidState]:
        """Mix ``x (B, L, d_model)`` from ``state`` on."""
        refuse_segments(self, seq_idx)
        state = state if state is not None else self.init_state(len(x), device=x.device)
        model = self.ssm.recurrence()
        driven, added = self._weights(model, self.degree)
        u = at_least_float32(x).transpose(1, 2)
        seen = torch.cat([state.inputs.to(u.dtype), u], 2)
        products = self._products(seen, u.shape[2])
        y, scan = model.run(_plus(u, products, driven), state.scan)
        y = _plus(y[:, 0] + at_least_float32(self.D)[:, None] * u, products, added)
        inputs = seen[..., seen.shape[2] - self.degree + 1 :]
        return self.output(y.transpose(1, 2).to(x.dtype)), LiquidState(inputs, scan)

    def step(self, x: Tensor, state: LiquidState) -> tuple[Tensor, LiquidState]:
        """Mix one position, ``(B, d_model)``."""
        tensors = [*self.ssm.parameters(), *self.ssm.buffers()]
        driven, added = self._memo(
            tensors, self.ssm.rate, lambda: self._weights(self.ssm.recurrence(), self.degree)
        )
        u = at_least_float32(x)[..., None]
        seen = torch.cat([state.inputs.to(u.dtype), u], 2)
        products = self._products(seen, 1)
        y, scan = self.ssm.step(_plus(u, products, driven)[..., 0], state.scan)
        y = _plus(y[:, 0, :, None] + at_least_float32(self.D)[:, None] * u, products, added)
        return self.output(y.transpose(1, 2).to(x.dtype))[:, 0], LiquidState(seen[..., 1:], scan)

    def init_state(
        self,
        batch_size: int,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> LiquidState:
        """Zeros."""
        scan = self.ssm.init_state(batch_size, device=device, dtype=dtype)
        inputs = torch.zeros(
            (batch_size, self.d_model, self.degree - 1), device=scan.device, dtype=scan.real.dtype
        )
        return LiquidState(inputs, scan)

    def _products(self, seen: Tensor, length: int) -> list[Tensor]:
        """Of each degree from 2 on the products that end at the last ``length`` positions."""
        end = seen.shape[2]
        product, products = seen[..., end - length :], []
        for lag in range(1, self.degree):
            product = product * seen[..., end - length - lag : end - lag]
            products.append(product)
        return products


def _plus(x: Tensor, products: list[Tensor], weights: list[Tensor]) -> Tensor:
    """``x + sum w u`` over the weights there are, ``(B, H, L)``."""
    for product, weight in zip(products, weights, strict=False):
        x = x + weight[:, None] * product
    return x
