"""What the memory of rows says: how that of learning from a stream goes with its length."""

from collections.abc import Mapping, Sequence
from typing import Any

ONLINE = "online"
"""How the rows of :mod:`tristate.recipes.bench.online` begin."""


def growth(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence for each way of learning: its memory at its longest, against its shortest."""
    found: dict[str, list[tuple[int, int]]] = {}
    for row in rows:
        way, _, rest = row["what"].removeprefix(f"{ONLINE}, ").partition(", ")
        if row["what"].startswith(f"{ONLINE}, ") and rest and row["peak_bytes"] is not None:
            found.setdefault(way, []).append((row["shape"]["L"], row["peak_bytes"]))
    return [
        f"{way}: {last / 1e6:.1f} MB at {longest:,} steps, {first / 1e6:.1f} MB at {shortest:,}"
        for way, ((shortest, first), *_, (longest, last)) in (
            (way, points) for way, points in found.items() if len(points) > 1
        )
    ]
