"""Clips in a report: a spectrogram to look at, and the sound to play."""

import base64
from html import escape
from io import BytesIO

import soundfile
import torch
from matplotlib import colormaps
from torch import Tensor

from tristate.audio.data.transforms import LogMel
from tristate.core.training.figures import picture

RANGE = 8.0  # of the logarithm of energy below the loudest: 35 dB
COLUMNS = 200  # at most, of a picture
SECONDS = 3.0  # at most, of a sound: a report of 48 clips stays under 6 MB at 16 kHz


def spectrogram(features: Tensor, alt: str) -> str:
    """Features ``(F, T)`` as a picture, the first row at the bottom."""
    features = features.detach().float()
    step = -(-features.shape[1] // COLUMNS)
    shown = torch.nn.functional.avg_pool1d(features[None], step, ceil_mode=True)[0].flip(0)
    low, high = shown.min(), shown.max()
    pixels = colormaps["magma"](((shown - low) / (high - low).clamp(min=1e-9)).numpy())
    return picture(torch.from_numpy(pixels[..., :3]).permute(2, 0, 1), alt)


def sound(wave: Tensor, sample_rate: int, alt: str) -> str:
    """A waveform ``(L,)`` as a spectrogram and an ``audio`` element that carries its own data.

    It is scaled to its peak, and cut after ``SECONDS``.
    """
    wave = wave.detach().float()
    wave = wave / wave.abs().max().clamp(min=1e-9)
    bands = LogMel(sample_rate, n_fft=sample_rate // 40, hop_length=sample_rate // 100, n_mels=40)
    energy = bands(wave)
    shown = spectrogram(energy.clamp(min=float(energy.max()) - RANGE), alt)
    return shown + player(wave, sample_rate, alt)


def player(wave: Tensor, sample_rate: int, alt: str) -> str:
    """A waveform ``(L,)`` as an ``audio`` element; scaled to its peak, cut after ``SECONDS``."""
    wave = wave.detach().float()[: round(SECONDS * sample_rate)]
    kept = 0.9 * wave / wave.abs().max().clamp(min=1e-9)
    buffer = BytesIO()
    soundfile.write(buffer, kept.numpy(), sample_rate, format="WAV", subtype="PCM_16")
    data = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'<audio controls preload="none" aria-label="{escape(alt, quote=True)}" '
        f'style="display:block;width:100%;height:32px" src="data:audio/wav;base64,{data}"></audio>'
    )
