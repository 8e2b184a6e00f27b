"""A recording, or a part of one, as a waveform of a wanted rate."""

from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path

import soundfile
import torch
from torch import Tensor
from torchaudio.transforms import Resample

from tristate.audio.data.archive import open_member, split_member
from tristate.core.errors import UserError

BLOCK = 1 << 16  # samples that are dropped at a time


def read_audio(
    path: str | Path,
    *,
    start: float = 0.0,
    end: float | None = None,
    sample_rate: int | None = None,
    where: str = "",
) -> tuple[Tensor, int]:
    """The waveform of ``path`` from ``start`` to ``end``; nothing behind it is decoded.

    Nor is anything before it, but in OGG and MP3.

    Args:
        path: a file that libsndfile decodes (WAV, FLAC, OGG and more), or ``ARCHIVE.tar/MEMBER``.
        start: seconds from the beginning.
        end: seconds from the beginning; None for the end of the file.
        sample_rate: the wanted rate in Hz; None for the file's own.
        where: where the path is written, for errors: ``clips.csv, line 3``.

    Returns:
        The mean of all channels, ``(L,)`` float32, full scale at 1, and its rate in Hz.

    Raises:
        UserError: there is no such file, it cannot be decoded, is empty, holds numbers that are
            not finite, or ends before ``end``.
    """
    path = Path(path)
    name = f"{path} ({where})" if where else str(path)
    with ExitStack() as stack:
        member = split_member(path)
        if member is None and not path.is_file():
            raise UserError(f"there is no file {name}")
        try:
            file = stack.enter_context(open_member(*member)) if member else str(path)
            sound = stack.enter_context(soundfile.SoundFile(file))
            rate = sound.samplerate
            first = round(start * rate)
            last = sound.frames if end is None else round(end * rate)
            if sound.frames < last or sound.frames <= first:
                raise UserError(
                    f"{name} has {sound.frames / rate:.6g} seconds, but the part from {start:.6g} "
                    f"to {'the end' if end is None else f'{end:.6g}'} is wanted: mend the manifest"
                    if start or end is not None
                    else f"{name} holds no sound: remove or replace it"
                )
            if last <= first:
                raise UserError(
                    f"{name}: there is no sample from {start:.6g} to {end:.6g} s at {rate} Hz"
                )
            _skip(sound, first)
            samples = sound.read(last - first, dtype="float32", always_2d=True)
        except soundfile.SoundFileError as error:
            raise UserError(
                f"{name} cannot be decoded ({_reason(error)}): remove or replace it"
            ) from error
    if len(samples) < last - first:
        raise UserError(
            f"{name} is damaged (it ends after {len(samples)} of {last - first} samples): "
            "remove or replace it"
        )
    wave = torch.from_numpy(samples).mean(1)
    if not wave.isfinite().all():
        raise UserError(f"{name} holds samples that are not finite: remove or replace it")
    if sample_rate is None or sample_rate == rate:
        return wave, rate
    return resample(wave, rate, sample_rate), sample_rate


def _skip(sound: soundfile.SoundFile, frames: int) -> None:
    if sound.format not in ("OGG", "MPEG"):
        sound.seek(frames)
        return
    # libsndfile's seek in these can land hundreds of samples off and not say so, near the end of a
    # file above all (its issues 643 and 885): what comes before is decoded and dropped.
    while frames > 0:
        got = len(sound.read(min(frames, BLOCK), dtype="float32"))
        if not got:
            return
        frames -= got


def resample(wave: Tensor, orig: int, new: int) -> Tensor:
    """``wave (..., L)`` of ``orig`` Hz at ``new`` Hz, ``(..., ceil(L * new / orig))``.

    Band-limited: torchaudio's interpolation with a windowed sinc.
    """
    return wave if orig == new else _resampler(orig, new)(wave)


# Building the kernel takes longer than the resampling of a short clip.
@lru_cache(maxsize=64)
def _resampler(orig: int, new: int) -> Resample:
    return Resample(orig, new)


def _reason(error: Exception) -> str:
    text = getattr(error, "error_string", None) or str(error)
    return text.strip().rstrip(".")
