"""Long convolution: a filter as long as the sequence, learnt tap by tap, kept sparse."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tristate.core.mixer import Mixer, at_least_float32, refuse_segments
from tristate.core.parts.past import convolve, keep
from tristate.core.parts.pointwise import make_output
from tristate.kernels.longconv import long_conv, two_sided


class LongConvState(NamedTuple):
    """The inputs that the filter still reaches."""

    inputs: Tensor  # (B, d_model, at most max_length - 1), the newest last


class LongFilter(nn.Module):
    """``max_length`` free taps for each channel, smoothed and squashed.

    ``squash(k) = sign(k) max(|k| - shrink, 0)`` zeroes small taps; smoothing averages neighbours
    before, in time or in frequency. Both make a filter with as many taps as positions generalise.

    Args:
        n_filters: filters per channel.
        d_model: channels.
        max_length: taps.
        shrink: how much the squash takes off each tap.
        smooth: width of the smoothing window, odd in time; 0 for none.
        smooth_in: ``"time"``, a moving average; ``"frequency"``, a bell over the spectrum, which
            weighs taps down the later they are.
        init: ``"random"``, small normal taps, or ``"double_exp"``, larger ones that fade, at paces
            that grow with the channel.
        dropout: rate on the taps.

    Raises:
        ValueError: a name is unknown, or the window is even in time.

    Source: Fu et al. 2023, https://arxiv.org/abs/2302.06646, section 3.
    """

    def __init__(
        self,
        n_filters: int,
        d_model: int,
        max_length: int,
        *,
        shrink: float = 1e-3,
        smooth: int = 0,
        smooth_in: Literal["time", "frequency"] = "time",
        init: Literal["random", "double_exp"] = "double_exp",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if smooth_in not in ("time", "frequency") or init not in ("random", "double_exp"):
            raise ValueError(
                "wanted smooth_in 'time' or 'frequency' and init 'random' or 'double_exp', "
                f"got {smooth_in!r} and {init!r}"
            )
        if smooth < 0 or (smooth and smooth % 2 == 0 and smooth_in == "time"):
            raise ValueError(f"a window in time has an odd width, got smooth={smooth}")
        self.shrink, self.smooth, self.smooth_in, self.init = shrink, smooth, smooth_in, init
        self.taps = nn.Parameter(torch.empty(n_filters, d_model, max_length))
        self.taps._no_weight_decay = True  # pyright: ignore[reportAttributeAccessIssue]
        self.dropout = nn.Dropout(dropout)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Normal taps; see ``init``."""
        if self.init == "random":
            nn.init.normal_(self.taps, std=0.002)
            return
        nn.init.normal_(self.taps, std=0.02)
        _, d_model, length = self.taps.shape
        pace = float(d_model // 2) ** (torch.arange(d_model) / d_model)
        self.taps.mul_(torch.exp(-pace[:, None] * torch.arange(length) / length))

    def forward(self) -> Tensor:
        """The taps, ``(n_filters, d_model, max_length)``, at least float32."""
        taps = at_least_float32(self.taps)
        if self.smooth and self.smooth_in == "time":
            taps = F.avg_pool1d(taps, self.smooth, stride=1, padding=self.smooth // 2)
        elif self.smooth:
            taps = self._smooth_spectrum(taps)
        return self.dropout(F.softshrink(taps, self.shrink))

    def _smooth_spectrum(self, taps: Tensor) -> Tensor:
        around = torch.arange(self.smooth, device=taps.device) - self.smooth // 2
        bell = torch.exp(-0.5 * around.to(taps.dtype) ** 2).expand(taps.shape[1], 1, -1)
        parts = torch.view_as_real(torch.fft.rfft(taps)).unbind(-1)
        smoothed = [F.conv1d(p, bell, padding="same", groups=taps.shape[1]) for p in parts]
        return torch.fft.irfft(torch.complex(*smoothed))


class LongConv(Mixer):
    """``output(k * x + D x)``: a long convolution per channel, activation, gated projection.

    Time O(n_filters d_model L log L); parameters O(n_filters d_model max_length). What is
    ``max_length`` or more positions back is not seen. A step costs O(max_length) per channel.

    Args:
        d_model: width of input and output.
        max_length: taps.
        n_filters: filters per channel; their outputs are projected back to ``d_model``.
        bidirectional: as many taps ahead as back.
        output: what follows the convolution, in :data:`tristate.core.parts.pointwise.OUTPUTS`.
        activation: the output's activation.
        dropout: the output's dropout.
        shrink: see :class:`LongFilter`, also for the others.
        smooth: width of the smoothing window; 0 for none.
        smooth_in: ``"time"`` or ``"frequency"``.
        init: ``"random"`` or ``"double_exp"``.
        kernel_dropout: rate on the taps.

    Source: Fu et al. 2023, https://arxiv.org/abs/2302.06646;
    https://github.com/HazyResearch/safari.
    """

    def __init__(
        self,
        d_model: int,
        *,
        max_length: int = 1024,
        n_filters: int = 1,
        bidirectional: bool = False,
        output: str = "glu",
        activation: str = "gelu",
        dropout: float = 0.0,
        shrink: float = 1e-3,
        smooth: int = 0,
        smooth_in: Literal["time", "frequency"] = "time",
        init: Literal["random", "double_exp"] = "double_exp",
        kernel_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.d_model, self.max_length = d_model, max_length
        self.causal = not bidirectional
        self.memory = "none" if bidirectional else "window"
        self.filter = LongFilter(
            n_filters * (1 + bidirectional),
            d_model,
            max_length,
            shrink=shrink,
            smooth=smooth,
            smooth_in=smooth_in,
            init=init,
            dropout=kernel_dropout,
        )
        self.D = nn.Parameter(torch.randn(n_filters, d_model))
        self.D._no_weight_decay = True  # pyright: ignore[reportAttributeAccessIssue]
        self.output = make_output(
            output, n_filters * d_model, d_model, activation=activation, dropout=dropout
        )

    def forward(self, x: Tensor, *, seq_idx: Tensor | None = None) -> Tensor:
        """Mix ``x (B, L, d_model)``."""
        if self.causal:
            return self.forward_state(x, seq_idx=seq_idx)[0]
        refuse_segments(self, seq_idx)
        ahead, back = self.filter().chunk(2)
        taps = two_sided(ahead, back)
        return self._leave(long_conv(x.transpose(1, 2), taps, self.D, origin=self.max_length))

    def forward_state(
        self, x: Tensor, state: LongConvState | None = None, *, seq_idx: Tensor | None = None
    ) -> tuple[Tensor, LongConvState]:
        """Mix ``x`` from ``state`` on."""
        if not self.causal:
            return super().forward_state(x, state, seq_idx=seq_idx)
        refuse_segments(self, seq_idx)
        past, x = (None if state is None else state.inputs), x.transpose(1, 2)
        y = convolve(x, self.filter(), self.D, past)
        return self._leave(y), LongConvState(keep(x, past, self.max_length - 1))

    def init_state(
        self,
        batch_size: int,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> LongConvState:
        """No inputs yet."""
        if not self.causal:
            return super().init_state(batch_size)
        wide = torch.promote_types(dtype or self.D.dtype, torch.float32)
        shape = (batch_size, self.d_model, 0)
        return LongConvState(torch.zeros(shape, device=device or self.D.device, dtype=wide))

    def _leave(self, y: Tensor) -> Tensor:
        """``(B, n_filters, d_model, L)`` to ``(B, L, d_model)``."""
        return self.output(y.flatten(1, 2).transpose(1, 2))
