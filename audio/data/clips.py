"""Any labelled clips: a manifest for each part."""

from collections.abc import Sequence

from tristate.audio.data.manifest import Clip, read_manifest
from tristate.audio.data.source import ClipData
from tristate.audio.data.transforms import Transform
from tristate.core.errors import UserError
from tristate.kernels.registry import nearest


class Clips(ClipData):
    """Clips that manifests list, with a label each; read from disk when a batch wants them.

    Args:
        train: manifest of the training clips, CSV or JSONL with the columns ``path`` and ``label``
            and, where a part of a file is meant, ``start`` and ``end`` in seconds; see
            :func:`tristate.audio.data.manifest.read_manifest`.
        val: manifest of the clips by which runs are compared.
        test: manifest of the test clips.
        classes: the labels, in the order of the classes; None takes those in ``train``, sorted.
        sample_rate: at which all clips are handed out, in Hz; others are resampled.
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
        UserError: a manifest is missing or wrong, or a label is none of the classes.
    """

    def __init__(
        self,
        train: str | None = None,
        val: str | None = None,
        test: str | None = None,
        classes: list[str] | None = None,
        sample_rate: int = 16_000,
        augment: list[Transform] | None = None,
        features: Transform | None = None,
        after: list[Transform] | None = None,
        keep: bool = False,
        batch_size: int = 32,
        workers: int = 0,
        seed: int | None = None,
        predict_path: str | list[str] | None = None,
    ) -> None:
        super().__init__(
            sample_rate=sample_rate,
            augment=augment,
            features=features,
            after=after,
            keep=keep,
            batch_size=batch_size,
            workers=workers,
            seed=seed,
            predict_path=predict_path,
        )
        self.manifests = {"train": train, "val": val, "test": test}
        self.listed: dict[str, list[Clip]] = {}
        if classes is None:
            classes = sorted({str(clip.label) for clip in self._listed("train")})
        self.classes = list(classes)

    @property
    def class_names(self) -> list[str]:
        """The labels."""
        return list(self.classes)

    def labelled(self, part: str) -> tuple[Sequence[Clip], Sequence[int]]:
        """The clips of a part's manifest."""
        clips, place = self._listed(part), {name: i for i, name in enumerate(self.classes)}
        for clip in clips:
            if clip.label not in place:
                raise UserError(
                    f"{clip.where}: the label {clip.label!r} is none of the {len(place)} classes; "
                    + nearest(str(clip.label), place)
                )
        return clips, [place[str(clip.label)] for clip in clips]

    def _listed(self, part: str) -> list[Clip]:
        manifest = self.manifests[part]
        if manifest is None:
            raise UserError(f"there is no manifest of {part} clips: set data.{part}")
        if part not in self.listed:
            self.listed[part] = read_manifest(manifest, need=["label"])
        return self.listed[part]
