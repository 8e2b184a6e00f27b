"""Classification in any domain: the loss, the metrics, the pages of the report."""

from collections import Counter
from collections.abc import Callable, Iterable
from html import escape
from typing import Any, NamedTuple, Self

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from tristate.core.explain.subject import Subject, lead
from tristate.core.pretrained import load_pretrained
from tristate.core.training.figures import class_table, confusion_matrix, grid
from tristate.core.training.report import Section
from tristate.core.training.task import Task
from tristate.core.zoo import create_model

KEPT = 24  # test items of a kind that are shown


class Example(NamedTuple):
    """A test item for the report."""

    item: Tensor  # as the model got it, on the CPU
    label: int
    predicted: int
    probability: float  # of the prediction


class Classification(Task):
    """Puts each item into one of several classes.

    A batch is ``(items, labels)``, in prediction ``(items, names)``. A subclass says what its
    backbones need to know of the data and how an item is shown.

    Args:
        backbone: name of a model, see :func:`tristate.core.zoo.create_model`.
        backbone_args: its constructor arguments; those that the data tell need not be named.
        pretrained: weights to begin with: FILE, ``hf:OWNER/REPO`` or a name in timm's table; see
            :func:`tristate.core.pretrained.load_pretrained`.
        label_smoothing: share of the target that is spread over all classes.
        freeze_backbone: train the head alone; the rest stays as it was loaded, and in evaluation
            mode.
        facts: of the data; ``class_names`` among them.
        **optim: of :class:`tristate.core.training.task.Task`.

    Raises:
        ValueError: an argument is out of range or unknown to the backbone, or the classes are not
            known.
    """

    main_metric = "accuracy"
    main_mode = "max"
    cell_width: int = 96
    """Least width of an item that the report shows, in pixels."""

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
        super().__init__(facts=facts, **optim)
        if not self.facts.get("class_names"):
            raise ValueError("a classification needs facts with class_names: hand in the data's")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), got {label_smoothing}")
        self.save_hyperparameters()
        self.class_names: list[str] = list(self.facts["class_names"])
        self.label_smoothing, self.pretrained = label_smoothing, pretrained
        told = {"num_classes": len(self.class_names), **self.told_backbone()}
        self.backbone: nn.Module = create_model(backbone, **{**told, **(backbone_args or {})})
        self.freeze_backbone = freeze_backbone
        if freeze_backbone:
            self._freeze()
        classes = len(self.class_names)
        self.metrics = nn.ModuleDict()
        for stage in ("val", "test"):
            self.metrics[stage] = nn.ModuleDict({"accuracy": _accuracy(classes, 1)})
            if classes > 5:
                self.metrics[stage]["accuracy_top5"] = _accuracy(classes, 5)  # pyright: ignore
        self.confusion = MulticlassConfusionMatrix(classes)
        # What the last test found: counts[true, predicted], and items to show.
        self.confusions = torch.zeros(classes, classes, dtype=torch.long)
        self.right: list[Example] = []
        self.wrong: list[Example] = []

    def _freeze(self) -> None:
        self.backbone.requires_grad_(False)
        for head in self._heads():
            head.requires_grad_(True)
        if not any(p.requires_grad for p in self.backbone.parameters()):
            raise ValueError("freeze_backbone leaves nothing to train: the backbone has no head")

    def _heads(self) -> tuple[nn.Module, ...]:
        head: Any = self.backbone.get_classifier()  # pyright: ignore[reportCallIssue]
        # Distilled models have two.
        return head if isinstance(head, tuple) else (head,)

    def train(self, mode: bool = True) -> Self:
        """Change the mode; what is frozen keeps its statistics and drops nothing."""
        super().train(mode)
        if mode and self.freeze_backbone:
            self.backbone.eval()
            for head in self._heads():
                head.train()
        return self

    def told_backbone(self) -> dict[str, Any]:
        """Constructor arguments of the backbone that follow from the data's facts."""
        return {}

    def show(self, item: Tensor, alt: str) -> str:
        """An item of a batch as markup for the report."""
        raise NotImplementedError

    def as_items(self, values: Tensor) -> Any:
        """Items of one size, ``(S, ...)``, as :meth:`forward` takes them."""
        return values

    def subject(self, item: Tensor, score: Callable[[Tensor], Tensor]) -> Subject | None:
        """How an item is varied and drawn for ``tristate explain``; None where it can't be.

        Args:
            item: as the model got it.
            score: how sure the model is of its answer, ``(S,)`` for ``S`` items of this size.
        """
        return None

    def subjects(self, batches: Iterable[Any], count: int) -> list[Subject]:
        """Up to ``count`` items, of as many classes as there are, with the classes predicted."""
        found, of_class = [], Counter[int]()
        for items, labels in batches:
            for index, label in enumerate(labels.tolist()):
                if len(found) == count:
                    return found
                if of_class[label] > len(found) // len(self.class_names):
                    continue
                if subject := self._subject(items[index], label):
                    of_class[label] += 1
                    found.append(subject)
        return found

    def _subject(self, item: Tensor, label: int) -> Subject | None:
        with torch.no_grad():
            probabilities = self(self.as_items(item[None]))[0].float().softmax(-1)
        answer = int(probabilities.argmax())

        def score(values: Tensor) -> Tensor:
            return lead(self(self.as_items(values)).float(), answer)

        subject = self.subject(item, score)
        if subject is not None:
            example = Example(item, label, answer, float(probabilities[answer]))
            subject.caption = self._said(example)
        return subject

    def setup(self, stage: str) -> None:
        """Load the weights to begin with, unless a checkpoint brings the run's own."""
        if self.pretrained is None or self.trainer.ckpt_path is not None:
            return
        result = load_pretrained(self.backbone, self.pretrained)
        rank_zero_info(f"{self.pretrained}: {result}")
        self.pretrained = None

    def forward(self, items: Any) -> Tensor:
        """Logits ``(B, K)``."""
        return self.backbone(items)

    def loss(self, batch: Any) -> Tensor:
        """Cross entropy, with smoothed labels where asked for."""
        items, labels = batch
        return F.cross_entropy(self(items), labels, label_smoothing=self.label_smoothing)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Log loss and accuracy."""
        self._evaluate("val", *batch)

    def on_test_start(self) -> None:
        """Forget a former test."""
        self.confusion.reset()
        self.right, self.wrong = [], []

    def on_test_epoch_end(self) -> None:
        """Count the confusions of all processes."""
        self.confusions = self.confusion.compute().cpu()

    def test_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Log loss and accuracy; keep what the report shows; return the logits."""
        items, labels = batch
        logits = self._evaluate("test", items, labels)
        self.confusion.update(logits, labels)
        probabilities, predicted = logits.float().softmax(-1).max(-1)
        order = probabilities.argsort(descending=True).tolist()
        hit = (predicted == labels).tolist()
        # The first right ones, in the order of the data; the most confident mistakes of all.
        right = [i for i in range(len(hit)) if hit[i]][: KEPT - len(self.right)]
        wrong = [i for i in order if not hit[i]][:KEPT]
        for chosen, kept in ((right, self.right), (wrong, self.wrong)):
            kept += [
                Example(items[i].cpu(), int(labels[i]), int(predicted[i]), float(probabilities[i]))
                for i in chosen
            ]
        self.wrong = sorted(self.wrong, key=lambda e: -e.probability)[:KEPT]
        return logits

    def _evaluate(self, stage: str, items: Any, labels: Tensor) -> Tensor:
        logits = self(items)
        size = len(labels)
        loss = F.cross_entropy(logits, labels)
        self.log(f"{stage}/loss", loss, batch_size=size, sync_dist=True, prog_bar=stage == "val")
        for name, metric in self.metrics[stage].items():  # pyright: ignore
            metric.update(logits, labels)
            shown = stage == "val" and name == self.main_metric
            self.log(f"{stage}/{name}", metric, batch_size=size, prog_bar=shown)
        return logits

    def predict_step(self, batch: Any, batch_idx: int) -> dict[str, list[Any]]:
        """Columns ``file``, ``label`` and ``probability`` for the items of a batch."""
        items, names = batch
        probabilities, predicted = self(items).float().softmax(-1).max(-1)
        return {
            "file": list(names),
            "label": [self.class_names[i] for i in predicted.tolist()],
            "probability": [f"{p:.4f}" for p in probabilities.tolist()],
        }

    def report_sections(self) -> list[Section]:
        """Mistakes and right ones, confusion matrix, figures of each class."""
        sections = [
            Section("Confusions", confusion_matrix(self.confusions, self.class_names)),
            Section("Classes", class_table(self.confusions, self.class_names)),
        ]
        for title, kept in (("Most confident mistakes", self.wrong), ("Right ones", self.right)):
            if kept:
                cells = [self._cell(example) for example in kept]
                sections.append(Section(title, grid(cells, self.cell_width)))
        return sections

    def _cell(self, example: Example) -> tuple[str, str]:
        label, predicted = (self.class_names[i] for i in (example.label, example.predicted))
        return self.show(example.item, f"{label}, predicted {predicted}"), self._said(example)

    def _said(self, example: Example) -> str:
        label, predicted = (self.class_names[i] for i in (example.label, example.predicted))
        said = f"<b>{escape(predicted)}</b> {example.probability:.0%}"
        return said if label == predicted else f"{said}<br>is {escape(label)}"


def _accuracy(classes: int, top_k: int) -> Metric:
    # Micro: the share of items, not the mean over classes.
    return MulticlassAccuracy(classes, top_k=top_k, average="micro")
