"""Mega's multi-dimensional damped moving average."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tristate.core.mixer import Mixer, at_least_float32, hide_padding, refuse_segments
from tristate.core.parts.past import convolve, keep
from tristate.kernels.linear import linear_scan
from tristate.kernels.longconv import long_conv, two_sided
from tristate.kernels.ssm_kernel import vandermonde, vandermonde_transpose


class EMAState(NamedTuple):
    """The averages."""

    average: Tensor  # (B, d_model, d_state)


class EMAWindow(NamedTuple):
    """The inputs that a truncated average still reaches."""

    inputs: Tensor  # (B, d_model, at most truncation - 1), the newest last


class _Terms(NamedTuple):
    """What the averages are made of, ``(directions * d_model, d_state)``, at least float32."""

    into: Tensor  # weights of the input
    log_decay: Tensor
    out: Tensor  # weights of the averages


class DampedEMA(Mixer):
    """``h[t] = q h[t-1] + p beta x[t]``, ``y = silu(<gamma, h> / sqrt(d_state) + omega x)``.

    Each channel has ``d_state`` exponential averages, all real, with the weights ``p =
    sigmoid(delta)`` and the decays ``q = 1 - p sigmoid(alpha)``: damped, for ``q`` is more than
    ``1 - p``. A sequence is convolved with the kernel ``sum_n gamma p beta q^l``, O(L log L) a
    channel; a state is O(d_state) a channel. Packed sequences run through the recurrence itself,
    whose memory is O(L d_model d_state).

    Args:
        d_model: width of input and output.
        d_state: averages per channel.
        bidirectional: average what is ahead as well, with other weights; both directions have the
            position itself.
        truncation: how many positions back an average reaches; all when absent. A truncated one
            has a window of inputs for its state, and does not pack.

    Source: Ma et al. 2022, https://arxiv.org/abs/2209.10655, section 3.1;
    https://github.com/facebookresearch/mega.
    """

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 16,
        bidirectional: bool = False,
        truncation: int | None = None,
    ) -> None:
        super().__init__()
        if truncation is not None and truncation < 1:
            raise ValueError(f"truncation must be 1 at least, got {truncation}")
        self.d_model, self.d_state, self.truncation = d_model, d_state, truncation
        self.causal, self.packs = not bidirectional, truncation is None
        if bidirectional:
            self.memory = "none"
        elif truncation is not None:
            self.memory = "window"
        shape = (d_model * (1 + bidirectional), d_state)
        self.alpha, self.delta, self.beta, self.gamma = (
            nn.Parameter(torch.empty(shape)) for _ in range(4)
        )
        self.omega = nn.Parameter(torch.empty(d_model))
        for parameter in (self.alpha, self.delta, self.omega):
            parameter._no_weight_decay = True  # pyright: ignore[reportAttributeAccessIssue]
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Decays around 3/4; signs of the averages alternate; the rest normal, as released."""
        nn.init.normal_(self.alpha, std=0.2)
        nn.init.normal_(self.delta, std=0.2)
        nn.init.normal_(self.beta, std=0.02)
        self.beta.add_(1 - 2 * (torch.arange(self.d_state) % 2))
        nn.init.normal_(self.gamma)
        nn.init.normal_(self.omega)

    def kernel(self, length: int) -> Tensor:
        """The averages' weights at lags from 0, ``(directions * d_model, length)`` or truncated."""
        terms = self._terms()
        reach = length if self.truncation is None else min(self.truncation, length)
        return vandermonde(terms.into * terms.out, terms.log_decay, reach)

    def average(self, x: Tensor) -> Tensor:
        """What the averages add to all of ``x (B, d_model, L)``, before ``omega`` and SiLU."""
        kernel = self.kernel(x.shape[2])
        if self.causal:
            return long_conv(x, kernel)
        ahead, back = kernel.chunk(2)
        here = torch.cat([ahead[:, :1] + back[:, :1], ahead[:, 1:]], 1)
        return long_conv(x, two_sided(here, back[:, 1:]), origin=back.shape[1] - 1)

    def forward(self, x: Tensor, *, seq_idx: Tensor | None = None) -> Tensor:
        """Mix ``x (B, L, d_model)``."""
        if seq_idx is None:
            return self._leave(self.average(x.transpose(1, 2)).transpose(1, 2), x)
        if self.causal:
            return self.forward_state(x, seq_idx=seq_idx)[0]
        if not self.packs:
            refuse_segments(self, seq_idx)
        ahead, back = (
            _Terms(*part) for part in zip(*(t.chunk(2) for t in self._terms()), strict=True)
        )
        y = _scan(x, ahead, None, seq_idx)[0] + _scan(x, back, None, seq_idx, reverse=True)[0]
        return hide_padding(self._leave(y, x), seq_idx)

    def forward_state(
        self,
        x: Tensor,
        state: EMAState | EMAWindow | None = None,
        *,
        seq_idx: Tensor | None = None,
    ) -> tuple[Tensor, EMAState | EMAWindow]:
        """Mix ``x`` from ``state`` on."""
        if not self.causal:
            return super().forward_state(x, state, seq_idx=seq_idx)
        columns = x.transpose(1, 2)
        if self.truncation is not None:
            refuse_segments(self, seq_idx)
            past = None if state is None else state.inputs  # pyright: ignore[reportAttributeAccessIssue]
            y = convolve(columns, self.kernel(self.truncation), None, past)
            kept = keep(columns, past, self.truncation - 1)
            return self._leave(y.transpose(1, 2), x), EMAWindow(kept)
        before = None if state is None else state.average  # pyright: ignore[reportAttributeAccessIssue]
        terms = self._terms()
        if seq_idx is not None:
            y, last = _scan(x, terms, before, seq_idx)
            return hide_padding(self._leave(y, x), seq_idx), EMAState(last)
        if before is not None and x.shape[1] == 1:
            y, last = self.step(x[:, 0], EMAState(before))
            return y[:, None], last
        y = self.average(columns)
        last = terms.into * vandermonde_transpose(columns.flip(2), terms.log_decay)
        if before is not None:
            length, decay = x.shape[1], terms.log_decay
            carried = terms.out * before * decay.exp()
            y = y + vandermonde(carried, decay, length).to(y.dtype)
            last = last + before * torch.exp(decay * length)
        return self._leave(y.transpose(1, 2), x), EMAState(last)

    def step(self, x: Tensor, state: EMAState | EMAWindow) -> tuple[Tensor, EMAState | EMAWindow]:
        """Mix one position, ``(B, d_model)``."""
        if not self.causal or not isinstance(state, EMAState):
            return super().step(x, state)
        terms = self._terms()
        h = terms.log_decay.exp() * state.average + terms.into * at_least_float32(x)[..., None]
        return self._leave((terms.out * h).sum(-1).to(x.dtype), x), EMAState(h)

    def init_state(
        self,
        batch_size: int,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> EMAState | EMAWindow:
        """Zeros; of a truncated one, no inputs yet."""
        if not self.causal:
            return super().init_state(batch_size)
        wide = torch.promote_types(dtype or self.omega.dtype, torch.float32)
        last = self.d_state if self.truncation is None else 0
        zeros = torch.zeros(
            batch_size, self.d_model, last, device=device or self.omega.device, dtype=wide
        )
        return EMAState(zeros) if self.truncation is None else EMAWindow(zeros)

    def _terms(self) -> _Terms:
        alpha, delta, beta, gamma = (
            at_least_float32(x) for x in (self.alpha, self.delta, self.beta, self.gamma)
        )
        p = delta.sigmoid()
        # Where both are 1 in this precision, the average is the input: its decay has no logarithm.
        damped = (p * alpha.sigmoid()).clamp(max=1 - 1e-6)
        return _Terms(p * beta, torch.log1p(-damped), gamma / math.sqrt(self.d_state))

    def _leave(self, y: Tensor, x: Tensor) -> Tensor:
        """``silu(y + omega x)``, in the dtype of ``x``."""
        return F.silu(y + self.omega.to(y.dtype) * x).to(x.dtype)


def _scan(
    x: Tensor, terms: _Terms, before: Tensor | None, seq_idx: Tensor, reverse: bool = False
) -> tuple[Tensor, Tensor]:
    """What the averages add to ``x (B, L, D)``, and the last ones ``(B, D, N)``: by recurrence."""
    driven = terms.into * at_least_float32(x)[..., None]
    h, last = linear_scan(
        terms.log_decay.exp().flatten(),
        driven.flatten(2),
        initial_state=None if before is None else before.flatten(1),
        seq_idx=seq_idx,
        reverse=reverse,
    )
    shape = terms.into.shape
    return (h.unflatten(2, shape) * terms.out).sum(-1).to(x.dtype), last.unflatten(1, shape)
