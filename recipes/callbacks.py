"""What every run has besides its recipe: checkpoints, its record, and progress on the terminal."""

import sys
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar, RichProgressBar

from tristate.core.callbacks import Throughput
from tristate.core.task import Task
from tristate.recipes.record import write_record


def checkpoints(task: Task, folder: Path) -> list[ModelCheckpoint]:
    """``best.ckpt``, by the task's main metric on the validation data, and ``last.ckpt``."""
    shared: dict[str, Any] = {
        "dirpath": folder / "checkpoints",
        "auto_insert_metric_name": False,
        # One file of each name, replaced as a whole: a kill leaves the former one usable.
        "enable_version_counter": False,
    }
    best = ModelCheckpoint(
        filename="best", monitor=f"val/{task.main_metric}", mode=task.main_mode, **shared
    )
    last = ModelCheckpoint(filename="last", save_on_train_epoch_end=True, **shared)
    return [best, last]


class Record(Callback):
    """Writes the resolved configuration, versions, seed, command and device as a run begins.

    Args:
        command: the command line.
        resolved: the configuration as YAML.
        seed: what the random generators were seeded with.
    """

    def __init__(self, command: list[str], resolved: str, seed: Any) -> None:
        self.command = command
        self.resolved = resolved
        self.seed = seed

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write, from the first process."""
        folder = trainer.log_dir
        if folder is None or not trainer.is_global_zero or trainer.fast_dev_run:
            return
        # The logger empties a folder that has files when it first writes: let it come first.
        _ = trainer.logger and trainer.logger.experiment
        write_record(Path(folder), self.command, self.resolved, self.seed, trainer)


class Bar(RichProgressBar):
    """Lightning's bar without the version of the logger, which the run's folder tells."""

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """The metrics behind the bar."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics


class Lines(ProgressBar):
    """One line an epoch, for a log file where a progress bar would be noise."""

    def enable(self) -> None:
        """Nothing to show or hide: the lines come from the first process alone."""

    disable = enable

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the newest value of every metric."""
        if not trainer.is_global_zero:
            return
        metrics = trainer.callback_metrics
        values = "  ".join(
            f"{name} {float(value):.4g}"
            for name, value in sorted(metrics.items())
            if not name.endswith("_step")
        )
        print(f"epoch {trainer.current_epoch + 1}  {values}", flush=True)


def shared_callbacks(task: Task, folder: Path, record: Record, settings: Any) -> list[Callback]:
    """The callbacks of every run, as far as the trainer's ``settings`` want them."""
    callbacks: list[Callback] = [record, Throughput()]
    if settings.enable_checkpointing is not False:
        callbacks += checkpoints(task, folder)
    if settings.enable_progress_bar is not False:
        callbacks.append(Bar() if sys.stdout.isatty() else Lines())
    return callbacks
