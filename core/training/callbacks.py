"""What goes on beside the learning: speed and memory are measured, predictions written."""

import csv
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from tristate.core.errors import UserError


def peak_memory(device: torch.device) -> float:
    """Largest memory so far in MB (10^6 bytes): allocated on a GPU, else resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in units of 1024 bytes, macOS in bytes.
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6


class Throughput(Callback):
    """Logs ``train/UNIT_per_second``, over all processes, and ``train/memory_mb``.

    The time between the ends of two training batches counts, with their loading; validation and
    the first batch of an epoch do not. The module is a :class:`tristate.core.training.task.Task`:
    it tells its ``unit`` and the size of a batch, ``n_items(batch)``.
    """

    def __init__(self) -> None:
        self._restart()

    def _restart(self) -> None:
        self._items, self._seconds, self._last = 0, 0.0, None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do not count what lies between two epochs."""
        self._last = None

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do not count validation."""
        self._last = None

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Count, and log when the trainer logs."""
        now = time.perf_counter()
        if self._last is not None:
            self._seconds += now - self._last
            self._items += pl_module.n_items(batch) * trainer.world_size  # pyright: ignore
        self._last = now
        every: int = trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]
        if not self._seconds or trainer.global_step % every:
            return
        rate, name = self._items / self._seconds, f"train/{pl_module.unit}_per_second"
        pl_module.log(name, rate, prog_bar=True, on_epoch=False)
        pl_module.log("train/memory_mb", peak_memory(pl_module.device), on_epoch=False)
        self._items, self._seconds = 0, 0.0


class PredictionWriter(Callback):
    """Writes what ``predict_step`` returns, columns of equal length by name, to a file.

    The file is in the trainer's ``default_root_dir``; it is written batch by batch, and complete
    under its name only when all is predicted.

    Args:
        name: of the file; between the columns stand tabs for ``.tsv``, else commas.
    """

    def __init__(self, name: str = "predictions.csv") -> None:
        self.name = name
        self._file, self._writer, self._part = None, None, Path()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the file.

        Raises:
            UserError: several processes predict, which would tear the order of the rows.
        """
        if trainer.world_size > 1:
            raise UserError(f"predict in one process, not {trainer.world_size}: set devices to 1")
        self._part = Path(trainer.default_root_dir) / f"{self.name}.part"
        self._part.parent.mkdir(parents=True, exist_ok=True)
        self._file, self._writer = self._part.open("w", newline="", encoding="utf-8"), None

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Mapping[str, Sequence[Any]],
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the rows of a batch."""
        if self._writer is None:
            tabs = self.name.endswith(".tsv")
            self._writer = csv.writer(self._file, "excel-tab" if tabs else "excel")  # pyright: ignore
            self._writer.writerow(outputs)
        self._writer.writerows(zip(*outputs.values(), strict=True))

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the file and give it its name."""
        if self._file:
            self._file.close()
            self._part.replace(self._part.with_suffix(""))

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Leave the rows written so far under the name with ``.part``."""
        if self._file:
            self._file.close()
