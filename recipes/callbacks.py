"""What every run has besides its recipe: checkpoints, its record, and progress on the terminal."""

import shutil
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar, RichProgressBar
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from tristate.core.training.task import Task
from tristate.recipes.record import write_record


def checkpoints(task: Task, folder: Path) -> list[ModelCheckpoint]:
    """``best.ckpt``, by the task's main metric on the validation data, and ``last.ckpt``."""
    shared: dict[str, Any] = {
        "dirpath": folder / "checkpoints",
        "auto_insert_metric_name": False,
        # One file of each name, replaced as a whole: a kill leaves the former one usable.
        "enable_version_counter": False,
    }
    best = Checkpoint(
        filename="best", monitor=f"val/{task.main_metric}", mode=task.main_mode, **shared
    )
    last = Checkpoint(filename="last", save_on_train_epoch_end=True, **shared)
    return [best, last]


class Checkpoint(ModelCheckpoint):
    """One file of a name, which a resumed run takes along into its own folder."""

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        """Whether to keep this score; of equal ones the later, from the smaller learning rate."""
        better = super().check_monitor_top_k(trainer, current)
        kept = self.best_k_models.get(self.kth_best_model_path)
        return better or (current is not None and kept is not None and bool(current == kept))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the best score so far, and with a copy of its file beside the new ones.

        Lightning forgets the score when the folder changes: the best would start afresh.
        """
        best, folder = Path(state_dict["best_model_path"]), Path(self.dirpath or "")
        if not state_dict["best_model_path"] or not best.is_file():
            return
        kept = folder / best.name
        _copy(best, kept)
        score = state_dict["best_model_score"]
        super().load_state_dict(
            {
                **state_dict,
                "dirpath": self.dirpath,
                "best_model_path": str(kept),
                "kth_best_model_path": str(kept),
                "best_k_models": {str(kept): score} if score is not None else {},
                "last_model_path": "",
            }
        )


@rank_zero_only
def _copy(source: Path, target: Path) -> None:
    if source != target:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


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
        # Asking for it is a word between all processes.
        folder, logger = trainer.log_dir, trainer.logger
        # A trial run (fast_dev_run) has another logger and leaves nothing.
        if folder is None or not trainer.is_global_zero or not isinstance(logger, CSVLogger):
            return
        # The logger empties a folder that has files when it first writes: let it come first.
        _ = logger.experiment
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
            if name not in ("train/lr", "train/memory_mb") and not name.startswith("rms/")
        )
        print(f"epoch {trainer.current_epoch + 1}  {values}", flush=True)
