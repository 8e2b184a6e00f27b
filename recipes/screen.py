"""Where the commands' tables go: a terminal, or whole lines to a file or another program."""

from rich.console import Console
from rich.table import Table

_ENDLESS = 10_000


def screen() -> Console:
    """What prints tables to the standard output.

    Only a terminal has an edge: columns of what goes elsewhere are as wide as what they hold.
    """
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console.width = _ENDLESS
    return console


def fits(console: Console, table: Table) -> bool:
    """Whether a table's columns can be as wide as what they hold."""
    wide = console.options.update_width(_ENDLESS)
    return console.measure(table, options=wide).maximum <= console.width
