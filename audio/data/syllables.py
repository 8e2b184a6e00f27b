"""Mandarin syllables: which tone, initial or final is spoken."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal
from zlib import crc32

from tristate.audio.data.manifest import Clip, read_manifest
from tristate.audio.data.source import ClipData
from tristate.audio.data.transforms import Transform
from tristate.core.errors import UserError

EMBEDDED = Path(__file__).parent / "mandarin" / "syllables.csv.gz"
FOLDS = 5
VAL = 10  # one in so many of the syllables that are not tested on is set aside

# Zhuyin and pinyin, as it is spelt after a consonant.
INITIALS = """
ㄅ b, ㄆ p, ㄇ m, ㄈ f, ㄉ d, ㄊ t, ㄋ n, ㄌ l,
ㄍ g, ㄎ k, ㄏ h, ㄐ j, ㄑ q, ㄒ x, ㄓ zh, ㄔ ch,
ㄕ sh, ㄖ r, ㄗ z, ㄘ c, ㄙ s
"""
FINALS = """
ㄚ a, ㄛ o, ㄜ e, ㄝ ê, ㄞ ai, ㄟ ei, ㄠ ao, ㄡ ou,
ㄢ an, ㄣ en, ㄤ ang, ㄥ eng, ㄦ er, ㄧ i, ㄧㄚ ia, ㄧㄝ ie,
ㄧㄠ iao, ㄧㄡ iou, ㄧㄢ ian, ㄧㄣ in, ㄧㄤ iang, ㄧㄥ ing, ㄨ u, ㄨㄚ ua,
ㄨㄛ uo, ㄨㄞ uai, ㄨㄟ uei, ㄨㄢ uan, ㄨㄣ uen, ㄨㄤ uang, ㄨㄥ ong, ㄩ ü,
ㄩㄝ üe, ㄩㄢ üan, ㄩㄣ ün, ㄩㄥ iong
"""


def _table(text: str) -> dict[str, str]:
    return dict(pair.split() for pair in text.split(","))


# A syllable may begin with its final, or have none but the vowel that its initial brings.
SPELT = {
    "tone": {str(tone): f"tone {tone}" for tone in range(1, 5)},
    "initial": {"": "none"} | _table(INITIALS),
    "final": {"": "-i"} | _table(FINALS),
}


def fold_of(key: str, folds: int = FOLDS) -> int:
    """The fold of a key (a syllable, or one with its tone): ``crc32(key, in UTF-8) % folds``."""
    return crc32(key.encode()) % folds


class MandarinSyllables(ClipData):
    """1,147 clips of one voice, 386 syllables in up to four tones, 0.3 to 0.4 seconds long.

    Args:
        target: what is asked for: the ``tone`` (4 classes), the ``initial`` consonant (22), or the
            ``final``, which is the rest of the syllable (33 with at least ten clips).
        split: what training and test do not share: ``base`` keeps all tones of a syllable
            together, so that tested syllables were never heard; ``base+tone`` is the easier one,
            where a tested syllable may have been heard in another tone.
        fold: test on the keys with ``crc32(key) % 5 == fold``. Of the others one in ten is set
            aside for validation.
        min_clips: classes with fewer clips are left out.
        sample_rate: in Hz; the recordings have 44,100.
        augment: what is done to a waveform in training, in this order.
        features: what a model gets, made of the waveform; None for the waveform.
        after: what is done to the features in training.
        batch_size: clips of a batch.
        workers: processes that prepare batches; none are needed.
        seed: root of order and augmentation; None takes the run's global seed.
        predict_path: sound files, folders, tars or manifests to predict on; None for the test
            clips.

    Raises:
        UserError: the embedded files are missing or damaged.
        ValueError: there is no such fold, or no two classes have as many clips.

    Source: gcin-voice, recorded by Chu Lo and ChionMeilin, CC-BY-3.0; see ``mandarin/README.md``.
    """

    def __init__(
        self,
        target: Literal["tone", "initial", "final"] = "tone",
        split: Literal["base", "base+tone"] = "base",
        fold: int = 0,
        min_clips: int = 10,
        sample_rate: int = 16_000,
        augment: list[Transform] | None = None,
        features: Transform | None = None,
        after: list[Transform] | None = None,
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
            keep=True,
            batch_size=batch_size,
            workers=workers,
            seed=seed,
            predict_path=predict_path,
        )
        if target not in SPELT or split not in ("base", "base+tone") or fold not in range(FOLDS):
            raise ValueError(
                "target is tone, initial or final, split base or base+tone and fold 0 to 4, "
                f"got {target!r}, {split!r} and {fold}"
            )
        self.target, self.split, self.fold = target, split, fold
        clips = read_manifest(EMBEDDED)
        for clip in clips:
            if clip.more.get(target) not in SPELT[target]:
                raise UserError(f"{clip.where}: {clip.more.get(target)!r} is no {target}")
        counts = Counter(clip.more[target] for clip in clips)
        self.values = [value for value in SPELT[target] if counts[value] >= min_clips]
        if len(self.values) < 2:
            raise ValueError(f"fewer than two classes have min_clips={min_clips} clips")
        self.clips = [clip for clip in clips if clip.more[target] in self.values]

    @property
    def class_names(self) -> list[str]:
        """Tones, or initials or finals in pinyin."""
        return [SPELT[self.target][value] for value in self.values]

    def key(self, clip: Clip) -> str:
        """What decides the part that a clip is in."""
        return clip.more["base"] + (clip.more["tone"] if self.split == "base+tone" else "")

    def part_of(self, clip: Clip) -> str:
        """``train``, ``val`` or ``test``."""
        key = self.key(clip)
        if fold_of(key) == self.fold:
            return "test"
        # Further digits of the same number: independent of the fold.
        return "val" if fold_of(key, FOLDS * VAL) // FOLDS == 0 else "train"

    def labelled(self, part: str) -> tuple[Sequence[Clip], Sequence[int]]:
        """The clips of a part."""
        clips = [clip for clip in self.clips if self.part_of(clip) == part]
        return clips, [self.values.index(clip.more[self.target]) for clip in clips]
