"""Learning a synthetic problem: the right answer wherever one is due."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric

from tristate.core.tasks.problem import IGNORE
from tristate.core.training.curves import line_chart
from tristate.core.training.report import Section
from tristate.core.training.task import Task
from tristate.core.zoo import create_model

PIECE = 2**16  # positions of a long test sequence that are read at a time


class Answers(Task):
    """Learns to answer at the positions that have a label; the metric is the share answered right.

    A batch is ``(inputs, labels)``, the labels ``(B, L)``: classes, and -100 where nothing is
    asked; or numbers, and NaN where nothing is, of which one counts as right when it is as near as
    the problem's tolerance. ``test/accuracy`` is at the length of training; where the data has
    other lengths to test at, there is also ``test/accuracy_LENGTH`` of each.

    Args:
        backbone: name of a model that answers at each position, see
            :func:`tristate.core.zoo.create_model`.
        backbone_args: its constructor arguments; ids and answers come from the data.
        facts: of the data: ``vocab_size``, ``n_classes``, ``lengths``, and ``tolerance`` where
            answers are numbers.
        **optim: of :class:`tristate.core.training.task.Task`.

    Raises:
        ValueError: an argument is unknown to the backbone.
    """

    main_metric = "accuracy"
    main_mode = "max"
    unit = "sequences"

    def __init__(
        self,
        backbone: str = "tokens",
        *,
        backbone_args: dict[str, Any] | None = None,
        facts: dict[str, Any] | None = None,
        **optim: Any,
    ) -> None:
        super().__init__(facts=facts, **optim)
        self.save_hyperparameters()
        told = {
            "vocab_size": self.facts["vocab_size"],
            "num_classes": self.facts["n_classes"],
            "global_pool": "",
        }
        self.backbone: Any = create_model(backbone, **{**told, **(backbone_args or {})})
        self.lengths: list[int] = list(self.facts["lengths"])
        self.val_accuracy = MeanMetric()
        self.test_accuracy = nn.ModuleList(MeanMetric() for _ in self.lengths)

    def forward(self, inputs: Tensor) -> Tensor:
        """Answers ``(B, L, n_classes)``."""
        return self.backbone(inputs)

    def loss(self, batch: Any) -> Tensor:
        """Cross entropy of the answers that are due, or their mean squared error."""
        inputs, labels = batch
        return self._loss(*self._due(self.backbone.forward_features(inputs), labels))

    def _due(self, tokens: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Answers ``(M, n_classes)`` and labels ``(M,)`` of the positions that have one."""
        due = _due(labels)
        # The head sees these positions alone: most have no label.
        return self.backbone.forward_head(tokens[due][:, None])[:, 0], labels[due]

    def _loss(self, answers: Tensor, labels: Tensor) -> Tensor:
        if labels.is_floating_point():
            return F.mse_loss(answers[:, 0], labels)
        return F.cross_entropy(answers, labels)

    def _right(self, answers: Tensor, labels: Tensor) -> Tensor:
        """Which answers are right, ``(M,)`` float32."""
        if labels.is_floating_point():
            return ((answers[:, 0] - labels).abs() < self.facts["tolerance"]).float()
        return (answers.argmax(1) == labels).float()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Count right answers, at the length of training."""
        inputs, labels = batch
        answers, labels = self._due(self.backbone.forward_features(inputs), labels)
        self.val_accuracy.update(self._right(answers, labels))
        self.log("val/accuracy", self.val_accuracy, prog_bar=True)
        self.log("val/loss", self._loss(answers, labels), batch_size=len(inputs))

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Count right answers at one of the lengths."""
        inputs, labels = batch
        # From the first position that any row has a label at: the rest need no token kept.
        first = int(_due(labels).any(0).nonzero()[0])
        count = labels.shape[1] - first
        if count <= PIECE:
            tokens = self.backbone.last_tokens(inputs, count, PIECE)
        else:
            tokens, count = self.backbone.forward_features(inputs), labels.shape[1]
        metric = self.test_accuracy[dataloader_idx]
        metric.update(self._right(*self._due(tokens, labels[:, -count:])))  # pyright: ignore

    def on_test_epoch_end(self) -> None:
        """Log the share of right answers at each length."""
        shares = [metric.compute() for metric in self.test_accuracy]  # pyright: ignore
        self.log("test/accuracy", shares[0])
        if len(shares) > 1:
            for length, share in zip(self.lengths, shares, strict=True):
                self.log(f"test/accuracy_{length}", share)

    def report_sections(self) -> list[Section]:
        """Right answers over the length, where several were tested."""
        if len(self.lengths) < 2:
            return []
        shares = [float(metric.compute()) for metric in self.test_accuracy]  # pyright: ignore
        tested = sorted(zip(self.lengths, shares, strict=True))
        points = [(torch.tensor(float(length)).log2().item(), share) for length, share in tested]
        chart = line_chart("right answers", {"model": points}, "log2 of the length")
        chart = f'<div class="charts"><figure>{chart}</figure></div>'
        rows = "".join(
            f"<tr><td>{length:,}{' (training)' if length == self.lengths[0] else ''}</td>"
            f"<td>{share:.3f}</td></tr>"
            for length, share in tested
        )
        table = f"<table><tr><th>length</th><th>answered right</th></tr>{rows}</table>"
        return [Section("Right answers at other lengths", chart + table)]


def _due(labels: Tensor) -> Tensor:
    """Which positions have a label, ``(B, L)`` bool."""
    return ~labels.isnan() if labels.is_floating_point() else labels != IGNORE
