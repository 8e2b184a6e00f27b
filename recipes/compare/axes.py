"""What ``--vary`` means: a setting, its values, and what else each of them sets."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from tristate.recipes.usage import UsageError

_OPEN, _CLOSE = "[{(", "]})"


@dataclass(frozen=True)
class Axis:
    """A setting that is varied.

    Attributes:
        key: the setting, such as ``model.backbone_args.mixer``.
        values: the words of a command line that each value stands for, by the value's name.
    """

    key: str
    values: dict[str, list[str]]

    @classmethod
    def read(cls, words: str) -> "Axis":
        """The axis that ``KEY=VALUE,VALUE,...`` describes.

        A value may go on with ``;KEY=VALUE`` for what is set together with it; there a key that
        begins with a dot stands beside the first. Commas and semicolons in brackets belong to the
        value. A value is named after its first part, unless two of them would have one name.

        Raises:
            UsageError: it is not of this form, or one value is there twice.
        """
        key, _, listed = words.partition("=")
        texts = [text for text in _split(listed, ",") if text]
        if not key or not texts:
            raise UsageError(f"--vary wants KEY=A,B,..., got {words!r}")
        firsts = [_split(text, ";")[0] for text in texts]
        values: dict[str, list[str]] = {}
        for text, first in zip(texts, firsts, strict=True):
            name = first if firsts.count(first) == 1 else text
            if name in values:
                raise UsageError(f"--vary {key} has the value {name!r} twice")
            values[name] = [f"--{key}={first}", *_further(key, _split(text, ";")[1:])]
        return cls(key, values)


def _further(key: str, settings: Sequence[str]) -> Iterator[str]:
    parent = key.rpartition(".")[0]
    for setting in settings:
        name, equals, _ = setting.partition("=")
        if not equals or not name.strip("."):
            raise UsageError(f"--vary {key} wants KEY=VALUE behind a semicolon, got {setting!r}")
        yield f"--{parent}{setting}" if name.startswith(".") else f"--{setting}"


def grid(axes: Sequence[Axis]) -> Iterator[tuple[dict[str, str], list[str]]]:
    """Every combination, the last axis fastest: the name of each value by its key, and the words.

    Raises:
        UsageError: a key is varied twice.
    """
    keys = [axis.key for axis in axes]
    if len(set(keys)) < len(keys):
        raise UsageError(f"each --vary needs a setting of its own, got {', '.join(keys)}")
    for chosen in product(*(axis.values.items() for axis in axes)):
        names = {key: name for key, (name, _) in zip(keys, chosen, strict=True)}
        yield names, [word for _, words in chosen for word in words]


def _split(text: str, mark: str) -> list[str]:
    """``text`` cut at each ``mark`` that stands in no brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in _OPEN) - (letter in _CLOSE)
        if letter == mark and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return parts
