"""How large a stack's insides are, layer by layer: what tells a divergence before the loss does."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from tristate.core.mixer import Mixer
from tristate.core.stack import Stack


def rms(*tensors: Tensor) -> Tensor:
    """Root of the mean square of all numbers in ``tensors``, of complex ones by modulus."""
    squares = [tensor.detach().abs().float().square() for tensor in tensors]
    total = torch.stack([square.sum() for square in squares]).sum()
    return (total / max(1, sum(square.numel() for square in squares))).sqrt()


class LayerRMS(Callback):
    """Logs root mean squares of every block of the task's stacks whenever the trainer logs.

    ``rms/BLOCK/out`` is what the block adds to the stream, ``out_grad`` the loss's gradient by it,
    ``weight_grad`` the gradient of the block's parameters before it is clipped, and ``state_FIELD``
    each part of the causal mixers' state after the batch. Where batches have nothing to do with
    each other that state takes a second pass forwards, without gradients and padding or not.

    Args:
        states: log the states as well.
    """

    def __init__(self, states: bool = True) -> None:
        self.states = states
        self._handles: list[Any] = []
        self._values: dict[str, Tensor] = {}
        self._entered: dict[Stack, Tensor] = {}

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Begin to watch, if the trainer logs after this step."""
        if pl_module.logs_now:
            for prefix, stack in _stacks(pl_module):
                for index, block in enumerate(stack.blocks):
                    self._watch(f"{prefix}{index:02d}", block)
                if self.states and _has_state(stack):
                    self._watch_entrance(stack)

    def _watch(self, name: str, block: nn.Module) -> None:
        def leave(_module: nn.Module, _inputs: Any, out: Tensor) -> None:
            self._values[f"{name}/out"] = rms(out)
            if out.requires_grad:
                out.register_hook(lambda grad: self._values.update({f"{name}/out_grad": rms(grad)}))

        # Whichever way a block is called, what it adds leaves through here.
        self._handles.append(block.get_submodule("drop_path").register_forward_hook(leave))

    def _watch_entrance(self, stack: Stack) -> None:
        def enter(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            self._entered[stack] = inputs[0].detach()

        self._handles.append(stack.register_forward_pre_hook(enter))

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Any
    ) -> None:
        """Measure the gradients before they are clipped."""
        if not self._handles:
            return
        for prefix, stack in _stacks(pl_module):
            for index, block in enumerate(stack.blocks):
                grads = [p.grad for p in block.parameters() if p.grad is not None]
                if grads:
                    self._values[f"{prefix}{index:02d}/weight_grad"] = rms(*grads)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Log, and stop watching."""
        if not self._handles:
            return
        for handle in self._handles:
            handle.remove()
        self._handles = []
        for prefix, stack in _stacks(pl_module):
            for index, state in enumerate(self._states(pl_module, stack)):
                for field, part in _parts(state):
                    self._values[f"{prefix}{index:02d}/state_{field}"] = rms(part)
        for name, value in sorted(self._values.items()):
            pl_module.log(f"rms/{name}", value, on_step=True, on_epoch=False)
        self._values, self._entered = {}, {}

    @torch.no_grad()
    def _states(self, task: Any, stack: Stack) -> list[Any]:
        """The state after the batch, an entry a block; none where it isn't known."""
        if not self.states:
            return []
        carried = getattr(task.carry.state, "stack", task.carry.state)
        if carried is not None:
            return carried
        if stack not in self._entered:
            return []
        return stack.forward_state(self._entered[stack])[1]


def _stacks(module: nn.Module) -> list[tuple[str, Stack]]:
    """The stacks of a task, with a prefix where there are several."""
    named = [(name, child) for name, child in module.named_modules() if isinstance(child, Stack)]
    return [("" if len(named) == 1 else f"{name}.", child) for name, child in named]


def _has_state(stack: Stack) -> bool:
    return all(m.causal for m in stack.modules() if isinstance(m, Mixer))


def _parts(state: Any) -> list[tuple[str, Tensor]]:
    """The floating point tensors of a block's state by name."""
    if state is None:
        return []
    found = []
    for field, part in state._asdict().items():
        if isinstance(part, Tensor):
            found += [(field, part)] if part.is_floating_point() or part.is_complex() else []
        else:
            found += [(f"{field}_{name}", inner) for name, inner in _parts(part)]
    return found
