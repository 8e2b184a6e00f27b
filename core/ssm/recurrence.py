"""A state-space model of one step: what all time-invariant mixers run as."""

from typing import NamedTuple

import torch
from torch import Tensor

from tristate.core.ssm.resolvent import cut_responses, powered
from tristate.kernels.longconv import long_conv
from tristate.kernels.ssm_kernel import vandermonde, vandermonde_transpose


class Recurrence(NamedTuple):
    """``H`` channels of ``N`` states each, with one input and ``C`` outputs.

    ::

        h[t] = (diag(exp(log_a)) - u v*) h[t-1] + b x[t]        y[t] = c h[t]

    Where the tensors are complex, each state stands for itself and its conjugate: ``c h`` is ``2 Re
    sum_n c h`` and ``v* h`` is ``2 Re sum_n conj(v) h``; of a full set of states, hand in half of
    ``c``. Where they are real, each stands for itself.

    It runs as a convolution (:meth:`kernel`, :meth:`run`) or step by step (:meth:`step`). The
    kernel of a diagonal model is a Vandermonde sum: time ``O(C N L)`` a channel. With a correction
    it is made of Cauchy sums at roots of unity, of an order of at least the length, so that nothing
    wraps around: time ``O(C N L + N^3 log L)``. Memory is ``O(C L + N)`` a channel, gradients
    included.

    Source: Gu et al. 2022 (S4D), https://arxiv.org/abs/2206.11893, section 3.3; Gu et al. 2022
    (S4), https://arxiv.org/abs/2111.00396, section 3.2.
    """

    log_a: Tensor  # (H, N)
    b: Tensor  # (H, N)
    c: Tensor  # (C, H, N)
    u: Tensor | None = None  # (R, H, N)
    v: Tensor | None = None  # (R, H, N)

    def kernel(self, length: int) -> Tensor:
        """Response of each output to a unit input, ``(C, H, L)``."""
        return self._responses(self.c, self.b[None], length)[0]

    def run(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Outputs ``(B, C, H, L)`` for ``x (B, H, L)`` after ``state``, and the last state.

        Both states are ``(B, H, N)``; none is zeros. Of a sequence cut in pieces the outputs are
        those of the whole.

        With a correction the last state is the diagonal model's with ``f[t] = v* h[t-1]`` fed back
        to it: in float32 its gradients lose digits where thousands of steps make it.
        """
        length, n_outputs = x.shape[-1], len(self.c)
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        # What is fed back is one output more for each rank.
        outputs = self.c if self.v is None else torch.cat([self.c, self.v.conj()])
        starts = self.b[None]
        if state is not None:
            starts = torch.cat([starts, self.stepper().advance(state)])
        rows = self._responses(outputs, starts, length)
        y = long_conv(x, rows[0])
        last = self.b * vandermonde_transpose(x.flip(-1), self.log_a)
        if state is not None:
            y = y + rows[1:]
            last = last + torch.exp(self.log_a * length) * state
        y, read = y[:, :n_outputs], y[:, n_outputs:]
        if self.u is not None and self.v is not None:
            before = read.new_zeros(*read.shape[:-1], 1)
            if state is not None:
                before = _read(self.v.conj(), state)[..., None]
            fed_back = torch.cat([before, read[..., :-1]], -1)
            echo = vandermonde_transpose(fed_back.flip(-1), self.log_a)  # (B, R, H, N)
            last = last - (self.u * echo).sum(1)
        return y, last

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs ``(B, C, H)`` for one position ``x (B, H)``, and the next state; ``O(N)``."""
        return self.stepper().step(x, state)

    def stepper(self) -> "Stepper":
        """The same model, ready to run step by step."""
        return Stepper(torch.exp(self.log_a), *self[1:])

    def read(self, state: Tensor) -> Tensor:
        """What the outputs ``(B, C, H)`` are at a state ``(B, H, N)``."""
        return _read(self.c, state)

    def _responses(self, outputs: Tensor, starts: Tensor, length: int) -> Tensor:
        """What outputs ``(O, H, N)`` read after starts ``(K, H, N)``: ``(K, O, H, L)``."""
        if self.u is None or self.v is None:
            return vandermonde(outputs * starts[:, None], self.log_a, length)
        model, order = (self.log_a, self.u, self.v), _order(length)
        cut = outputs - powered(*model, outputs, order)
        return cut_responses(*model, cut, starts, order)[..., :length]


class Stepper(NamedTuple):
    """A :class:`Recurrence` whose powers are taken: what generation keeps from step to step."""

    a: Tensor  # (H, N)
    b: Tensor  # (H, N)
    c: Tensor  # (C, H, N)
    u: Tensor | None = None  # (R, H, N)
    v: Tensor | None = None  # (R, H, N)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs ``(B, C, H)`` for one position ``x (B, H)``, and the next state; ``O(N)``."""
        after = self.advance(state) + self.b * x[..., None]
        return _read(self.c, after), after

    def advance(self, state: Tensor) -> Tensor:
        """The next state where there is no input, ``(B, H, N)``."""
        after = self.a * state
        if self.u is not None and self.v is not None:
            fed_back = _read(self.v.conj(), state)  # (B, R, H)
            after = after - (self.u * fed_back[..., None]).sum(1)
        return after


def _read(rows: Tensor, state: Tensor) -> Tensor:
    """``(B, C, H)``: rows ``(C, H, N)`` times the state ``(B, H, N)``."""
    y = (rows * state[:, None]).sum(-1)
    return 2 * y.real if y.is_complex() else y


def _order(length: int) -> int:
    """The next odd number without large factors: no root is -1, and transforms are fast."""
    order = length + 1 - length % 2
    while True:
        rest = order
        for factor in (3, 5, 7):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return order
        order += 2
