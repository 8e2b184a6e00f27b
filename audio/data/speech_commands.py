"""Speech Commands: one spoken word of 35, at most one second long."""

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from torchaudio.datasets import SPEECHCOMMANDS

from tristate.audio.data.manifest import Clip
from tristate.audio.data.source import ClipData
from tristate.audio.data.transforms import MFCC, Transform
from tristate.core.errors import UserError
from tristate.kernels.registry import nearest

SAMPLE_RATE, LENGTH = 16_000, 16_000
VERSION = "speech_commands_v0.02"
SUBSETS = {"train": "training", "val": "validation", "test": "testing"}

# In the order of the published settings, which is the order of the labels.
WORDS = (
    "bed cat down five forward go house left marvin no on right sheila tree up visual yes backward "
    "bird dog eight follow four happy learn nine off one seven six stop three two wow zero"
)
TEN_WORDS = "yes no up down left right on off stop go"
ALL: list[str] = list(WORDS.split())
TEN: list[str] = list(TEN_WORDS.split())


def list_clips(root: str | Path, part: str, classes: Sequence[str] = ALL) -> list[Clip]:
    """The clips of ``train``, ``val`` or ``test``, by class and then by name.

    Args:
        root: the folder with ``SpeechCommands/speech_commands_v0.02``, as torchaudio unpacks it.
        part: which, by the lists that come with the set.
        classes: words; clips of others are left out.

    Raises:
        UserError: the set is not there, or has no clip of a class.
    """
    try:
        found = SPEECHCOMMANDS(root, VERSION, subset=SUBSETS[part])
        rows = [found.get_metadata(index) for index in range(len(found))]
    except (RuntimeError, OSError) as error:
        raise UserError(
            f"there is no Speech Commands in {root} ({error}): set data.root to the folder that "
            f"holds SpeechCommands/{VERSION}, or data.download to true"
        ) from error
    place = {word: index for index, word in enumerate(classes)}
    words = {row[2] for row in rows}
    for word in classes:
        if word not in words:
            raise UserError(
                f"there is no {part} clip of {word!r} in {root}; {nearest(word, words)}"
            )
    folder = Path(root) / "SpeechCommands"
    clips = [Clip(folder / row[0], label=row[2]) for row in rows if row[2] in place]
    return sorted(clips, key=lambda clip: (place[str(clip.label)], clip.path.name))


def published_waveform(clip: Tensor) -> Tensor:
    """``clip (L,)``, full scale at 1, as ``(16000,)``: filled up at its end and divided by 2**15.

    The published settings of S4 divide what is on this scale already, so that the numbers are tiny;
    their MFCC and their normalisation are computed from these.

    Source: Gu et al. 2022, https://arxiv.org/abs/2111.00396 (state-spaces/s4, Speech Commands).
    """
    if clip.shape[-1] > LENGTH:
        raise ValueError(f"a clip has at most {LENGTH} samples, got {clip.shape[-1]}")
    return F.pad(clip, (0, LENGTH - clip.shape[-1])) / 2**15


def published_mfcc() -> MFCC:
    """The MFCC of the published settings: 20 coefficients in 161 columns of a second."""
    with warnings.catch_warnings():
        # Some of so many bands are narrower than a bin of so short a window, and stay empty.
        warnings.filterwarnings("ignore", message="At least one mel filterbank")
        return MFCC(SAMPLE_RATE, n_mfcc=20, n_fft=200, hop_length=100, n_mels=64, log_mels=True)


