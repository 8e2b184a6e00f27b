"""A domain's models by name, where each name stands for a class and some of its arguments."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import nn

from tristate.core.arguments import call
from tristate.kernels.registry import Registry, nearest


class Variant(NamedTuple):
    """What a name stands for.

    Attributes:
        model: name of the class in the table of classes.
        arguments: of its constructor; a caller's are laid over them.
        cfg: ``pretrained_cfg`` of the model, as timm has it: what its inputs are, whose work it is.
    """

    model: str
    arguments: dict[str, Any]
    cfg: dict[str, Any]


class Variants:
    """A zoo for :data:`tristate.core.zoo.ZOOS`.

    Where a caller takes another part by name (``mixer="s4d"``), the variant's arguments of the
    former part (``mixer_args``) are left out.

    Args:
        models: the classes.
        table: the variants by name.
    """

    def __init__(self, models: Registry, table: Mapping[str, Variant]) -> None:
        self.models, self.table = models, table

    def list_models(self) -> list[str]:
        """Names of the variants."""
        return sorted(self.table)

    def knows(self, name: str) -> bool:
        """Whether there is a variant of that name."""
        return name in self.table

    def create_model(self, name: str, pretrained: bool = False, **kwargs: Any) -> nn.Module:
        """Build a variant.

        Args:
            name: one of :meth:`list_models`.
            pretrained: as in timm; none of these has released weights.
            **kwargs: constructor arguments, laid over the variant's own.

        Raises:
            ValueError: the name or an argument is unknown, or weights are asked for.
        """
        if name not in self.table:
            raise ValueError(f"unknown model {name!r}; {nearest(name, self.table)}")
        if pretrained:
            raise ValueError(
                f"there are no released weights for {name}: load a file with "
                "tristate.core.pretrained.load_pretrained"
            )
        variant = self.table[name]
        own = dict(variant.arguments)
        for part, choice in kwargs.items():
            if own.get(part) != choice:
                own.pop(f"{part}_args", None)
        model = call(self.models[variant.model], **{**own, **kwargs})
        model.pretrained_cfg = model.default_cfg = {**variant.cfg, "num_classes": model.num_classes}
        return model
