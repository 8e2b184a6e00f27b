"""What is done to a clip: augmentation of its waveform, features, augmentation of these.

A transform takes one clip, ``(L,)`` or ``(F, T)``, and a generator from which all that is random
comes, so that equal generators give equal results. Without a generator nothing is changed at
random.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torchaudio import transforms as ta

from tristate.audio.data.decode import resample
from tristate.core.seeds import seeded


class Transform:
    """Changes one clip.

    Attributes:
        sample_rate: the rate in Hz of the waveforms that it takes; None for any.
        n_features: rows of what it makes of a waveform; None where it leaves the kind as it is.
        hop_length: samples from one column to the next, where it makes features.
    """

    sample_rate: int | None = None
    n_features: int | None = None
    hop_length: int = 1

    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The changed clip; ``x`` itself is left as it is."""
        raise NotImplementedError


class Chain(Transform):
    """One transform after another.

    Args:
        transforms: in the order in which they are done.
    """

    def __init__(self, transforms: list[Transform]) -> None:
        self.transforms = list(transforms)
        for step in self.transforms:
            if step.sample_rate is not None:
                self.sample_rate = step.sample_rate
            if step.n_features is not None:
                self.n_features, self.hop_length = step.n_features, step.hop_length

    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """All of them."""
        for step in self.transforms:
            x = step(x, generator)
        return x


