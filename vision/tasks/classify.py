"""Image classification."""

from collections.abc import Callable
from typing import Any

import torch
from timm.data import Mixup
from torch import Tensor
from torch.nn import functional as F

from tristate.core.training.classification import Classification
from tristate.core.training.figures import picture
from tristate.vision.tasks.saliency import ImageSubject


class ImageClassification(Classification):
    """Classifies images with any backbone of this package or of timm.

    Args:
        backbone: name of the model.
        backbone_args: its constructor arguments; the number of classes and of channels come from
            the data.
        pretrained: weights to begin with: FILE, ``hf:OWNER/REPO`` or a name in timm's table.
        mixup: alpha of mixup (Zhang et al. 2017, https://arxiv.org/abs/1710.09412); 0 for none.
        cutmix: alpha of cutmix (Yun et al. 2019, https://arxiv.org/abs/1905.04899); 0 for none.
        mix_prob: share of the batches that are mixed.
        mix_switch_prob: where both are on, share of the mixed batches that take cutmix.
        label_smoothing: share of the target that is spread over all classes.
        facts: of the data: ``class_names``, ``in_chans``, ``mean`` and ``std``.
        **optim: of :class:`tristate.core.training.task.Task`.

    Raises:
        ValueError: as :class:`tristate.core.training.classification.Classification`.
    """

    unit = "images"

    def __init__(
        self,
        backbone: str,
        *,
        backbone_args: dict[str, Any] | None = None,
        pretrained: str | None = None,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        mix_prob: float = 1.0,
        mix_switch_prob: float = 0.5,
        label_smoothing: float = 0.0,
        facts: dict[str, Any] | None = None,
        **optim: Any,
    ) -> None:
        super().__init__(
            backbone,
            backbone_args=backbone_args,
            pretrained=pretrained,
            label_smoothing=label_smoothing,
            facts=facts,
            **optim,
        )
        if mixup < 0 or cutmix < 0 or not 0 <= mix_prob <= 1 or not 0 <= mix_switch_prob <= 1:
            raise ValueError(
                "mixup and cutmix must be at least 0 and the probabilities in [0, 1], "
                f"got {mixup}, {cutmix}, {mix_prob} and {mix_switch_prob}"
            )
        self.mix = (
            Mixup(
                mixup,
                cutmix,
                prob=mix_prob,
                switch_prob=mix_switch_prob,
                label_smoothing=label_smoothing,
                num_classes=len(self.class_names),
            )
            if mixup or cutmix
            else None
        )

    def told_backbone(self) -> dict[str, Any]:
        """The channels of the images."""
        return {"in_chans": self.facts.get("in_chans", 3)}

    def loss(self, batch: Any) -> Tensor:
        """Cross entropy, on mixed images where asked for."""
        images, labels = batch
        # The image mixed in is the one as far from the end as this is from the start.
        if self.mix is None or len(images) % 2:
            return super().loss(batch)
        images, targets = self.mix(images.clone(), labels)
        return F.cross_entropy(self(images), targets)

    def show(self, item: Tensor, alt: str) -> str:
        """The image, with the normalisation taken back."""
        return picture(self._seen(item), alt)

    def subject(self, item: Tensor, score: Callable[[Tensor], Tensor]) -> ImageSubject:
        """The image, pixel by pixel."""
        return ImageSubject(item, self._seen(item), score, self.backbone)

    def _seen(self, item: Tensor) -> Tensor:
        mean, std = (torch.tensor(self.facts.get(k, [d])) for k, d in (("mean", 0.0), ("std", 1.0)))
        return item.float() * std[:, None, None] + mean[:, None, None]
