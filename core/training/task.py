"""The base of all tasks: optimiser, schedule, average of weights, reproducible draws."""

from collections.abc import Callable, Iterable
from typing import Any, Literal, Self

import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import Timer
from torch import Tensor
from torchmetrics import Metric

from tristate.core.checkpoint import not_finite
from tristate.core.errors import UserError
from tristate.core.explain.subject import Subject
from tristate.core.seeds import global_seed, seed_all
from tristate.core.training.average import WeightAverage
from tristate.core.training.callbacks import PredictionWriter, Throughput
from tristate.core.training.carry import Carry
from tristate.core.training.optim import parameter_groups, warmup_cosine
from tristate.core.training.report import Section


class Task(LightningModule):
    """Trains with AdamW, a linear warm-up and a cosine; a subclass computes the loss.

    The schedule follows the share of the run that is done: optimiser steps of all steps or, where
    the trainer has a ``max_time`` and this share is larger, time of all time. So a run that its
    budget cuts short is still annealed; where the budget leaves slack it plays no part.

    All random numbers of a training step follow from the run's seed, the step and the process:
    a run resumed from a checkpoint draws what it would have drawn.

    Args:
        lr: largest learning rate.
        ssm_lr: largest learning rate of the recurrences' own parameters (step sizes, eigenvalues),
            where it is not the one that they bring; see
            :func:`tristate.core.training.optim.parameter_groups`.
        weight_decay: AdamW's; see :func:`tristate.core.training.optim.parameter_groups`.
        betas: AdamW's.
        warmup: share of the run in which the learning rate rises.
        lr_floor: learning rate at the end, as a share of ``lr``.
        layer_decay: factor of the learning rate from a layer to the one below; None for none.
        ema: decay of the weights' moving average, which is then validated and saved; None for none.
        facts: what the data module tells of its data. Where a batch is one of several ``pieces`` of
            longer sequences, ``carry`` hands the model's state on from one to the next.

    Raises:
        ValueError: a number is out of its range.
    """

    main_metric: str = "loss"
    """Name of the metric by which runs are compared; logged as ``val/...`` and ``test/...``."""

    main_mode: Literal["min", "max"] = "min"
    """Whether small or large is good."""

    unit: str = "items"
    """What a batch is counted in; throughput is logged as ``train/UNIT_per_second``."""

    predictions: str = "predictions.csv"
    """The file that predictions are written to; ``.tsv`` puts tabs between the columns."""

    def __init__(
        self,
        *,
        lr: float = 1e-3,
        ssm_lr: float | None = None,
        weight_decay: float = 0.05,
        betas: tuple[float, float] = (0.9, 0.999),
        warmup: float = 0.05,
        lr_floor: float = 0.0,
        layer_decay: float | None = None,
        ema: float | None = None,
        facts: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        for name, value in {"lr": lr, "ssm_lr": ssm_lr, "weight_decay": weight_decay}.items():
            if value is not None and value < 0:
                raise ValueError(f"{name} must be at least 0, got {value}")
        for name, value in {"warmup": warmup, "lr_floor": lr_floor}.items():
            if not 0 <= value <= 1:
                raise ValueError(f"{name} is a share between 0 and 1, got {value}")
        self.lr, self.ssm_lr, self.betas = lr, ssm_lr, (betas[0], betas[1])
        self.weight_decay = weight_decay
        self.warmup, self.lr_floor, self.layer_decay = warmup, lr_floor, layer_decay
        self.facts = dict(facts or {})
        self.carry = Carry(self.facts.get("pieces", 1))
        self._callbacks = [Throughput(), PredictionWriter(self.predictions)]
        if ema is not None:
            self._callbacks.append(WeightAverage(ema))
        self._seed: int | None = None
        # Seconds into the run when its first step was done: starting up is not training.
        self._clock_start: float | None = None

    def loss(self, batch: Any) -> Tensor:
        """The loss of a training batch, a scalar."""
        raise NotImplementedError

    def n_items(self, batch: Any) -> int:
        """How many items a batch holds; by default the length of its first part."""
        return len(batch[0])

    def report_sections(self) -> list[Section]:
        """The task's part of a run's report, after testing."""
        return []

    def subjects(self, batches: Iterable[Any], count: int) -> list[Subject]:
        """Up to ``count`` items of ``batches`` with what the model answers, to be explained.

        None where the task doesn't say how its items are varied and drawn.
        """
        return []

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move or convert; in half precision the metrics still count in float32."""
        super()._apply(fn, recurse)
        for metric in self.modules():
            if isinstance(metric, Metric) and metric.dtype in (torch.bfloat16, torch.float16):
                metric.to(torch.float32)
        return self

    def configure_callbacks(self) -> list[Callback]:
        """What every run needs: throughput, predictions, the weights' average where wanted."""
        return [*self._callbacks]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW over the groups of parameters."""
        groups = parameter_groups(
            self,
            self.weight_decay,
            lr=self.lr,
            ssm_lr=self.ssm_lr,
            layer_decay=self.layer_decay,
        )
        # One kernel for all parameters; on a GPU the default does as well, with any precision.
        fused = all(p.device.type == "cpu" for group in groups for p in group["params"])
        return torch.optim.AdamW(groups, self.lr, self.betas, fused=fused or None)

    def on_fit_start(self) -> None:
        """Take the run's seed, unless a checkpoint brought it."""
        if self._seed is None:
            self._seed = global_seed()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Set the learning rate and the random generators for this step."""
        self.carry.begin(batch_idx)
        factor = warmup_cosine(self.progress(), self.warmup, self.lr_floor)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.lr * group["lr_scale"] * factor
        if self.logs_now:
            self.log("train/lr", self.lr * factor, on_step=True, on_epoch=False)
        place = (self.trainer.fit_loop.total_batch_idx, self.global_rank)
        seed_all(self._seed or 0, *place, device=self.device)

    @property
    def logs_now(self) -> bool:
        """Whether the trainer writes this step down; to log at other steps only takes time."""
        every: int = self.trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]
        return (self.global_step + 1) % every == 0

    def progress(self) -> float:
        """The share of the run that lies behind at the middle of the next step, 0 to 1."""
        steps = self.trainer.estimated_stepping_batches
        done = (self.trainer.global_step + 0.5) / steps
        return min(max(done, self._spent()), 1.0)

    def _spent(self) -> float:
        """The share of the time budget that is used up, the same in all processes."""
        timer = next((c for c in self.trainer.callbacks if isinstance(c, Timer)), None)  # pyright: ignore
        left = timer.time_remaining() if timer else None
        if timer is None or left is None:
            return 0.0
        elapsed = timer.time_elapsed()
        if self._clock_start is None:
            if not self.trainer.global_step:
                return 0.0
            self._clock_start = elapsed
        budget = elapsed + left - self._clock_start
        spent = (elapsed - self._clock_start) / budget if budget > 0 else 1.0
        return self.trainer.strategy.broadcast(spent) if self.trainer.world_size > 1 else spent

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The loss, logged.

        Raises:
            UserError: it is not finite.
        """
        loss = self.loss(batch)
        if not torch.isfinite(loss):
            raise UserError(
                f"the loss became {loss.item()} in step {self.global_step} (epoch "
                f"{self.current_epoch}): lower lr, lengthen warmup or clip gradients; "
                f"{self._saved()}"
            )
        if self.logs_now:
            self.log("train/loss", loss.detach(), prog_bar=True, on_step=True, on_epoch=False)
        return loss

    def _saved(self) -> str:
        """What of the run is kept, for the end of a sentence."""
        paths = [getattr(c, "best_model_path", "") for c in self.trainer.checkpoint_callbacks]
        paths = [path for path in paths if path]
        if not paths:
            return "no checkpoint was saved yet"
        return f"what was saved before is intact: {', '.join(paths)}"

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the run's seed, clock and state; refuse to write weights that are not finite."""
        if broken := not_finite(checkpoint["state_dict"]):
            raise UserError(
                f"{broken} is no longer finite after step {checkpoint['global_step']}: lower lr or "
                f"clip gradients; {self._saved()}"
            )
        checkpoint["task"] = {
            "seed": self._seed,
            "clock_start": self._clock_start,
            "carry": self.carry.tensors(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the seed, clock and state of the run that is resumed."""
        kept = checkpoint.get("task", {})
        self.carry.restore(kept.get("carry", []))
        self._seed, self._clock_start = kept.get("seed"), kept.get("clock_start")
