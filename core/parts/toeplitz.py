"""TNN's Toeplitz operator: a long convolution whose taps a small network makes of their lags."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tristate.core.activation import activation_named
from tristate.core.mixer import at_least_float32
from tristate.core.parts.memo import Memo
from tristate.core.parts.past import convolve
from tristate.core.parts.wide import wide_linear
from tristate.kernels.longconv import long_conv


class SimpleRMSNorm(nn.Module):
    """``x / (rms(x) + eps)``, with a weight per channel where ``affine``; TNN's norm.

    Args:
        d_model: width.
        affine: multiply by a learnt weight.
        eps: added to the root of the mean square, not to the mean square.

    Source: Qin et al. 2023, https://arxiv.org/abs/2305.04749.
    """

    def __init__(self, d_model: int, *, affine: bool = False, eps: float = 1e-8) -> None:
        super().__init__()
        self.eps, self.scale = eps, d_model**-0.5
        self.weight = nn.Parameter(torch.ones(d_model)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x (..., d_model)``."""
        wide = at_least_float32(x)
        y = wide / (wide.norm(dim=-1, keepdim=True) * self.scale + self.eps)
        y = y if self.weight is None else y * self.weight
        return y.to(x.dtype)


class LagNetwork(nn.Module):
    """A number for each channel made of a lag: linear, then ``[norm, activation, linear]`` times.

    Args:
        n_channels: width of the output.
        d_hidden: width between.
        n_hidden: layers between the first and the last.
        residual: add each layer between to its input.
        lag_activation: a name in :data:`tristate.core.activation.ACTIVATIONS`.
        lag_bias: biases of the linear maps.
        lag_norm: makes a norm of a width.

    Source: Qin et al. 2023, https://arxiv.org/abs/2305.04749, section 3.2 ("relative position
    encoder").
    """

    def __init__(
        self,
        n_channels: int,
        *,
        d_hidden: int = 64,
        n_hidden: int = 3,
        residual: bool = False,
        lag_activation: str = "relu",
        lag_bias: bool = True,
        lag_norm: Callable[[int], nn.Module] = SimpleRMSNorm,
    ) -> None:
        super().__init__()
        self.residual, self.activation = residual, activation_named(lag_activation)
        widths = [1, *[d_hidden] * (n_hidden + 1), n_channels]
        self.layers = nn.ModuleList(
            nn.Linear(before, after, bias=lag_bias)
            for before, after in zip(widths[:-1], widths[1:], strict=True)
        )
        self.norms = nn.ModuleList(lag_norm(d_hidden) for _ in range(n_hidden + 1))

    def forward(self, lags: Tensor) -> Tensor:
        """``(L,)`` to ``(L, n_channels)``, at least float32."""
        x = wide_linear(lags[:, None], self.layers[0])
        last = len(self.norms) - 1
        for i, norm in enumerate(self.norms):
            y = wide_linear(self.activation(norm(x)), self.layers[i + 1])
            x = x + y if self.residual and i < last else y
        return x


