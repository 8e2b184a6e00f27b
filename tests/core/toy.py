"""A task and data of seconds, with everything in them that is random: for the tests of training."""

import sys
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.nn import functional as F

from tristate.core.training.data import DataModule
from tristate.core.training.loader import Items
from tristate.core.training.task import Task

# Lightning asks in a way that PyTorch has deprecated; and it wonders at the checkpoints of a run
# that these tests resume elsewhere.
LIGHTNING = (
    "ignore:.*LeafSpec:FutureWarning",
    "ignore:The dirpath has changed",
    "ignore:Checkpoint directory .* is not empty",
)

ITEMS, BATCH = 40, 8  # five batches an epoch


class Noisy:
    """Items that are drawn with noise, as an augmentation would."""

    def __len__(self):
        return ITEMS

    def __getitem__(self, index):
        return torch.arange(4.0) * index / ITEMS + 0.1 * torch.randn(4), torch.tensor(index % 3)


class ToyData(DataModule):
    def __init__(self, seed=3, workers=0):
        super().__init__(BATCH, workers, seed)

    @property
    def facts(self):
        return {"class_names": ["a", "b", "c"]}

    def train_dataloader(self):
        return self.loader(Items(Noisy()), train=True)

    def val_dataloader(self):
        return self.loader(Items(Noisy()))


class ToyTask(Task):
    """A small network with dropout and a batch norm, so that generators and buffers count."""

    def __init__(self, break_at=None, **optim):
        super().__init__(**optim)
        self.save_hyperparameters()
        self.net = nn.Sequential(
            nn.Linear(4, 16), nn.BatchNorm1d(16), nn.Dropout(0.3), nn.Linear(16, 3)
        )
        self.break_at = break_at

    def loss(self, batch):
        items, labels = batch
        loss = F.cross_entropy(self.net(items), labels)
        return loss * float("nan") if self.global_step == self.break_at else loss

    def validation_step(self, batch, batch_idx):
        items, labels = batch
        self.log("val/loss", F.cross_entropy(self.net(items), labels))


class Diary(Callback):
    """Notes each training and validation loss exactly; ends as told after a training batch."""

    def __init__(self, end_after=None, end=None):
        self.train, self.val = [], []
        self.end_after, self.end = end_after, end

    def on_train_batch_end(self, trainer, pl_module, outputs: Any, batch, batch_idx):
        self.train.append(float(outputs["loss"]).hex())

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if self.end and trainer.fit_loop.total_batch_idx == self.end_after:
            self.end()

    def on_validation_epoch_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.val.append(float(trainer.callback_metrics["val/loss"]).hex())


def make_trainer(folder, diary, **options):
    """A trainer that keeps ``last.ckpt`` after every second step and after each epoch."""
    shared = {"dirpath": Path(folder), "enable_version_counter": False}
    settings = {
        "max_epochs": 4,
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": folder,
        **options,
    }
    callbacks = [
        diary,
        ModelCheckpoint(filename="last", every_n_train_steps=2, **shared),
        ModelCheckpoint(filename="epoch", save_on_train_epoch_end=True, **shared),
    ]
    return Trainer(callbacks=callbacks, **settings)


def make_task(**options):
    torch.manual_seed(0)
    return ToyTask(**{"lr": 0.02, "ema": 0.9, **options})


def main(folder, end_after):
    """Train, and die of signal 9 before batch ``end_after``."""
    import os
    import signal

    diary = Diary(int(end_after), lambda: os.kill(os.getpid(), signal.SIGKILL))
    make_trainer(folder, diary).fit(make_task(), ToyData())


if __name__ == "__main__":
    main(*sys.argv[1:])
