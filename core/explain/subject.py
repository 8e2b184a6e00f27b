"""What an answer rests on: an item whose every place may be there to a degree."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

STEPS = 32  # points of the path from the reference to the item
AT_ONCE = 8  # of them that go through the model together


class Unit(NamedTuple):
    """What the positions of a model's layers stand for.

    Attributes:
        name: ``"letters"``, ``"s"``; in the plural where they are counted.
        step: units from one position to the next.
        timed: they are seconds: frequencies are in Hz.
    """

    name: str = "positions"
    step: float = 1.0
    timed: bool = False


class Saliency(NamedTuple):
    """What each place adds to an answer.

    Attributes:
        shares: of the places, in the subject's shape; above 0 where a place speaks for the answer.
        gain: the score of the item less that of the reference: what the shares sum up to, but for
            the steps of the path.
    """

    shares: Tensor
    gain: float


class Subject(ABC):
    """An item and the answer that a model gives to it, to be explained.

    Attributes:
        shape: of the item's places: pixels, cells of a spectrogram, letters.
        caption: what the answer is, as markup.
        unit: of the positions in the model's layers.
        reference: what a place is compared with, in words.
        legend: how shares are drawn, in a sentence.
    """

    shape: tuple[int, ...]
    caption: str
    unit: Unit = Unit()
    reference: str
    legend: str = "Warm places speak for the answer, cold ones against it."

    @abstractmethod
    def score(self, masks: Tensor) -> Tensor:
        """How sure the model is of its answer, ``(S,)``, for ``masks (S, *shape)``.

        At 1 a place is the item's, at 0 the reference's; between, it is between them.
        """

    @abstractmethod
    def draw(self, shares: Tensor) -> str:
        """Markup that shows the item, and on it the ``shares`` of its places."""

    def reading(self, weights: Tensor) -> tuple[str, str] | None:
        """What a layer reads of the item: a picture, and a sentence about it.

        Args:
            weights: how much each position (in rows) reads of each, ``(L, L)``, not negative.

        Returns:
            None where positions have no place on the item.
        """
        return None


def saliency(subject: Subject, steps: int = STEPS) -> Saliency:
    """Integrated gradients of a subject's score along the straight path of its mask from 0 to 1.

    A place's share is the mean of the score's slope by its mask; the shares sum up to what the
    score gains from the reference to the item (completeness), up to the error of ``steps``
    midpoints. With masks in place of inputs the method is the same for pixels, for the loudness of
    a spectrogram's cells and for what letters are embedded as. Time ``steps`` passes forwards and
    backwards.

    Source: Sundararajan, Taly & Yan 2017, https://arxiv.org/abs/1703.01365, equation 2.
    """
    places = (torch.arange(steps) + 0.5) / steps
    total = torch.zeros(subject.shape)
    for chunk in places.split(AT_ONCE):
        masks = chunk.view(-1, *[1] * len(subject.shape)).expand(-1, *subject.shape)
        masks = masks.clone().requires_grad_()
        with torch.enable_grad():
            (slopes,) = torch.autograd.grad(subject.score(masks).sum(), masks)
        total += slopes.sum(0) / steps
    with torch.no_grad():
        ends = torch.stack([torch.zeros(subject.shape), torch.ones(subject.shape)])
        low, high = subject.score(ends).tolist()
    return Saliency(total, high - low)


def lead(logits: Tensor, answer: int) -> Tensor:
    """The logit of ``answer`` less the mean of all, ``(S,)`` of ``(S, K)``."""
    return logits[:, answer] - logits.mean(1)
