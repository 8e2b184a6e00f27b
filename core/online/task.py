"""Learning from a stream, online beside truncated back-propagation through time."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torchmetrics import MeanMetric

from tristate.core.online.learners import OnlineLearner, TruncatedLearner
from tristate.core.tasks.problem import IGNORE
from tristate.core.training.curves import line_chart
from tristate.core.training.report import Section
from tristate.core.training.task import Task
from tristate.core.zoo import create_model

LEARNERS = ("online", "truncated")
BINS = 50  # of the chart


class StreamLearning(Task):
    """Two equal models read one stream: one learns online, one back through a window.

    Both take one optimiser step a piece, by the gradients of the answers in it. What counts is the
    share answered right before they were learnt from, in the order of the stream; the metric of the
    run is the online learner's on a stretch after it, from which nothing is learnt.

    Args:
        backbone: name of a model that answers at each position and has a stack.
        backbone_args: its constructor arguments; inputs and answers come from the data.
        window: positions of the rival's back-propagation.
        clip: largest norm of the gradient of each model.
        facts: of the data: ``vocab_size``, ``n_classes``, ``n_pieces`` and ``change``.
        **optim: of :class:`tristate.core.training.task.Task`.

    Raises:
        ValueError: an argument is unknown to the backbone, or its mixers can't be learnt online.
    """

    main_metric = "accuracy"
    main_mode = "max"
    unit = "positions"

    def __init__(
        self,
        backbone: str = "tokens",
        *,
        backbone_args: dict[str, Any] | None = None,
        window: int = 16,
        clip: float = 1.0,
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
        self.rival: Any = copy.deepcopy(self.backbone)
        self.clip = clip
        self.learners: dict[str, Any] = {
            "online": OnlineLearner(self.backbone),
            "truncated": TruncatedLearner(self.rival, window),
        }
        self.window = window
        # States of both models in the stretch that is validated or tested on.
        self.reading: dict[str, Any] = {}
        # Right answers of each learner by piece; part of every checkpoint.
        self.history: Tensor
        self.register_buffer("history", torch.zeros(self.facts["n_pieces"], len(LEARNERS)))
        self.measured = nn.ModuleDict({name: MeanMetric() for name in LEARNERS})
        # Each learner propagates its own losses back, several times a step.
        self.automatic_optimization = False

    def n_items(self, batch: Any) -> int:
        """Positions."""
        return batch[1].numel()

    def training_step(self, batch: Any, batch_idx: int) -> None:  # pyright: ignore
        """Read a piece, learn from its answers."""
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        shares = [self.learners[name].learn(*batch) for name in LEARNERS]
        for model in (self.backbone, self.rival):
            nn.utils.clip_grad_norm_(model.parameters(), self.clip, error_if_nonfinite=True)
        optimizer.step()
        self.history[batch_idx] = torch.stack(shares)
        if self.logs_now:
            self.log("train/accuracy", shares[0], prog_bar=True, on_step=True, on_epoch=False)
            self.log("train/accuracy_truncated", shares[1], on_step=True, on_epoch=False)

    def _measure(self, batch: Any) -> None:
        inputs, labels = batch
        due = labels != IGNORE
        for name, model in zip(LEARNERS, (self.backbone, self.rival), strict=True):
            # A stretch is read as the stream is, from state to state.
            x, state = model.embed(inputs)[0], self.reading.get(name)
            tokens, self.reading[name] = model.stack.forward_state(x, state)
            answers = model.forward_head(tokens[due][:, None])[:, 0].argmax(1)
            self.measured[name].update((answers == labels[due]).float())  # pyright: ignore

    def _log(self, stage: str) -> None:
        for name, key in zip(LEARNERS, ("accuracy", "accuracy_truncated"), strict=True):
            metric: Any = self.measured[name]
            self.log(f"{stage}/{key}", metric.compute(), prog_bar=True)
            metric.reset()

    def on_validation_epoch_start(self) -> None:
        """Begin the stretch with nothing read."""
        self.reading.clear()

    def on_test_epoch_start(self) -> None:
        """Begin the stretch with nothing read."""
        self.reading.clear()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Answer without learning."""
        self._measure(batch)

    def on_validation_epoch_end(self) -> None:
        """Log both learners' shares of right answers."""
        self._log("val")

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Answer without learning."""
        self._measure(batch)

    def on_test_epoch_end(self) -> None:
        """Log both learners' shares of right answers."""
        self._log("test")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep where the learners stand in the stream."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["learners"] = {
            name: pytree.tree_leaves(learner.state) for name, learner in self.learners.items()
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on from there."""
        super().on_load_checkpoint(checkpoint)
        for name, leaves in checkpoint["learners"].items():
            if leaves:
                learner = self.learners[name]
                stack = learner.twin if name == "online" else learner.model.stack
                shape = pytree.tree_structure(stack.init_state(1))
                learner.state = pytree.tree_unflatten(leaves, shape)

    def report_sections(self) -> list[Section]:
        """Wrong answers over the stream, of both learners."""
        names = ("online", f"window of {self.window}")
        means = [part.mean(0) for part in (1 - self.history).tensor_split(BINS) if len(part)]
        step = len(self.history) / len(means)
        series = {
            css: [((i + 0.5) * step, float(mean[k])) for i, mean in enumerate(means)]
            for k, css in enumerate(("model", "training"))
        }
        keys = "".join(
            f'<span class="key {css}">{name} <b>{points[-1][1]:.3f}</b></span>'
            for (css, points), name in zip(series.items(), names, strict=True)
        )
        chart = line_chart("wrong answers", series, "piece of the stream")
        figure = f"<figure><figcaption>{keys}</figcaption>{chart}</figure>"
        change = self.facts["change"]
        return [
            Section(
                "Wrong answers as the stream went by",
                f"<p>Before each was learnt from. The rule changed at piece {change}.</p>"
                f'<div class="charts">{figure}</div>',
            )
        ]
