"""Classification of sequences of ids, and of pairs of them."""

from html import escape
from typing import Any

from torch import Tensor

from tristate.core.pairs import PairModel
from tristate.core.tasks.texts import padding
from tristate.core.training.classification import Classification

SHOWN = 160  # tokens of an item in the report


class SequenceClassification(Classification):
    """Puts sequences of ids into classes, by the mean over their tokens.

    Padding stands behind a sequence and does not count in the mean. What reads forwards never sees
    it there; a two-sided mixer reads it as it reads any other id, as published models do.

    Args:
        backbone: name of a model, see :func:`tristate.core.zoo.create_model`.
        backbone_args: its constructor arguments; ids and classes come from the data.
        facts: of the data: ``class_names``, ``vocab_size``, and ``tokens``, what stands for an id.
        **options: of :class:`tristate.core.training.classification.Classification`.

    Raises:
        ValueError: as :class:`tristate.core.training.classification.Classification`.
    """

    unit = "sequences"
    cell_width = 250

    def __init__(
        self,
        backbone: str = "tokens",
        *,
        backbone_args: dict[str, Any] | None = None,
        facts: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(backbone, backbone_args=backbone_args, facts=facts, **options)

    def told_backbone(self) -> dict[str, Any]:
        """The ids; one answer for all tokens."""
        return {"vocab_size": self.facts["vocab_size"], "global_pool": "avg"}

    def forward(self, items: Tensor) -> Tensor:
        """Logits ``(B, K)`` of ids ``(B, L)``."""
        model: Any = self.backbone
        return model.forward_head(model.forward_features(items), seq_idx=padding(items))

    def show(self, item: Tensor, alt: str) -> str:
        """The first tokens."""
        tokens = self.facts["tokens"]
        rows = item if item.ndim == 2 else item[None]
        texts = ("".join(tokens[i] for i in row[:SHOWN].tolist()) for row in rows)
        return "".join(f'<code title="{escape(alt)}">{escape(text)}</code>' for text in texts)


class PairClassification(SequenceClassification):
    """Puts pairs of sequences into classes, by :class:`tristate.core.pairs.PairModel`.

    Args:
        backbone: name of the encoder.
        backbone_args: its constructor arguments; ids come from the data.
        facts: as :class:`SequenceClassification`.
        **options: likewise.
    """

    unit = "pairs"

    def __init__(
        self,
        backbone: str = "tokens",
        *,
        backbone_args: dict[str, Any] | None = None,
        facts: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(backbone, backbone_args=backbone_args, facts=facts, **options)
        self.backbone = PairModel(self.backbone, len(self.class_names))

    def told_backbone(self) -> dict[str, Any]:
        """The ids; the encoder has no head."""
        return {**super().told_backbone(), "num_classes": 0}

    def forward(self, items: Tensor) -> Tensor:
        """Logits ``(B, K)`` of ids ``(B, 2, L)``."""
        return self.backbone(items)
