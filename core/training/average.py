"""The moving average of the weights: what is validated, saved and tested."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

TRAINED = "trained_state_dict"
"""Where a checkpoint keeps the weights that training goes on with."""


class WeightAverage(Callback):
    """Keeps an exponential moving average of the weights while training.

    Validation sees the average; a checkpoint's ``state_dict`` is the average, so that whatever
    loads it gets those weights, and the weights that are being trained stand beside it. After
    training the module holds the average.

    The decay is ``min(decay, (1 + n) / (10 + n))`` after ``n`` updates: the first weights are soon
    forgotten. Whole numbers, such as a batch norm's count, are copied.

    Args:
        decay: share of the average that an optimiser step keeps, in ``(0, 1)``.

    Raises:
        ValueError: ``decay`` is outside.
    """

    def __init__(self, decay: float) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"the decay of the weights' average must be in (0, 1), got {decay}")
        self.decay = decay
        self._updates = 0
        self._average: dict[str, Tensor] = {}
        # Whether the module holds the average, and `_average` what is being trained.
        self._swapped = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with the weights as they are, or go on with those of the checkpoint."""
        self._swap(pl_module, False)
        now = pl_module.state_dict()
        if self._average.keys() != now.keys():
            self._average, self._updates = {k: v.detach().clone() for k, v in now.items()}, 0
        self._average = {k: v.to(now[k].device) for k, v in self._average.items()}
        self._seen = trainer.global_step
        # Looked up once: a state dict of many small modules takes as long as the update itself.
        pairs = [(value, now[key]) for key, value in self._average.items()]
        self._averaged = [p for p in pairs if p[0].is_floating_point() or p[0].is_complex()]
        self._copied = [p for p in pairs if not (p[0].is_floating_point() or p[0].is_complex())]

    @torch.no_grad()
    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Update after each step of the optimiser."""
        if trainer.global_step == self._seen:
            return
        self._seen = trainer.global_step
        decay = min(self.decay, (1 + self._updates) / (10 + self._updates))
        self._updates += 1
        averages, values = zip(*self._averaged, strict=True)
        torch._foreach_lerp_(averages, values, 1 - decay)
        for kept, value in self._copied:
            kept.copy_(value)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the average in the module."""
        self._swap(pl_module, True)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate the average."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._swap(pl_module, True)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on with the weights that are being trained."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._swap(pl_module, False)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Put the average where weights are looked for, and the trained ones beside it."""
        if not self._average:
            return
        module, other = checkpoint["state_dict"], _copy(self._average)
        average, trained = (module, other) if self._swapped else (other, module)
        checkpoint["state_dict"], checkpoint[TRAINED] = average, trained

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take both sets of weights back, where training goes on; else only the average counts."""
        self._average, self._swapped = {}, False
        if trainer.state.fn == TrainerFn.FITTING and TRAINED in checkpoint:
            self._average = _copy(checkpoint["state_dict"])
            pl_module.load_state_dict(checkpoint[TRAINED])

    def state_dict(self) -> dict[str, Any]:
        """How many updates there were."""
        return {"updates": self._updates}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As saved."""
        self._updates = state_dict["updates"]

    @torch.no_grad()
    def _swap(self, pl_module: LightningModule, swapped: bool) -> None:
        """Let the module hold the average, or what is being trained; values move, not tensors."""
        if swapped == self._swapped or not self._average:
            return
        for key, value in pl_module.state_dict().items():
            kept = value.clone()
            value.copy_(self._average[key])
            self._average[key].copy_(kept)
        self._swapped = swapped


def _copy(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in state.items()}
