"""Tables of things that are named in recipes and on the command line."""

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any


def nearest(name: str, names: Iterable[str]) -> str:
    """The end of an error sentence: the names closest to ``name``, or all of them when none is."""
    names = sorted(names)
    close = get_close_matches(name, names, n=3, cutoff=0.6)
    # A name typed in part is as likely a slip as a misspelt one.
    close = close or [known for known in names if name and name.lower() in known.lower()][:3]
    return f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(names)}"


class Registry(Mapping[str, Any]):
    """A text table, name to ``"module:attribute"``; the module is imported when the name is used.

    Args:
        what: what the table holds, for errors ("mixer").
        table: the names and where they are defined.
    """

    def __init__(self, what: str, table: dict[str, str]) -> None:
        self.what = what
        self._table = dict(table)

    def __getitem__(self, name: str) -> Any:
        """The object of that name.

        Raises:
            KeyError: there is none; the nearest names are in the message.
        """
        if name not in self._table:
            raise KeyError(f"unknown {self.what} {name!r}; {nearest(name, self._table)}")
        module, _, attribute = self._table[name].partition(":")
        return getattr(import_module(module), attribute)

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)

    def __contains__(self, name: object) -> bool:
        return name in self._table

    def path(self, name: str) -> str:
        """Where ``name`` is defined, as ``"module.attribute"``, without importing it."""
        if name not in self._table:
            raise KeyError(f"unknown {self.what} {name!r}; {nearest(name, self._table)}")
        return self._table[name].replace(":", ".")

    def add(self, name: str, target: str) -> None:
        """Enter ``name``, defined at ``target`` (``"module:attribute"``)."""
        if name in self._table:
            raise ValueError(f"{self.what} {name!r} is already {self._table[name]}")
        self._table[name] = target
