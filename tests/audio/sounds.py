"""Sounds and files for the tests of the audio domain."""

import math
from pathlib import Path

import soundfile
import torch
from torch import Tensor


def tone(frequency: float, seconds: float, rate: int = 16_000) -> Tensor:
    times = torch.arange(round(seconds * rate), dtype=torch.float64) / rate
    return (0.5 * torch.sin(2 * math.pi * frequency * times)).float()


def noise(length: int, seed: int = 0) -> Tensor:
    return 0.3 * torch.randn(length, generator=torch.Generator().manual_seed(seed)).clamp(-3, 3)


def write(path: Path, wave: Tensor, rate: int = 16_000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave.numpy(), rate)
    return path


def pitch(wave: Tensor, rate: int) -> float:
    """The strongest frequency, in Hz."""
    spectrum = torch.fft.rfft(wave * torch.hann_window(len(wave))).abs()
    return int(spectrum.argmax()) * rate / len(wave)
