"""Training curves: read from a run's ``metrics.csv`` and drawn as inline SVG."""

import csv
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

Points = list[tuple[float, float]]

# Viewbox in units of CSS pixels at full width; the text stays legible when a phone shrinks it.
WIDTH, HEIGHT = 460.0, 270.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 14.0, 14.0, 40.0


def read_curves(path: Path) -> dict[str, dict[str, Points]]:
    """Metrics by name and stage, as ``{"loss": {"train": [(step, value), ...], "val": ...}}``.

    Args:
        path: a CSV file with a column ``step`` and columns such as ``train/loss``; a cell may be
            empty. Of ``train/loss_step`` and ``train/loss_epoch`` the latter is taken.

    Returns:
        Only finite values; a metric without any is absent. Empty where the file is missing.
    """
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    columns = {key for row in rows for key in row if key and "/" in key}
    curves: dict[str, dict[str, Points]] = {}
    for column in sorted(columns):
        stage, _, name = column.partition("/")
        if name.endswith("_step") and column.removesuffix("_step") + "_epoch" in columns:
            continue
        points = [
            (float(row["step"]), float(row[column]))
            for row in rows
            if row.get(column) and row.get("step") and math.isfinite(float(row[column]))
        ]
        if points:
            name = name.removesuffix("_epoch").removesuffix("_step")
            curves.setdefault(name, {})[stage] = points
    return curves


def line_chart(title: str, series: Mapping[str, Points], x_label: str = "step") -> str:
    """An SVG element with one line for each of ``series``, coloured by CSS by its label.

    Args:
        title: what is drawn, for the legend's reader and for a screen reader.
        series: points ``(x, y)`` by label, a word that serves as the CSS class; one point alone is
            drawn as a dot.
        x_label: the name of the horizontal axis.

    Raises:
        ValueError: there is not a single point.
    """
    drawn = {label: _thin(points) for label, points in series.items() if points}
    if not drawn:
        raise ValueError(f"a chart of {title!r} needs at least one point")
    xs = [x for points in drawn.values() for x, _ in points]
    x_ticks = round_ticks(0.0, max(max(xs), 1.0))
    y_ticks = round_ticks(*_view([y for points in drawn.values() for _, y in points]))
    x_high = max(max(xs), 1.0)
    y_low, y_high = y_ticks[0], y_ticks[-1]

    def place(x: float, y: float) -> tuple[float, float]:
        y = min(max(y, y_low), y_high)
        across = LEFT + (WIDTH - LEFT - RIGHT) * x / x_high
        return across, TOP + (HEIGHT - TOP - BOTTOM) * (y_high - y) / (y_high - y_low)

    parts = []
    for tick in y_ticks:
        y = place(0.0, tick)[1]
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{short(tick)}</text>')
    for tick in x_ticks:
        if tick > x_high:
            continue
        x = place(tick, y_low)[0]
        y = HEIGHT - BOTTOM + 18
        parts.append(f'<text x="{x:.1f}" y="{y}" text-anchor="middle">{short(tick)}</text>')
    parts.append(
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" text-anchor="end">{escape(x_label)}</text>'
    )
    for label, points in drawn.items():
        dots = [place(x, y) for x, y in points]
        if len(dots) == 1:
            parts.append(
                f'<circle class="dot {label}" cx="{dots[0][0]:.1f}" cy="{dots[0][1]:.1f}" r="4"/>'
            )
        else:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in dots)
            parts.append(f'<polyline class="line {label}" points="{path}"/>')
    ends = ", ".join(f"{label} ends at {points[-1][1]:.4g}" for label, points in drawn.items())
    summary = escape(f"{title} over {x_label}s: {ends}", quote=True)
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-label="{summary}">'
        f"{''.join(parts)}</svg>"
    )


def _thin(points: Sequence[tuple[float, float]], limit: int = 200) -> Points:
    """At most ``limit`` points: the means of equal runs, so that a noisy line can be read."""
    if len(points) <= limit:
        return list(points)
    size = math.ceil(len(points) / limit)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [
        (sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group))
        for group in groups
    ]


def _view(values: Sequence[float]) -> tuple[float, float]:
    """The range to show; a few first values far above all others don't flatten the rest."""
    ordered = sorted(values)
    low, high = ordered[0], ordered[-1]
    if len(ordered) >= 20:
        most = ordered[math.floor(0.98 * (len(ordered) - 1))]
        if high - low > 2 * (most - low):
            high = most
    if high > low:
        return low, high
    margin = abs(low) / 10 or 0.5
    return low - margin, high + margin


def round_ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers that cover ``low`` to ``high``, ``about + 1`` of them."""
    raw = (high - low) / about
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(m * magnitude for m in (1.0, 2.0, 2.5, 5.0, 10.0) if m * magnitude >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(n * step, 12) for n in range(first, last + 1)]


def short(value: float) -> str:
    """``1500`` as ``1.5k``."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            scale = 1e3 if letter == "k" else size
            return f"{value / scale:g}{letter}"
    return f"{value:g}"
