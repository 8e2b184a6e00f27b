"""Classification of clips."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tristate.audio.data.collate import Padded
from tristate.audio.tasks.saliency import FeatureSubject, SoundSubject
from tristate.audio.tasks.sounds import sound, spectrogram
from tristate.core.explain.subject import Subject, Unit
from tristate.core.training.classification import Classification


class AudioClassification(Classification):
    """Classifies clips, waveforms or features, of equal or unequal length.

    A batch holds :class:`tristate.audio.data.collate.Padded` clips: padding changes no prediction
    where the backbone's mixer packs. The report shows spectrograms, and clips to play.

    Args:
        backbone: name of the model.
        backbone_args: its constructor arguments; the number of classes, the rows of features and
            the sample rate come from the data.
        pretrained: weights to begin with: FILE or ``hf:OWNER/REPO``.
        label_smoothing: share of the target that is spread over all classes.
        facts: of the data: ``class_names``, ``in_chans``, ``sample_rate`` and ``kind``.
        **optim: of :class:`tristate.core.training.task.Task`.

    Raises:
        ValueError: as :class:`tristate.core.training.classification.Classification`.
    """

    unit = "clips"
    cell_width = 176  # room for the buttons of a player

    def told_backbone(self) -> dict[str, Any]:
        """Rows of the features (1 for waveforms), and the rate in Hz."""
        return {
            name: self.facts[name] for name in ("in_chans", "sample_rate") if name in self.facts
        }

    def forward(self, items: Padded) -> Tensor:
        """Logits ``(B, K)``."""
        return self.backbone(items.values, items.seq_idx)

    def show(self, item: Tensor, alt: str) -> str:
        """A waveform to look at and to play; features to look at."""
        if item.ndim == 1:
            return sound(item, self.facts["sample_rate"], alt)
        return spectrogram(item, alt)

    def as_items(self, values: Tensor) -> Padded:
        """Clips of one length."""
        return Padded(values, torch.full((len(values),), values.shape[-1]))

    def subject(self, item: Tensor, score: Callable[[Tensor], Tensor]) -> Subject:
        """The clip, cell by cell of its spectrogram."""
        stride = getattr(getattr(self.backbone, "front", None), "stride", 1)
        if item.ndim == 1:
            rate = self.facts["sample_rate"]
            return SoundSubject(item, rate, score, Unit("s", stride / rate, timed=True))
        rate = self.facts["steps_per_second"]
        return FeatureSubject(item, score, Unit("s", stride / rate, timed=True), rate)