class Toeplitz(nn.Module):
    """``y[t] = sum_s a[t - s] x[s]`` with ``a[k] = f(network(k) * decay^|k|)``, per channel.

    The network is :class:`LagNetwork`; decay lets it work on longer sequences than it has seen.
    Time O(L log L) a channel and O(L d_hidden (d_hidden n_hidden + n_channels)) for the taps;
    parameters without the ``L``.

    Args:
        n_channels: channels.
        bidirectional: lags of both signs; else the operator is causal.
        decay: per position; None for none.
        learn_decay: one decay for each channel, learnt, between ``decay`` and 1.
        lags: what the network is told of a lag: ``"index"``, itself; ``"fraction"``, its part of
            the largest one; ``"exponential"``, the exponential of that. With the last two the taps
            depend on the sequence's length: then there are no pieces and no steps.
        normalize: divide by the sum of the taps that weighed an output.
        tap_activation: ``f``, a name in :data:`tristate.core.activation.ACTIVATIONS`.
        **network: the arguments of :class:`LagNetwork`.

    Raises:
        ValueError: ``lags`` is unknown, or these don't go together.

    Source: Qin et al. 2023, https://arxiv.org/abs/2305.04749, sections 3.1 to 3.3;
    https://github.com/OpenNLPLab/Tnn.
    """

    def __init__(
        self,
        n_channels: int,
        *,
        bidirectional: bool = False,
        decay: float | None = 0.99,
        learn_decay: bool = False,
        lags: Literal["index", "fraction", "exponential"] = "index",
        normalize: bool = False,
        tap_activation: str = "none",
        **network: Any,
    ) -> None:
        super().__init__()
        if lags not in ("index", "fraction", "exponential"):
            raise ValueError(f"lags are 'index', 'fraction' or 'exponential', got {lags!r}")
        if lags == "exponential" and bidirectional:
            raise ValueError("exponential lags are for causal operators")
        if learn_decay and decay is None:
            raise ValueError("learn_decay wants a decay, the least one")
        self.bidirectional, self.lags, self.normalize = bidirectional, lags, normalize
        self.tap_activation = activation_named(tap_activation)
        self.network = LagNetwork(n_channels, **network)
        self.least_decay, self.learn_decay = decay, learn_decay
        self.decay: Tensor | None
        if learn_decay:
            self.decay = nn.Parameter(torch.randn(n_channels))
        elif decay is not None:
            self.register_buffer("decay", torch.full((n_channels,), decay))
        else:
            self.decay = None
        self._memo: Memo[Tensor] = Memo()

    @property
    def depends_on_length(self) -> bool:
        """Whether the taps are others for another length of the sequence."""
        return self.lags != "index"

    def taps(self, length: int) -> Tensor:
        """``(n_channels, length)``, or with lags ``1 - length`` to ``length - 1`` if two-sided."""
        weight = next(self.network.parameters())
        dtype = torch.promote_types(weight.dtype, torch.float32)
        first = 1 - length if self.bidirectional else 0
        lags = torch.arange(first, length, device=weight.device)
        # Of single precision whatever the weights are, as the original's.
        told = lags.float()
        if self.depends_on_length:
            told = told / max(1, length - 1)
        if self.lags == "exponential":
            told = told.exp()
        taps = self.network(told.to(dtype))
        if self.decay is not None:
            taps = taps * self._decay(dtype) ** lags.abs()[:, None]
        if self.normalize and self.tap_activation is torch.exp:
            # A factor on all taps is divided out again: none need overflow.
            taps = taps - taps.amax(0)
        return self.tap_activation(taps).T

    def forward(self, x: Tensor) -> Tensor:
        """All of ``x (B, n_channels, L)`` at once."""
        length = x.shape[2]
        taps = self.taps(length)
        y = long_conv(x, taps, origin=length - 1 if self.bidirectional else 0)
        if self.normalize:
            total = taps.cumsum(1)
            if self.bidirectional:
                # The output at t weighs lags from t - length + 1 to t.
                total = F.pad(total, (1, 0))
                total = total[:, length:] - total[:, :length]
            y = y / total.to(y.dtype)
        return y

    def after(self, x: Tensor, past: Tensor | None) -> Tensor:
        """``x (B, n_channels, L)`` after ``past (B, n_channels, T)``; for causal ones, by index."""
        seen = x.shape[2] + (0 if past is None else past.shape[2])
        # Twice as many each time: a step seldom needs more than the last one did.
        room = 1 << (seen - 1).bit_length()
        tensors = [*self.parameters(), *self.buffers()]
        taps = self._memo(tensors, room, lambda: self.taps(room)) if _alone(x) else self.taps(seen)
        taps = taps[:, :seen]
        y = convolve(x, taps, None, past)
        if self.normalize:
            y = y / taps.cumsum(1)[:, -x.shape[2] :].to(y.dtype)
        return y

    def _decay(self, dtype: torch.dtype) -> Tensor:
        assert self.decay is not None
        decay = self.decay.to(dtype)
        if not self.learn_decay:
            return decay
        assert self.least_decay is not None
        return self.least_decay + (1 - self.least_decay) * decay.sigmoid()


def _alone(x: Tensor) -> bool:
    """One position, without a gradient: the taps needn't be computed for it."""
    return x.shape[2] == 1 and not torch.is_grad_enabled()
