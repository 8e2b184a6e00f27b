"""The width at which a recipe's model has a given number of parameters."""

from collections.abc import Callable, Sequence
from typing import Any

WIDTH = "model.backbone_args.d_model"
# Widths that --parameters chooses among.
WIDTHS = range(8, 1025, 2)


def nearest_width(recipe: str, settings: Sequence[str], target: int) -> int:
    """The width in ``WIDTHS`` at which the recipe's model has nearest to ``target`` parameters.

    Widths that the model refuses, because its heads don't divide them say, are passed over.

    Raises:
        UsageError: the recipe or a setting is not understood, or its model has no such width.
    """
    from tristate.recipes.builder import Experiment
    from tristate.recipes.session import hush
    from tristate.recipes.usage import UsageError

    hush()
    experiment = Experiment("validate", recipe, settings)
    experiment.discard_empty_folder()
    task = experiment.model
    arguments: dict[str, Any] = dict(task.hparams)
    if "backbone_args" not in arguments:
        raise UsageError(f"--parameters sets {WIDTH}: {type(task).__name__} has no backbone_args")

    def count(width: int) -> int | None:
        changed = {**(arguments["backbone_args"] or {}), "d_model": width}
        try:
            model = type(task)(**{**arguments, "backbone_args": changed})
        except ValueError:
            return None
        return sum(p.numel() for p in model.parameters())

    return nearest(count, target)


def nearest(count: Callable[[int], int | None], target: int) -> int:
    """The width whose ``count`` comes nearest to ``target``; counts grow with the width."""
    found: dict[int, int] = {}
    low, high = 0, len(WIDTHS)
    while low < high:
        middle = (low + high) // 2
        # A refused width is judged by the next one that isn't.
        index, n = next(
            ((i, n) for i in range(middle, high) if (n := count(WIDTHS[i])) is not None),
            (high, None),
        )
        if n is not None:
            found[WIDTHS[index]] = n
        if n is None or n >= target:
            high = middle
        else:
            low = index + 1
    if not found:
        raise ValueError(f"the model refuses every width of {WIDTHS}")
    return min(found, key=lambda width: abs(found[width] - target))
