"""Clips as batches, and the data module that all sets of clips share."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tristate.audio.data.collate import Padded, collate
from tristate.audio.data.decode import read_audio
from tristate.audio.data.manifest import Clip, find_clips
from tristate.audio.data.transforms import Chain, Transform
from tristate.core.errors import UserError
from tristate.core.training.data import DataModule
from tristate.core.training.loader import Loader


class ClipSource:
    """Clips as a :class:`tristate.core.training.loader.Source`, each with its label or its name.

    Args:
        clips: what to read.
        sample_rate: at which to hand it out, in Hz.
        labels: of the clips; None to hand out their names.
        augment: done to the waveform at random.
        features: made of the waveform.
        after: done to the features at random.
        keep: keep the waveforms in memory once they are read.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        sample_rate: int,
        labels: Sequence[int] | None = None,
        *,
        augment: Transform | None = None,
        features: Transform | None = None,
        after: Transform | None = None,
        keep: bool = False,
    ) -> None:
        self.clips, self.sample_rate = clips, sample_rate
        self.labels = None if labels is None else torch.tensor(labels)
        self.augment, self.features, self.after = augment, features, after
        self.kept: dict[int, Tensor] | None = {} if keep else None

    def __len__(self) -> int:
        return len(self.clips)

    def waveform(self, index: int) -> Tensor:
        """A clip as it was recorded, ``(L,)``, at the wanted rate."""
        if self.kept is not None and index in self.kept:
            return self.kept[index]
        clip = self.clips[index]
        wave, _ = read_audio(
            clip.path,
            start=clip.start,
            end=clip.end,
            sample_rate=self.sample_rate,
            where=clip.where,
        )
        if self.kept is not None:
            self.kept[index] = wave
        return wave

    def item(self, index: int, generator: torch.Generator) -> Tensor:
        """A clip as a model gets it."""
        x = self.waveform(index)
        try:
            x = self.augment(x, generator) if self.augment is not None else x
            x = self.features(x) if self.features is not None else x
            return self.after(x, generator) if self.after is not None else x
        except ValueError as error:
            clip = self.clips[index]
            where = f" ({clip.where})" if clip.where else ""
            raise UserError(f"{clip}{where} does not fit: {error}") from error

    def batch(self, indices: Tensor, generator: torch.Generator) -> tuple[Padded, Any]:
        """Clips, and their labels ``(B,)`` or names."""
        clips = collate([self.item(index, generator) for index in indices.tolist()])
        if self.labels is None:
            return clips, [str(self.clips[index]) for index in indices.tolist()]
        return clips, self.labels[indices]


class ClipData(DataModule):
    """Clips of several classes, in three parts; a subclass says which.

    Args:
        sample_rate: at which all clips are handed out, in Hz.
        augment: what is done to a waveform in training, in this order.
        features: what a model gets, made of the waveform; None for the waveform.
        after: what is done to the features in training.
        keep: keep decoded waveforms in memory, of each process that prepares batches.
        batch_size: clips of a batch.
        workers: processes that prepare batches.
        seed: root of order and augmentation; None takes the run's global seed.
        predict_path: sound files, folders, tars or manifests to predict on; None for the test
            clips.

    Raises:
        ValueError: a transform is made for another sample rate.
    """

    def __init__(
        self,
        *,
        sample_rate: int,
        augment: list[Transform] | None,
        features: Transform | None,
        after: list[Transform] | None,
        keep: bool,
        batch_size: int,
        workers: int,
        seed: int | None,
        predict_path: str | list[str] | None,
    ) -> None:
        super().__init__(batch_size, workers, seed)
        self.sample_rate, self.features, self.keep = sample_rate, features, keep
        self.augment, self.after = (Chain(steps) if steps else None for steps in (augment, after))
        for step in (self.augment, features, self.after):
            if step is not None and step.sample_rate not in (None, sample_rate):
                raise ValueError(
                    f"the clips are handed out at {sample_rate} Hz, but a transform "
                    f"({type(step).__name__}) is made for {step.sample_rate} Hz"
                )
        if after and (features is None or features.n_features is None):
            raise ValueError("after is done to features: name features, or use augment")
        self.predict_path = predict_path
        self.parts: dict[str, ClipSource] = {}

    @property
    def class_names(self) -> list[str]:
        """The classes, in the order of the labels."""
        raise NotImplementedError

    def labelled(self, part: str) -> tuple[Sequence[Clip], Sequence[int]]:
        """Clips and labels of ``train``, ``val`` or ``test``."""
        raise NotImplementedError

    @property
    def facts(self) -> dict[str, Any]:
        """Class names, rate in Hz, channels, and steps of what a model gets in a second.

        ``in_chans`` is 1 for waveforms ``(B, L)`` and F for features ``(B, F, T)``.
        """
        features = self.features
        made = features is not None and features.n_features is not None
        return {
            "class_names": self.class_names,
            "sample_rate": self.sample_rate,
            "in_chans": features.n_features if features is not None and made else 1,
            "kind": "features" if made else "waveform",
            "steps_per_second": self.sample_rate / (features.hop_length if features else 1),
        }

    def part(self, name: str) -> ClipSource:
        """The clips of ``train``, ``val`` or ``test``, made when they are first asked for."""
        if name not in self.parts:
            train = name == "train"
            clips, labels = self.labelled(name)
            self.parts[name] = ClipSource(
                clips,
                self.sample_rate,
                labels,
                augment=self.augment if train else None,
                features=self.features,
                after=self.after if train else None,
                keep=self.keep,
            )
        return self.parts[name]

    def train_dataloader(self) -> Loader:
        """Augmented training clips in a new order each epoch."""
        return self.loader(self.part("train"), train=True)

    def val_dataloader(self) -> Loader:
        """The clips by which runs are compared."""
        return self.loader(self.part("val"))

    def test_dataloader(self) -> Loader:
        """The test clips."""
        return self.loader(self.part("test"))

    def predict_dataloader(self) -> Loader:
        """The clips at ``predict_path``, else the test clips, with their names."""
        if self.predict_path is not None:
            clips = find_clips(self.predict_path)
        else:
            clips, _ = self.labelled("test")
        return self.loader(ClipSource(clips, self.sample_rate, features=self.features))
