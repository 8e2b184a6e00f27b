"""What an answer about a sound rests on: shares of the cells of its spectrogram."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from tristate.audio.tasks.sounds import player
from tristate.core.explain.pictures import Axis, even_axis, framed, heat, overlaid
from tristate.core.explain.subject import Subject, Unit
from tristate.core.training.curves import short
from tristate.core.training.figures import grid

RANGE = 14.0  # of the logarithm of energy below the loudest cell: what is softer is silence, 60 dB
SHOWN = 11.0  # of it, in a picture
ROWS = 96  # of a picture
HEIGHT = 210.0


class SoundSubject(Subject):
    """A waveform whose spectrogram may level out, cell by cell, into even noise as loud.

    A cell at 0 has the mean of all cells' logarithm of energy, at 1 its own, between them a mean
    of both; phases stay. So the path is a straight one in the logarithm of energy, which models
    of sound take, and silence, which they standardise away, is not on it.

    Args:
        wave: ``(L,)``.
        sample_rate: in Hz.
        score: of ``S`` waveforms like it.
        unit: of the positions in the model's layers.
    """

    reference = "even noise of the same loudness"

    def __init__(
        self, wave: Tensor, sample_rate: int, score: Callable[[Tensor], Tensor], unit: Unit
    ) -> None:
        self.wave, self.sample_rate, self.unit, self._score = wave.float(), sample_rate, unit, score
        # About 32 ms: harmonics of a voice stand apart.
        self.n_fft = 1 << round(math.log2(0.032 * sample_rate))
        self.window = torch.hann_window(self.n_fft)
        padded = torch.nn.functional.pad(self.wave, (0, max(0, self.n_fft - len(wave))))
        self.cells = torch.stft(
            padded, self.n_fft, self.n_fft // 4, window=self.window, return_complex=True
        )
        level = self.cells.abs().square().clamp(min=1e-20).log()
        self.level = level.clamp(min=float(level.max()) - RANGE)
        self.shape = tuple(self.level.shape)

    def score(self, masks: Tensor) -> Tensor:
        """Of waveforms under masks ``(S, F, T)``."""
        apart = (1 - masks) * (self.level.mean() - self.level)
        cells = self.cells * (apart / 2).exp()
        length = self.n_fft // 4 * (self.cells.shape[1] - 1)
        waves = torch.istft(
            cells, self.n_fft, self.n_fft // 4, window=self.window, length=max(length, self.n_fft)
        )
        missing = max(0, len(self.wave) - waves.shape[1])
        waves = torch.nn.functional.pad(waves, (0, missing))[:, : len(self.wave)]
        return self._score(waves)

    def draw(self, shares: Tensor) -> str:
        """The spectrogram, the shares over it, and the sound to play."""
        seen = (self._warped(self.level) - self.level.max()) / SHOWN + 1
        pictures = [
            (heat(seen), "spectrogram", "what it heard"),
            (overlaid(seen, self._warped(shares)), "shares of its cells", "what counted"),
        ]
        seconds = even_axis("s", len(self.wave) / self.sample_rate)
        cells = [
            (framed(pixels, seconds, self._hertz(), alt, HEIGHT), said)
            for pixels, alt, said in pictures
        ]
        return grid(cells, 300) + player(self.wave, self.sample_rate, "the sound")

    def _places(self, frequencies: Tensor) -> Tensor:
        """Heights from 0 to 1 of frequencies in Hz: on the mel scale, as ears have it."""
        return (1 + frequencies / 700).log() / math.log(1 + self.sample_rate / 2 / 700)

    def _hertz(self) -> Axis:
        marks = [f for f in (250, 500, 1000, 2000, 4000, 8000, 16000) if f <= self.sample_rate / 2]
        places = self._places(torch.tensor(marks, dtype=torch.float32)).tolist()
        return Axis("Hz", [(p, short(f)) for p, f in zip(places, marks, strict=True)])

    def _warped(self, values: Tensor) -> Tensor:
        """``(F, T)`` with rows evenly on the mel scale, the highest on top: ``(ROWS, T)``."""
        heights = (torch.arange(ROWS) + 0.5) / ROWS
        hertz = 700 * ((1 + self.sample_rate / 2 / 700) ** heights - 1)
        at = hertz / self.sample_rate * self.n_fft
        low = at.long().clamp(max=len(values) - 2)
        return torch.lerp(values[low], values[low + 1], (at - low)[:, None]).flip(0)


class FeatureSubject(Subject):
    """Features ``(F, T)`` whose every number may fade into the mean of all.

    Args:
        features: as the model gets them.
        score: of ``S`` like them.
        unit: of the positions in the model's layers.
        steps_per_second: columns of a second.
    """

    reference = "the mean of its features"

    def __init__(
        self,
        features: Tensor,
        score: Callable[[Tensor], Tensor],
        unit: Unit,
        steps_per_second: float,
    ) -> None:
        self.features, self.unit, self.per_second = features.float(), unit, steps_per_second
        self._score, self.shape = score, tuple(features.shape)

    def score(self, masks: Tensor) -> Tensor:
        """Of features under masks ``(S, F, T)``."""
        return self._score(torch.lerp(self.features.mean(), self.features, masks))

    def draw(self, shares: Tensor) -> str:
        """The features, and the shares over them."""
        low, high = torch.quantile(self.features.flatten(), torch.tensor([0.02, 0.99]))
        seen = ((self.features - low) / (high - low).clamp(min=1e-9)).flip(0)
        seconds = even_axis("s", self.shape[1] / self.per_second)
        rows = even_axis("row of features", self.shape[0])
        pictures = [
            (heat(seen), "features", "what it heard"),
            (overlaid(seen, shares.flip(0)), "shares of its features", "what counted"),
        ]
        cells = [(framed(p, seconds, rows, alt, HEIGHT), said) for p, alt, said in pictures]
        return grid(cells, 300)
