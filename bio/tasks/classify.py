"""Classification of DNA sequences."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import CatMetric

from tristate.bio.models.dna import padding
from tristate.bio.tasks.letters import middle
from tristate.bio.tasks.saliency import LettersSubject
from tristate.core.training.classification import Classification
from tristate.core.training.report import Section
from tristate.core.training.roc import roc_page


class SequenceClassification(Classification):
    """Puts sequences of ids into classes; a filled-up batch gives each what it gives alone.

    Predictions go to ``predictions.tsv``: window, label, the label's probability and that of each
    class, in the order of the intervals.

    Args:
        backbone: name of the model.
        backbone_args: its constructor arguments; the ids, the length of the windows and the number
            of classes come from the data. A model that does not pool takes the mean.
        pretrained: weights to begin with: FILE or ``hf:OWNER/REPO``, such as a language model's.
        label_smoothing: share of the target that is spread over all classes.
        freeze_backbone: train the head alone.
        facts: of the data: ``class_names``, ``tokens``, ``vocab_size``, ``pad_id`` and
            ``max_length``.
        **optim: of :class:`tristate.core.training.task.Task`.

    Raises:
        ValueError: as :class:`tristate.core.training.classification.Classification`.
    """

    unit = "sequences"
    predictions = "predictions.tsv"
    cell_width = 250

    def __init__(
        self,
        backbone: str,
        *,
        backbone_args: dict[str, Any] | None = None,
        pretrained: str | None = None,
        label_smoothing: float = 0.0,
        freeze_backbone: bool = False,
        facts: dict[str, Any] | None = None,
        **optim: Any,
    ) -> None:
        super().__init__(
            backbone,
            backbone_args=backbone_args,
            pretrained=pretrained,
            label_smoothing=label_smoothing,
            freeze_backbone=freeze_backbone,
            facts=facts,
            **optim,
        )
        if not self.backbone.global_pool:
            # A language model answers for every letter.
            self.backbone.reset_classifier(len(self.class_names), "avg")  # pyright: ignore
        # Class probabilities and label of each test item, (M, K + 1).
        self.scored = CatMetric()
        self.scores = torch.zeros(0, len(self.class_names) + 1)

    def told_backbone(self) -> dict[str, Any]:
        """The ids, and the length of the windows."""
        return {key: self.facts[key] for key in ("vocab_size", "max_length") if key in self.facts}

    def forward(self, items: Tensor) -> Tensor:
        """Logits ``(B, K)`` of ids ``(B, L)``."""
        return self.backbone(items, seq_idx=padding(items, self.facts["pad_id"]))

    def on_test_start(self) -> None:
        """Forget a former test."""
        super().on_test_start()
        self.scored.reset()

    def test_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Log loss and accuracy; keep what the report shows; return the logits."""
        logits = super().test_step(batch, batch_idx)
        probabilities = logits.double().softmax(-1)
        self.scored.update(torch.cat([probabilities, batch[1][:, None].double()], 1))
        return logits

    def on_test_epoch_end(self) -> None:
        """Put together what all processes found."""
        super().on_test_epoch_end()
        scores = self.scored.compute()
        self.scores = scores.cpu().reshape(-1, len(self.class_names) + 1)

    def predict_step(self, batch: Any, batch_idx: int) -> dict[str, list[Any]]:
        """Columns ``window``, ``label``, ``probability`` and one of each class's name."""
        items, names = batch
        probabilities = self(items).float().softmax(-1)
        highest, predicted = probabilities.max(-1)
        return {
            "window": list(names),
            "label": [self.class_names[i] for i in predicted.tolist()],
            "probability": [f"{p:.4f}" for p in highest.tolist()],
            **{
                f"p_{name}": [f"{p:.4f}" for p in column]
                for name, column in zip(self.class_names, probabilities.T.tolist(), strict=True)
            },
        }

    def show(self, item: Tensor, alt: str) -> str:
        """The letters around the middle."""
        return middle(item, self.facts["tokens"], self.facts["pad_id"], alt)

    def subject(self, item: Tensor, score: Callable[[Tensor], Tensor]) -> LettersSubject:
        """The sequence, letter by letter."""
        tokens, pad_id = self.facts["tokens"], self.facts["pad_id"]
        return LettersSubject(item, tokens, pad_id, self.backbone, score, middle=True)

    def report_sections(self) -> list[Section]:
        """Confusions, ROC curves, figures of each class, mistakes and right ones."""
        sections = super().report_sections()
        page = roc_page(self.scores[:, :-1], self.scores[:, -1].long(), self.class_names)
        return [sections[0], Section("ROC, each class against the others", page), *sections[1:]]