class Fit(Transform):
    """Cuts a clip to ``length``, or fills it up with zeros at its end.

    Args:
        length: samples of a waveform, columns of features.
        place: which part is kept of a longer clip: ``random`` is the middle one without a
            generator.
    """

    def __init__(self, length: int, place: Literal["random", "start", "middle"] = "random") -> None:
        if length < 1 or place not in ("random", "start", "middle"):
            raise ValueError(
                "length must be at least 1 and place random, start or middle, "
                f"got {length} and {place!r}"
            )
        self.length, self.place = length, place

    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """``(..., length)``."""
        spare = x.shape[-1] - self.length
        if spare <= 0:
            return F.pad(x, (0, -spare))
        first = {"start": 0, "middle": spare // 2}.get(self.place)
        if first is None:
            first = _whole(0, spare, generator) if generator else spare // 2
        return x[..., first : first + self.length]


class Pad(Transform):
    """Puts zeros before and after a clip.

    Args:
        before: samples or columns.
        after: samples or columns.
    """

    def __init__(self, before: int = 0, after: int = 0) -> None:
        if before < 0 or after < 0:
            raise ValueError(f"before and after must be at least 0, got {before} and {after}")
        self.before, self.after = before, after

    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The longer clip."""
        return F.pad(x, (self.before, self.after))


class Shift(Transform):
    """Moves a clip in time and keeps its length; what comes in is zero.

    Args:
        most: the largest move in either direction, in samples or columns.
    """

    def __init__(self, most: int) -> None:
        if most < 0:
            raise ValueError(f"most must be at least 0, got {most}")
        self.most = most

    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The moved clip."""
        if generator is None:
            return x
        by = _whole(-self.most, self.most, generator)
        # A negative pad cuts.
        return F.pad(x, (by, -by))


class Gain(Transform):
    """Makes a waveform louder or softer.

    Args:
        most: the largest change in either direction, in dB.
    """

    def __init__(self, most: float) -> None:
        if most < 0:
            raise ValueError(f"most must be at least 0 dB, got {most}")
        self.most = most

    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The scaled waveform."""
        if generator is None:
            return x
        return x * 10 ** (_real(-self.most, self.most, generator) / 20)


class Speed(Transform):
    """Plays a waveform faster or slower, pitch included, in whole percents.

    Args:
        percent: the largest change in either direction.

    Source: Ko et al. 2015, https://www.isca-archive.org/interspeech_2015/ko15_interspeech.html.
    """

    def __init__(self, percent: int) -> None:
        if not 0 <= percent < 100:
            raise ValueError(f"percent must be in [0, 100), got {percent}")
        self.percent = percent

    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """``(ceil(L / speed),)``."""
        if generator is None:
            return x
        # Whole percents, because each speed needs a filter bank of its own.
        return resample(x, 100 + _whole(-self.percent, self.percent, generator), 100)


class Noise(Transform):
    """Adds white noise, at a signal-to-noise ratio drawn evenly from a range.

    Args:
        low: the smallest ratio, in dB.
        high: the largest ratio, in dB.
    """

    def __init__(self, low: float, high: float) -> None:
        if low > high:
            raise ValueError(f"low must not exceed high, got {low} and {high} dB")
        self.low, self.high = low, high

    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The noisy waveform."""
        if generator is None:
            return x
        level = x.square().mean().sqrt() * 10 ** (-_real(self.low, self.high, generator) / 20)
        return x + level * torch.randn(x.shape, generator=generator)


class LogMel(Transform):
    """The logarithm of a mel spectrogram, ``(n_mels, 1 + L // hop_length)``.

    Args:
        sample_rate: of the waveform, in Hz.
        n_fft: samples of a window.
        hop_length: samples from one column to the next.
        n_mels: bands.
        f_min: lower edge of the first band, in Hz.
        f_max: upper edge of the last band, in Hz; None for half the sample rate.
        floor: energy that is added before the logarithm.
    """

    def __init__(
        self,
        sample_rate: int = 16_000,
        n_fft: int = 400,
        hop_length: int = 160,
        n_mels: int = 80,
        f_min: float = 0.0,
        f_max: float | None = None,
        floor: float = 1e-6,
    ) -> None:
        self.sample_rate, self.n_features, self.hop_length = sample_rate, n_mels, hop_length
        self.n_fft, self.floor = n_fft, floor
        self.mel = ta.MelSpectrogram(
            sample_rate, n_fft, hop_length=hop_length, n_mels=n_mels, f_min=f_min, f_max=f_max
        )

    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """``(n_mels, T)``."""
        return (self.mel(_windowed(x, self.n_fft)) + self.floor).log()


class MFCC(Transform):
    """Mel-frequency cepstral coefficients, ``(n_mfcc, 1 + L // hop_length)``.

    Args:
        sample_rate: of the waveform, in Hz.
        n_mfcc: coefficients.
        n_fft: samples of a window.
        hop_length: samples from one column to the next.
        n_mels: bands.
        log_mels: the natural logarithm of energies (with ``1e-6`` added) instead of decibels, which
            torchaudio cuts 80 dB below the loudest of the clip.
    """

    def __init__(
        self,
        sample_rate: int = 16_000,
        n_mfcc: int = 20,
        n_fft: int = 400,
        hop_length: int = 160,
        n_mels: int = 64,
        log_mels: bool = True,
    ) -> None:
        self.sample_rate, self.n_features, self.hop_length = sample_rate, n_mfcc, hop_length
        self.n_fft = n_fft
        window = {"n_fft": n_fft, "hop_length": hop_length, "n_mels": n_mels}
        self.mfcc = ta.MFCC(sample_rate, n_mfcc, log_mels=log_mels, melkwargs=window)

    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """``(n_mfcc, T)``."""
        return self.mfcc(_windowed(x, self.n_fft))


class Normalize(Transform):
    """Takes off a mean and divides by a deviation, of each row or of all.

    Args:
        mean: one number, or one for each row of the features.
        std: as many.
    """

    def __init__(self, mean: list[float], std: list[float]) -> None:
        if len(mean) != len(std) or not mean or min(std) <= 0:
            raise ValueError(
                f"mean and std are of one length and std positive, got {mean} and {std}"
            )
        self.mean, self.std = torch.tensor(mean)[:, None], torch.tensor(std)[:, None]

    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The normalised clip."""
        return ((x - self.mean) / self.std).view_as(x)


class SpecAugment(Transform):
    """Covers bands and stretches of features with their mean.

    Args:
        n_time: stretches that are covered.
        time: largest length of one, in columns.
        n_freq: bands that are covered.
        freq: largest height of one, in rows.
        share: the most that one covers of all columns, or of all rows.

    Source: Park et al. 2019, https://arxiv.org/abs/1904.08779, without warping.
    """

    def __init__(
        self, n_time: int = 2, time: int = 20, n_freq: int = 2, freq: int = 8, share: float = 0.3
    ) -> None:
        if min(n_time, time, n_freq, freq) < 0 or not 0 < share <= 1:
            raise ValueError(
                "counts and lengths must be at least 0 and share in (0, 1], "
                f"got {n_time}, {time}, {n_freq}, {freq} and {share}"
            )
        self.augment = ta.SpecAugment(n_time, time, n_freq, freq, zero_masking=False, p=share)

    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The features with holes."""
        if generator is None:
            return x
        # torchaudio draws from the global generator.
        with seeded(int(torch.randint(2**62, (), generator=generator))):
            return self.augment(x)


def _windowed(x: Tensor, n_fft: int) -> Tensor:
    # The spectrogram mirrors half a window at both ends: a shorter clip is filled up to allow that.
    return F.pad(x, (0, max(0, n_fft // 2 + 1 - x.shape[-1])))


def _whole(low: int, high: int, generator: torch.Generator) -> int:
    return int(torch.randint(low, high + 1, (), generator=generator))


def _real(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))
