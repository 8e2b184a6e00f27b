"""The base of all data modules: facts, a seed that is kept, loaders that resume."""

from typing import Any

import torch
from lightning.pytorch import LightningDataModule

from tristate.core.seeds import global_seed
from tristate.core.training.loader import Loader, Named, Source


class DataModule(LightningDataModule):
    """A data module whose batches follow from its seed.

    A subclass tells its ``facts`` right after construction and makes its loaders with
    :meth:`loader`.

    Args:
        batch_size: items of a batch, in each process.
        workers: processes that prepare batches; 0 for none beside the training.
        seed: root of the order and of the augmentation; None takes the run's global seed. It is
            kept in checkpoints, and a resumed run goes on with it.
    """

    def __init__(self, batch_size: int, workers: int, seed: int | None) -> None:
        super().__init__()
        if batch_size < 1 or workers < 0:
            raise ValueError(
                "batch_size must be at least 1 and workers at least 0, "
                f"got {batch_size} and {workers}"
            )
        self.batch_size, self.workers = batch_size, workers
        self.seed = seed if seed is not None else global_seed()

    @property
    def facts(self) -> dict[str, Any]:
        """What a task has to know of the data, as plain values: ``class_names`` and the like."""
        raise NotImplementedError

    def loader(
        self,
        source: Source,
        *,
        train: bool = False,
        repeats: int = 1,
        batch_size: int | None = None,
        pieces: int = 1,
    ) -> Loader:
        """Batches of ``source``: shuffled and full ones in training, else all items in order.

        Args:
            source: the data set.
            train: whether it is for training.
            repeats: see :class:`tristate.core.training.loader.Loader`.
            batch_size: items of a batch, where it is not the module's own.
            pieces: see :class:`tristate.core.training.loader.Loader`. The module tells them in its
                facts, so that a task hands states on.
        """
        batch_size = batch_size or self.batch_size
        return Loader(
            source,
            # A set that does not fill a batch still trains.
            min(batch_size, max(1, len(source) // self._world_size)) if train else batch_size,
            shuffle=train,
            drop_last=train,
            seed=self.seed,
            repeats=repeats,
            pieces=pieces,
            workers=self.workers,
            rank=self.trainer.global_rank if self.trainer else 0,
            world_size=self._world_size,
            pin_memory=torch.cuda.is_available() and self.workers > 0,
        )

    @property
    def _world_size(self) -> int:
        return self.trainer.world_size if self.trainer else 1

    def state_dict(self) -> dict[str, Any]:
        """The seed."""
        return {"seed": self.seed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the seed of the run that is resumed."""
        self.seed = state_dict["seed"]


class PartedData(DataModule):
    """A data module whose ``setup`` puts one source each into ``parts``: train, val and test.

    Args:
        batch_size: as :class:`DataModule`.
        workers: as :class:`DataModule`.
        seed: as :class:`DataModule`.
    """

    test_name = "test"  # what the names of the test part's items begin with

    def __init__(self, batch_size: int, workers: int, seed: int | None) -> None:
        super().__init__(batch_size, workers, seed)
        self.parts: dict[str, Any] = {}

    def train_dataloader(self) -> Loader:
        """What there is to train on, in a new order each epoch."""
        return self.loader(self.parts["train"], train=True)

    def val_dataloader(self) -> Loader:
        """What to validate on, the same each time."""
        return self.loader(self.parts["val"])

    def test_dataloader(self) -> Loader:
        """What to test on, the same each time."""
        return self.loader(self.parts["test"])

    def predict_dataloader(self) -> Loader:
        """What to test on, with its names."""
        return self.loader(Named(self.parts["test"], self.test_name))
