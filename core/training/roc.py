"""How well scores tell a class from the others: the ROC curve and the area below it."""

from collections.abc import Sequence
from html import escape

import torch
from torch import Tensor

from tristate.core.training.figures import table

SIDE, LEFT, BOTTOM = 260.0, 44.0, 40.0  # of the drawing, in its own units
COLOURS = ("--one", "--two", "--three")
MANY = 12  # curves; above these the picture would be a tangle: only the areas are told
POINTS = 150  # of a drawn curve


def roc(scores: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
    """False and true positive rates for every threshold, from (0, 0) to (1, 1).

    Equal scores share a threshold, so that their order plays no part.

    Args:
        scores: ``(M,)``, larger for the class.
        positive: which items are of the class, ``(M,)`` bool.

    Returns:
        Two of ``(T,)`` float64; all 0 where there is no item of that kind.
    """
    order = scores.argsort(descending=True)
    hits = positive[order].double()
    # The last item of each run of equal scores.
    ends = torch.ones(len(scores), dtype=torch.bool)
    ends[:-1] = scores[order][1:] != scores[order][:-1]
    rates = []
    for counts in (1 - hits, hits):
        summed = counts.cumsum(0)[ends]
        total = summed[-1:].clamp(min=1)
        rates.append(torch.cat([summed.new_zeros(1), summed / total]))
    return rates[0], rates[1]


def area(false: Tensor, true: Tensor) -> float:
    """The area below the curve: the chance that an item of the class scores above another."""
    return float(torch.trapezoid(true, false))


def roc_page(probabilities: Tensor, labels: Tensor, names: Sequence[str]) -> str:
    """Each class against all others: curves as inline SVG, areas as a table.

    Args:
        probabilities: ``(M, K)``.
        labels: ``(M,)`` int64.
        names: of the K classes.
    """
    rows, lines = [], []
    for number, name in enumerate(names):
        positive = labels == number
        if not positive.any() or positive.all():
            rows.append([name, "no such items" if not positive.any() else "no others"])
            continue
        false, true = roc(probabilities[:, number], positive)
        rows.append([name, f"{area(false, true):.4f}"])
        lines.append(_line(false, true, number, name))
    picture = _picture(lines) if len(names) <= MANY else ""
    return picture + table(("class", "area under the curve"), rows)


def _line(false: Tensor, true: Tensor, number: int, name: str) -> str:
    step = torch.linspace(0, len(false) - 1, min(POINTS, len(false))).round().long().unique()
    points = " ".join(
        f"{LEFT + SIDE * x:.1f},{10 + SIDE * (1 - y):.1f}"
        for x, y in zip(false[step].tolist(), true[step].tolist(), strict=True)
    )
    colour = COLOURS[number % len(COLOURS)]
    # Beyond three classes colours come again, dashed.
    dashes = f' stroke-dasharray="{8 // (number // len(COLOURS))} 4"' if number >= 3 else ""
    y = SIDE - 6 - 18 * number
    return (
        f'<polyline points="{points}" fill="none" stroke="var({colour},currentColor)" '
        f'stroke-width="2"{dashes}><title>{escape(name)}</title></polyline>'
        f'<line x1="{LEFT + SIDE - 30}" x2="{LEFT + SIDE - 8}" y1="{y}" y2="{y}" '
        f'stroke="var({colour},currentColor)" stroke-width="3"{dashes}/>'
        f'<text x="{LEFT + SIDE - 36}" y="{y + 4}" text-anchor="end">{escape(name)}</text>'
    )


def _picture(lines: Sequence[str]) -> str:
    width, height = LEFT + SIDE + 10, SIDE + BOTTOM + 10
    low = 10 + SIDE
    axes = (
        f'<rect x="{LEFT}" y="10" width="{SIDE}" height="{SIDE}" fill="none" '
        'stroke="currentColor" stroke-opacity="0.25"/>'
        f'<text x="{LEFT - 8}" y="{low}" text-anchor="end">0</text>'
        f'<text x="{LEFT - 8}" y="20" text-anchor="end">1</text>'
        f'<text x="{LEFT + SIDE}" y="{low + 18}" text-anchor="end">1</text>'
        f'<text x="{LEFT + SIDE / 2}" y="{low + 32}" text-anchor="middle">'
        "false positive rate</text>"
        f'<text transform="translate(14 {10 + SIDE / 2}) rotate(-90)" text-anchor="middle">'
        "true positive rate</text>"
    )
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" width="{width:g}" role="img" '
        f'aria-label="ROC curves of {len(lines)} classes" fill="currentColor" font-size="13">'
        f"{axes}{''.join(lines)}</svg>"
    )
