"""Tokens from the log energy in learnable frequency bands."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tristate.audio.models.fronts import Front, Holes, Strided, extend, silence, standardise
from tristate.core.arguments import call


class GaborBank(nn.Module):
    """The energy of a waveform in bands whose centres and widths are learnt.

    Each band is a complex Gabor filter, ``exp(-t^2 / 2 s^2 + 2 pi i f t) / (sqrt(2 pi) s)``; the
    square of its modulus is averaged over ``pool`` windows. At first the bands are those of a mel
    spectrogram.

    Args:
        n_bands: number of bands.
        sample_rate: in Hz.
        window: samples that a filter covers; odd.
        stride: samples from one window to the next.
        pool: windows whose energy is averaged.
        f_min: lower edge of the first band at the start, in Hz.
        f_max: upper edge of the last band at the start, in Hz; None for half the sample rate.

    Source: Zeghidour et al. 2021, https://arxiv.org/abs/2101.08596 (LEAF), for learnable Gabor
    filters; Ravanelli & Bengio 2018, https://arxiv.org/abs/1808.00158 (SincNet), for learning the
    bands alone.
    """

    def __init__(
        self,
        n_bands: int,
        sample_rate: int,
        *,
        window: int = 401,
        stride: int = 40,
        pool: int = 4,
        f_min: float = 60.0,
        f_max: float | None = None,
    ) -> None:
        super().__init__()
        f_max = sample_rate / 2 if f_max is None else f_max
        if not 0 < f_min < f_max <= sample_rate / 2:
            raise ValueError(
                f"0 < f_min < f_max <= {sample_rate / 2:g} Hz is wanted, got {f_min} and {f_max}"
            )
        if min(n_bands, stride, pool) < 1 or window < 1 or window % 2 == 0:
            raise ValueError(
                "n_bands, stride and pool must be at least 1 and window odd, "
                f"got {n_bands}, {stride}, {pool} and {window}"
            )
        self.stride, self.pool = stride, pool
        low, high = (2595 * math.log10(1 + f / 700) for f in (f_min, f_max))
        edges = 700 * (10 ** (torch.linspace(low, high, n_bands + 2) / 2595) - 1)
        # Half of a triangle's foot is its width at half height; a Gaussian of that width in energy.
        width = (edges[2:] - edges[:-2]) / 2
        spread = math.sqrt(math.log(2)) / math.pi * sample_rate / width
        # Logarithms: a step of the optimiser is a share of the frequency, in all bands alike.
        self.log_centre = nn.Parameter((edges[1:-1] / sample_rate).log())  # cycles a sample
        self.log_spread = nn.Parameter(spread.log())  # samples
        times = torch.arange(window) - window // 2
        self.register_buffer("times", times.float(), persistent=False)

    def filters(self) -> Tensor:
        """Real parts, then imaginary ones: ``(2 n_bands, 1, window)``."""
        spread = self.log_spread.exp()[:, None]
        times = self.get_buffer("times")
        envelope = (-0.5 * (times / spread).square()).exp() / (math.sqrt(2 * math.pi) * spread)
        # Above half the sample rate a filter would pass an alias.
        phase = 2 * math.pi * self.log_centre.exp().clamp(max=0.5)[:, None] * times
        return torch.cat([envelope * phase.cos(), envelope * phase.sin()])[:, None]

    def forward(self, x: Tensor) -> Tensor:
        """``(B, n_bands, ceil(L / (stride * pool)))`` of waveforms ``(B, 1, L)``."""
        hop = self.stride * self.pool
        # All windows of the last token, so that its energy does not depend on what follows.
        x = F.pad(x, (0, -x.shape[-1] % hop))
        x = extend(x, len(self.get_buffer("times")), self.stride)
        real, imaginary = F.conv1d(x, self.filters(), stride=self.stride).chunk(2, 1)
        return F.avg_pool1d(real.square() + imaginary.square(), self.pool)


class GaborFront(Front):
    """Log energies of learnable bands, and a convolution over them.

    Args:
        in_chans: 1.
        d_model: width of a token.
        sample_rate: in Hz.
        n_bands: number of bands.
        kernel_size: columns of energies that a token sees.
        floor: energy that is added before the logarithm; a full-scale sine has about 0.25.
        holes: arguments of :class:`tristate.audio.models.fronts.Holes`; None for none.
        window: of :class:`GaborBank`, as the following are.
        stride: samples from one window to the next.
        pool: windows whose energy is averaged: a token's stride is ``stride * pool``.
        f_min: lower edge of the first band at the start, in Hz.
        f_max: upper edge of the last band at the start, in Hz.

    Raises:
        ValueError: there is more than one channel, or a number is out of its range.
    """

    def __init__(
        self,
        in_chans: int,
        d_model: int,
        sample_rate: int,
        *,
        n_bands: int = 64,
        kernel_size: int = 3,
        floor: float = 1e-6,
        holes: dict[str, int] | None = None,
        window: int = 401,
        stride: int = 40,
        pool: int = 4,
        f_min: float = 60.0,
        f_max: float | None = None,
    ) -> None:
        super().__init__()
        if in_chans != 1:
            raise ValueError(
                f"the front end gabor takes waveforms, not features of {in_chans} rows"
            )
        self.floor, self.stride = floor, stride * pool
        self.bank = GaborBank(
            n_bands, sample_rate, window=window, stride=stride, pool=pool, f_min=f_min, f_max=f_max
        )
        self.holes = call(Holes, **(holes or {}))
        self.columns = Strided(n_bands, d_model, sample_rate, kernel_size=kernel_size)

    def forward(self, x: Tensor, seq_idx: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Tokens ``(B, M, d_model)`` of waveforms ``(B, 1, L)``, and their ``seq_idx``."""
        if seq_idx is not None:
            x, seq_idx = silence(x, seq_idx), seq_idx[:, :: self.stride]
        x = standardise((self.bank(x) + self.floor).log(), seq_idx)
        return self.columns(self.holes(x), seq_idx)
