"""What softmax regression on hand-made features makes of the syllables."""

import argparse
import sys

import torch
from torch import Tensor
from torch.nn import functional as F

from tristate.audio.data.syllables import FOLDS, SPELT, MandarinSyllables
from tristate.audio.data.transforms import MFCC
from tristate.core.linear import softmax_regression

COLUMNS = 10  # to which the 20 coefficients of a clip are averaged


def features(data: MandarinSyllables, part: str, known: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Coefficients of all clips of a part in a grid, ``(M, 200)``, and labels ``(M,)``.

    ``known`` holds the grids that were made before, by clip; new ones are added.
    """
    source, mfcc = data.part(part), MFCC(data.sample_rate, n_mfcc=20)
    assert source.labels is not None
    for i, clip in enumerate(source.clips):
        if str(clip) not in known:
            grid = F.adaptive_avg_pool1d(mfcc(source.waveform(i))[None], COLUMNS)
            known[str(clip)] = grid.flatten()
    return torch.stack([known[str(clip)] for clip in source.clips]), source.labels


def linear_accuracy(data: MandarinSyllables, known: dict[str, Tensor]) -> float:
    """Share of the test clips that are told, after training on all others."""
    parts = [features(data, part, known) for part in ("train", "val")]
    x, labels = (torch.cat(part) for part in zip(*parts, strict=True))
    unseen, wanted = features(data, "test", known)
    mean, std = x.mean(0), x.std(0)
    weight, bias = softmax_regression((x - mean) / std, labels, penalty=1e-3)
    told = ((unseen - mean) / std @ weight + bias).argmax(1)
    return (told == wanted).double().mean().item()


def main() -> None:
    """Write the accuracy for each target and split, on fold 0 and over all folds."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    known: dict[str, Tensor] = {}
    for target in SPELT:
        for split in ("base", "base+tone"):
            folds = [
                linear_accuracy(MandarinSyllables(target, split, fold), known)  # pyright: ignore
                for fold in range(FOLDS)
            ]
            sys.stdout.write(
                f"{target:8} split by {split:10} fold 0 {folds[0]:.3f}  "
                f"mean of {FOLDS} folds {sum(folds) / FOLDS:.3f}\n"
            )


if __name__ == "__main__":
    main()
