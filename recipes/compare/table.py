"""The rows of a comparison: kept as JSON, shown as tables, drawn as lines."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tristate.core.errors import UserError

Row = dict[str, Any]
Series = dict[str, list[tuple[str, float]]]


def write(file: Path, rows: Sequence[Row]) -> None:
    """Keep ``rows`` as JSON."""
    file.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def read(files: Iterable[Path]) -> list[Row]:
    """The rows of several files that :func:`write` made; of equal values the last file's count.

    Raises:
        UserError: a file can't be read or holds something else, or they vary different settings.
    """
    found: dict[tuple[tuple[str, str], ...], Row] = {}
    for file in files:
        try:
            rows = [_row(row) for row in json.loads(file.read_text(encoding="utf-8"))]
        except OSError as error:
            raise UserError(f"can't read {file}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise UserError(f"{file} is not what `tristate compare --json` writes") from error
        found |= {tuple(row["varied"].items()): row for row in rows}
    if len(sets := {tuple(row["varied"]) for row in found.values()}) > 1:
        raise UserError(f"the files vary different settings: {' and '.join(map(str, sets))}")
    return list(found.values())


def _row(row: Row) -> Row:
    """A row as it is now: the first ones had one value, whose setting came first."""
    if "varied" not in row:
        key = row["settings"][0].removeprefix("--").partition("=")[0]
        row = {"varied": {key: row.pop("value")}, **row}
    float(row["seconds"])
    return row


def show(rows: Sequence[Row]) -> None:
    """A line a run; results over the last setting or the length, if there is a table of them."""
    from rich.table import Table

    from tristate.recipes.screen import fits, screen

    def table(*left: str) -> Table:
        made = Table(header_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for column in left:
            made.add_column(column)
        return made

    done = [row for row in rows if "folder" in row]
    unit = next((row["unit"] for row in done if "unit" in row), "items/s")
    names = [short(key) for key in rows[0]["varied"]] if rows else []
    listed = table(*names)
    for column in ("parameters", f"test {metric(rows)}", unit, "minutes", "MB"):
        listed.add_column(column, justify="right")
    for row in rows:
        cells = ["", "failed", "", f"{row['seconds'] / 60:.1f}", ""]
        if "folder" in row:
            cells[:2] = [f"{row['parameters']:,}", f"{row['result']:.3f}"]
            cells[2] = f"{row['rate']:.3g}" if "rate" in row else ""
            cells[4] = f"{row['memory_mb']:.0f}" if row["memory_mb"] is not None else ""
        listed.add_row(*row["varied"].values(), *cells)
    console = screen()
    console.print()
    console.print(listed)
    if len(names) > 1 or _over_length(rows):
        place, lines = series(rows)
        places = list(dict.fromkeys(x for points in lines.values() for x, _ in points))
        results = {(name, x): y for name, points in lines.items() for x, y in points}

        def crossed(down: Iterable[str], across: Sequence[str], corner: str, first: str) -> Table:
            made = table(corner)
            for column in across:
                made.add_column(first + column if column == across[0] else column, justify="right")
            for row in down:
                cells = (results.get((row, x), results.get((x, row))) for x in across)
                made.add_row(row, *("" if y is None else f"{y:.3f}" for y in cells))
            return made

        over = crossed(lines, places, f"test {metric(rows)}", f"{place} ")
        if not fits(console, over):
            over = crossed(places, list(lines), f"test {metric(rows)} at {place}", "")
        console.print()
        console.print(over)
    for row in rows:
        if row.get("error"):
            console.print(f"{', '.join(row['varied'].values())} failed: {row['error']}")


def metric(rows: Sequence[Row]) -> str:
    """What the runs were tested for."""
    return next((row["metric"].replace("_", " ") for row in rows if "metric" in row), "result")


def short(key: str) -> str:
    """The last word of a setting's name."""
    return key.rpartition(".")[2]


def _over_length(rows: Sequence[Row]) -> bool:
    return any(len(row.get("lengths", {})) > 1 for row in rows)


def series(rows: Sequence[Row]) -> tuple[str, Series]:
    """What the results lie over, and a line of them for each value or combination of values.

    They lie over the length where runs were tested at several, else over the setting that was
    varied last.
    """
    lines: Series = {}
    if _over_length(rows):
        for row in rows:
            points = sorted(row.get("lengths", {}).items(), key=lambda item: int(item[0]))
            lines[", ".join(row["varied"].values())] = points
        return "length", lines
    for row in rows:
        *others, place = row["varied"].values()
        line = lines.setdefault(", ".join(others) or metric(rows), [])
        if "result" in row:
            line.append((place, row["result"]))
    return short(list(rows[0]["varied"])[-1]) if rows else "", lines


def draw(file: Path, rows: Sequence[Row]) -> None:
    """Draw the lines of :func:`series` to a PNG or an SVG, as the file's name says.

    Raises:
        UserError: there is no result to draw.
    """
    from tristate.core.training.figures import lines

    over, found = series(rows)
    found = {name: points for name, points in found.items() if points}
    if not found:
        raise UserError("there is nothing to draw: no run came to a result")
    places = list(dict.fromkeys(row["varied"][list(row["varied"])[-1]] for row in rows))
    if over == "length" or all(map(_is_number, places)):
        drawn = {n: sorted((float(x), y) for x, y in points) for n, points in found.items()}
        places = []
    else:
        drawn = {n: [(float(places.index(x)), y) for x, y in p] for n, p in found.items()}
    scale = "x" if not places and _spread([x for p in drawn.values() for x, _ in p]) else ""
    file.write_bytes(
        lines(
            drawn,
            x=over,
            y=f"test {metric(rows)}",
            title=next((row["recipe"] for row in rows if "recipe" in row), ""),
            logarithmic=scale,
            names=places,
            format=file.suffix[1:],
        )
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _spread(places: Sequence[float]) -> bool:
    """Whether numbers are read better on a logarithmic axis."""
    return min(places) > 0 and max(places) >= 8 * min(places)