def row_statistics(clips: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and unbiased deviation of each row of ``clips (F, T)``, over all their columns.

    One pass with one clip in memory, in float64; the result, ``(F,)`` each, is float32.

    Source: Chan, Golub & LeVeque 1979, http://i.stanford.edu/pub/cstr/reports/cs/tr/79/773/CS-TR-79-773.pdf,
    for merging means and squares of two samples.
    """
    count, mean, squares = 0, torch.zeros(()), torch.zeros(())
    for clip in clips:
        clip = clip.double()
        here, length = clip.mean(-1), clip.shape[-1]
        apart, total = here - mean, count + length
        within = (clip - here[:, None]).square().sum(-1)
        squares = squares + within + apart.square() * (count * length / total)
        mean, count = mean + apart * (length / total), total
    if count < 2:
        raise ValueError("a deviation is taken of at least two columns")
    return mean.float(), (squares / (count - 1)).sqrt().float()


def original_statistics(clips: Tensor) -> tuple[Tensor, Tensor]:
    """:func:`row_statistics` of ``clips (M, F, T)`` summed up in float32, as the original does it.

    The first coefficient is near -110 and deviates by 0.02, so that the rounding of its mean shows
    in the fourth digit of what is normalised: only these sums give back the published numbers.
    """
    # The order of summation follows from how the numbers lie in memory: row by row of a column.
    rows = clips.mT.contiguous().unbind(2)
    return torch.stack([row.mean() for row in rows]), torch.stack([row.std() for row in rows])


class Published(Transform):
    """A clip as the published settings of S4 feed it: raw ``(16000,)``, or MFCC ``(20, 161)``.

    From each coefficient its mean over all training clips and columns is taken off, and it is
    divided by its deviation. In the raw waveform this is done for each of the 16,000 places by
    itself, with mean and deviation over the training clips: that is what the original computes.

    Args:
        features: which.
    """

    sample_rate = SAMPLE_RATE

    def __init__(self, features: Literal["raw", "mfcc"] = "raw") -> None:
        self.mfcc = published_mfcc() if features == "mfcc" else None
        if self.mfcc is not None:
            self.n_features, self.hop_length = self.mfcc.n_features, self.mfcc.hop_length
        self.mean: Tensor | None = None
        self.std: Tensor | None = None

    def rows(self, x: Tensor) -> Tensor:
        """What is normalised row by row: of ``(L,)``, ``(16000, 1)`` or ``(20, 161)``."""
        wave = published_waveform(x)
        return wave[:, None] if self.mfcc is None else self.mfcc(wave)

    def measure(self, waves: Iterable[Tensor]) -> None:
        """Take mean and deviation from the training clips."""
        self.mean, self.std = row_statistics(map(self.rows, waves))

    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """``(16000,)`` or ``(20, 161)``.

        Raises:
            RuntimeError: mean and deviation are not known yet.
        """
        if self.mean is None or self.std is None:
            raise RuntimeError("mean and deviation come from the training clips: call measure")
        # In the raw waveform what is added outweighs the deviation, of about 1e-6 to 1e-5.
        made = (self.rows(x) - self.mean[:, None]) / (self.std[:, None] + 1e-5)
        return made if self.mfcc is not None else made[:, 0]


class SpeechCommands(ClipData):
    """Speech Commands 2 as the published settings of S4 and SaShiMi's authors have it.

    The parts are those of the lists that come with the set. (The published ten-word results use a
    random split of the clips that last a full second; with ``classes="ten"`` the words are the
    same and the split is the official one, which no speaker crosses.)

    Args:
        root: the folder with ``SpeechCommands/speech_commands_v0.02``.
        classes: ``all`` 35 words, ``ten`` of them, or a list of words.
        published: hand out what the published settings feed: ``raw`` or ``mfcc``; None for clips as
            they are, of unequal length, with ``augment``, ``features`` and ``after``.
        statistics: file (safetensors) for mean and deviation of ``published``: read where it is
            there, else written; None measures them in a pass over the training clips in each run.
        augment: what is done to a waveform in training, in this order.
        features: what a model gets, made of the waveform; not together with ``published``.
        after: what is done to the features in training.
        keep: keep decoded waveforms in memory of each process (5.4 GB for the training part).
        download: fetch the set (2.3 GB) through torchaudio where it is missing.
        batch_size: clips of a batch.
        workers: processes that prepare batches.
        seed: root of order and augmentation; None takes the run's global seed.
        predict_path: sound files, folders, tars or manifests to predict on; None for the test
            clips.

    Raises:
        UserError: the set is not there.
        ValueError: ``features`` and ``published`` are both given.

    Source: Warden 2018, https://arxiv.org/abs/1804.03209.
    """

    def __init__(
        self,
        root: str,
        classes: Literal["all", "ten"] | list[str] = "all",
        published: Literal["raw", "mfcc"] | None = "raw",
        statistics: str | None = None,
        augment: list[Transform] | None = None,
        features: Transform | None = None,
        after: list[Transform] | None = None,
        keep: bool = False,
        download: bool = False,
        batch_size: int = 16,
        workers: int = 0,
        seed: int | None = None,
        predict_path: str | list[str] | None = None,
    ) -> None:
        if published and features is not None:
            raise ValueError("features and published are two ways to one thing: set one to null")
        super().__init__(
            sample_rate=SAMPLE_RATE,
            augment=augment,
            features=Published(published) if published else features,
            after=after,
            keep=keep,
            batch_size=batch_size,
            workers=workers,
            seed=seed,
            predict_path=predict_path,
        )
        self.root, self.statistics, self.download = root, statistics, download
        self.classes = {"all": ALL, "ten": TEN}[classes] if isinstance(classes, str) else classes

    @property
    def class_names(self) -> list[str]:
        """The words."""
        return list(self.classes)

    def prepare_data(self) -> None:
        """Fetch the set where it is missing and wanted."""
        if self.download:
            Path(self.root).mkdir(parents=True, exist_ok=True)
            SPEECHCOMMANDS(self.root, VERSION, download=True)

    def setup(self, stage: str) -> None:
        """Read or measure mean and deviation where they are needed and not known."""
        made = self.features
        if not isinstance(made, Published) or made.mean is not None:
            return
        file = Path(self.statistics) if self.statistics is not None else None
        if file is not None and file.is_file():
            made.mean, made.std = _read_statistics(file, len(made.rows(torch.zeros(1))))
            return
        source = self.part("train")
        made.measure(source.waveform(index) for index in range(len(source)))
        assert made.mean is not None and made.std is not None
        if file is not None and (self.trainer is None or self.trainer.is_global_zero):
            file.parent.mkdir(parents=True, exist_ok=True)
            save_file({"mean": made.mean, "std": made.std}, file)

    def labelled(self, part: str) -> tuple[Sequence[Clip], Sequence[int]]:
        """The clips of a part."""
        clips = list_clips(self.root, part, self.classes)
        return clips, [self.classes.index(str(clip.label)) for clip in clips]


def _read_statistics(file: Path, rows: int) -> tuple[Tensor, Tensor]:
    try:
        read = load_file(file)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} cannot be read ({error}): remove it to measure again") from error
    shapes = {name: tuple(tensor.shape) for name, tensor in read.items()}
    if shapes != {"mean": (rows,), "std": (rows,)}:
        raise UserError(
            f"{file} must hold mean and std of {rows} numbers each, got {shapes}: "
            "name another file, or remove it to measure again"
        )
    return read["mean"], read["std"]
