"""Pictures for reports: matrices, tables and grids of images as self-contained HTML; lines."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from io import BytesIO

import torch
from PIL import Image
from torch import Tensor

# More classes than this give a list of confusions instead of a matrix.
MATRIX_CLASSES = 32
CELL = 30.0  # side of a matrix cell, in units of the drawing


def confusion_matrix(counts: Tensor, names: Sequence[str]) -> str:
    """A confusion matrix as inline SVG, true classes in rows; a table of pairs for many classes.

    Cells are shaded by the share of their row, in the report's colours where it has them.

    Args:
        counts: ``(K, K)`` whole numbers, ``counts[true, predicted]``.
        names: of the K classes.

    Raises:
        ValueError: the sizes disagree.
    """
    if counts.shape != (len(names), len(names)):
        raise ValueError(f"{len(names)} names for counts of shape {tuple(counts.shape)}")
    if len(names) > MATRIX_CLASSES:
        return confusions(counts, names)
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
    left = 10.0 + 7.5 * max(map(len, names))
    size = CELL * len(names)
    parts = []
    for row, name in enumerate(names):
        middle = CELL * (row + 0.5)
        label = escape(name)
        parts.append(
            f'<text x="{left - 8:.0f}" y="{left + middle + 4:.0f}" text-anchor="end">{label}</text>'
            f'<text transform="translate({left + middle + 4:.0f} {left - 8:.0f}) rotate(-90)">'
            f"{label}</text>"
        )
        for column, other in enumerate(names):
            count = int(counts[row, column])
            if not count:
                continue
            share = float(shares[row, column])
            x, y = left + CELL * column, left + CELL * row
            colour = "--two" if row == column else "--one"
            # Full strength would hide the number.
            parts.append(
                f"<g><title>{label} taken for {escape(other)}: {count}</title>"
                f'<rect x="{x + 1:.0f}" y="{y + 1:.0f}" width="{CELL - 2:.0f}" '
                f'height="{CELL - 2:.0f}" rx="4" fill="var({colour},currentColor)" '
                f'fill-opacity="{0.1 + 0.4 * share**0.5:.2f}"/>'
                f'<text x="{x + CELL / 2:.0f}" y="{y + CELL / 2 + 4:.0f}" text-anchor="middle">'
                f"{_short(count)}</text></g>"
            )
    right = int(counts.diagonal().sum())
    summary = f"confusion matrix of {len(names)} classes: {right} of {int(counts.sum())} right"
    extent = left + size + 2
    return (
        "<p>Rows are the true classes, columns the predicted ones.</p>"
        f'<svg viewBox="0 0 {extent:.0f} {extent:.0f}" width="{extent:.0f}" role="img" '
        f'aria-label="{summary}" fill="currentColor" font-size="13">{"".join(parts)}</svg>'
    )


def confusions(counts: Tensor, names: Sequence[str], limit: int = 30) -> str:
    """The most frequent confusions of ``counts[true, predicted]`` as a table."""
    off = counts.clone().fill_diagonal_(0)
    top = off.flatten().topk(min(limit, off.numel()))
    rows: list[list[str]] = []
    for count, place in zip(top.values.tolist(), top.indices.tolist(), strict=True):
        if count:
            true, predicted = divmod(int(place), len(names))
            rows.append([str(names[true]), str(names[predicted]), str(count)])
    return table(("true class", "taken for", "times"), rows)


def class_table(counts: Tensor, names: Sequence[str]) -> str:
    """Precision, recall and F1 of each class of ``counts[true, predicted]`` as a table."""
    hits = counts.diagonal().double()
    true, predicted = counts.sum(1), counts.sum(0)
    recall, precision = hits / true.clamp(min=1), hits / predicted.clamp(min=1)
    f1 = 2 * hits / (true + predicted).clamp(min=1)
    rows = [
        [name, str(int(true[i])), *(f"{float(v[i]):.3f}" for v in (precision, recall, f1))]
        for i, name in enumerate(names)
    ]
    return table(("class", "items", "precision", "recall", "F1"), rows)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An HTML table of texts; the first column names the row."""
    top = "".join(f"<th scope=col>{escape(cell)}</th>" for cell in head)
    body = "".join(
        f"<tr><th scope=row>{escape(row[0])}</th>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def lines(
    series: Mapping[str, Sequence[tuple[float, float]]],
    *,
    x: str,
    y: str,
    title: str = "",
    broad: str = "",
    logarithmic: str = "xy",
    names: Sequence[str] = (),
    format: str = "png",
) -> bytes:
    """Lines through points, as a picture.

    Args:
        series: points ``(x, y)`` by the name of their line, all above 0 on a logarithmic axis; the
            ``x`` of the longest are marked on the axis.
        x: what the first axis shows, with its unit.
        y: the same of the second.
        title: stands above.
        broad: the line to draw broad and pale, behind those that it runs along.
        logarithmic: the axes that are, of ``"xy"``.
        names: of the places 0, 1, ..., where the first axis shows no numbers.
        format: ``"png"`` or ``"svg"``.
    """
    # Of everything here only this needs matplotlib.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for name, points in series.items():
        looks = {"linewidth": 6, "alpha": 0.35} if name == broad else {"linewidth": 1.8}
        marks = {} if name == broad else {"marker": "o", "markersize": 4}
        # There is nothing between two names.
        looks |= {"linestyle": ""} if names else {}
        axes.plot(*zip(*points, strict=True), label=name, **looks, **marks)
    if "x" in logarithmic:
        axes.set_xscale("log", base=2)
    if "y" in logarithmic:
        axes.set_yscale("log")
    places = [place for place, _ in max(series.values(), key=len)]
    if names:
        axes.set_xticks(range(len(names)), names)
    else:
        # As many numbers as there is room for, the last one among them.
        apart = -(-len(places) // 9)
        shown = [(len(places) - 1 - k) % apart == 0 for k in range(len(places))]
        texts = [
            f"{place:,.10g}" if show else "" for place, show in zip(places, shown, strict=True)
        ]
        axes.set_xticks(places, texts)
    axes.set(xlabel=x, ylabel=y, title=title)
    axes.grid(alpha=0.25, which="both")
    axes.legend(frameon=False, fontsize="small")
    buffer = BytesIO()
    figure.savefig(buffer, format=format, dpi=150)
    return buffer.getvalue()


def picture(image: Tensor, alt: str, least: int = 84) -> str:
    """An image as an ``img`` element that carries its own data.

    Args:
        image: ``(C, H, W)`` with one or three channels, 0 to 1; values outside are clipped.
        alt: what a screen reader says.
        least: a smaller image is enlarged by a whole factor until its sides have so many pixels.
    """
    pixels = image.detach().cpu().clamp(0, 1).mul(255).round().to(torch.uint8)
    pixels = pixels.permute(1, 2, 0).squeeze(2).numpy()
    factor = max(1, -(-least // min(pixels.shape[:2])))
    drawn = Image.fromarray(pixels)
    width, height = drawn.width * factor, drawn.height * factor
    buffer = BytesIO()
    drawn.save(buffer, "PNG", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'<img src="data:image/png;base64,{data}" width="{width}" height="{height}" '
        f'alt="{escape(alt, quote=True)}" style="image-rendering:{_rendering(factor)}">'
    )


def grid(cells: Sequence[tuple[str, str]], width: int = 96) -> str:
    """Pictures side by side, as many as the screen is wide.

    Args:
        cells: a picture's markup and its caption's (already escaped) for each.
        width: least width of a cell, in pixels.
    """
    figures = "".join(
        f'<figure>{markup}<figcaption style="display:block">{caption}</figcaption></figure>'
        for markup, caption in cells
    )
    columns = f"repeat(auto-fill,minmax({width}px,1fr))"
    return (
        f'<div style="display:grid;grid-template-columns:{columns};gap:14px 10px">{figures}</div>'
    )


def _rendering(factor: int) -> str:
    return "pixelated" if factor > 1 else "auto"


def _short(count: int) -> str:
    """``12345`` as ``12k``."""
    return str(count) if count < 10_000 else f"{count // 1000}k"
