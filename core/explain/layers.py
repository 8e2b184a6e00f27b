"""The layers of a model, each with the calls of ops that one pass made in it."""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import nn

from tristate.core.explain.calls import Call, watching
from tristate.core.grid import GridMixer
from tristate.core.mixer import Mixer


class Layer(NamedTuple):
    """A mixer of the model, or any other module that called an op.

    Attributes:
        name: where it stands in the model.
        module: itself.
        calls: in the order of the pass; none where it mixes positions by other means, or not.
    """

    name: str
    module: nn.Module
    calls: list[Call]

    @property
    def kind(self) -> str:
        """What it is called."""
        return type(self.module).__name__


def layers_of(model: nn.Module, run: Callable[[], Any]) -> list[Layer]:
    """All layers of ``model``, in its order, with the calls that ``run`` makes in them.

    Layers are the mixers that stand in no other mixer. What calls an op outside of any, as the
    attention of other libraries' models does, comes behind them under its own name.

    Args:
        model: whose layers.
        run: passes something through the model, once.
    """
    found: dict[str, Layer] = {}
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in found)
        if isinstance(module, Mixer | GridMixer) and not inside:
            found[name] = Layer(name, module, [])

    entered: list[tuple[str, nn.Module]] = []

    def keep(call: Call) -> Any:
        name, module = next((e for e in entered if e[0] in found), entered[-1])
        found.setdefault(name, Layer(name, module, [])).calls.append(call)
        return call.result()

    def watch(name: str, module: nn.Module) -> list[Any]:
        return [
            module.register_forward_pre_hook(lambda *_: entered.append((name, module))),
            module.register_forward_hook(lambda *_: _drop(entered), always_call=True),
        ]

    handles = [h for name, module in model.named_modules() for h in watch(name, module)]
    try:
        with watching(keep):
            run()
    finally:
        for handle in handles:
            handle.remove()
    return list(found.values())


def _drop(entered: list[Any]) -> None:
    entered.pop()
