"""Pictures of what was found: heat maps with axes, shares laid over an item, lines of channels."""

import base64
import math
from collections.abc import Mapping, Sequence
from html import escape
from io import BytesIO
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from tristate.core.training.curves import round_ticks, short

FOR, AGAINST = (0.85, 0.37, 0.05), (0.12, 0.42, 0.75)  # colours of shares above and below 0
# From the first to the last of a few lines; each can be told from light and dark paper.
LINES = ("#5a6fd0", "#2f95b8", "#2ea583", "#86ad3c", "#d6a032", "#d4603a")
WIDTH = 440.0  # of a drawing, in its own units: pixels, unless the screen is narrower
LEFT, RIGHT, TOP, BOTTOM = 60.0, 20.0, 8.0, 38.0


class Axis(NamedTuple):
    """An axis of a picture.

    Attributes:
        label: what it shows, with its unit.
        ticks: places from 0 (left, below) to 1, and what stands there.
    """

    label: str
    ticks: Sequence[tuple[float, str]] = ()


def even_axis(label: str, extent: float, about: int = 4) -> Axis:
    """An axis from 0 to ``extent`` with round numbers."""
    marks = [tick for tick in round_ticks(0.0, extent, about) if tick <= extent * 1.001]
    return Axis(label, [(tick / extent, short(tick)) for tick in marks])


def heat(values: Tensor, colours: str = "magma") -> Tensor:
    """``values (H, W)`` from 0 to 1 as colours ``(H, W, 3)`` of one of matplotlib's maps."""
    # Of everything here only this needs matplotlib.
    from matplotlib import colormaps

    return torch.from_numpy(colormaps[colours](values.clamp(0, 1).numpy()))[..., :3].float()


def overlaid(base: Tensor, shares: Tensor) -> Tensor:
    """``shares (H, W)`` in colour, above 0 warm and below 0 cold, over ``base (H, W)`` in grey.

    The base is from 0 to 1, and drawn pale; of the shares the strongest percent has full colour.
    """
    pale = (0.97 - 0.3 * base.clamp(0, 1))[..., None]
    most = torch.quantile(shares.abs().flatten(), 0.99).clamp(min=1e-12)
    strength = (shares.abs() / most).clamp(max=1)[..., None] ** 0.7
    colour = torch.where(shares[..., None] > 0, torch.tensor(FOR), torch.tensor(AGAINST))
    return pale * (1 - strength) + colour * strength


def framed(pixels: Tensor, x: Axis, y: Axis, alt: str, height: float = 0.0) -> str:
    """An image with axes as inline SVG.

    Args:
        pixels: ``(H, W, 3)`` from 0 to 1, the first row on top.
        x: below it.
        y: on its left.
        alt: what a screen reader says.
        height: of the image; 0 for a square.
    """
    across = WIDTH - LEFT - RIGHT
    down = height or across
    image = (
        f'<image x="{LEFT}" y="{TOP}" width="{across}" height="{down}" preserveAspectRatio="none" '
        f'style="image-rendering:pixelated" href="{_png(pixels)}"/>'
    )
    return _svg(TOP + down + BOTTOM, image + _axes(x, y, down), alt)


def lines(
    series: Mapping[str, Sequence[tuple[float, float]]],
    x: Axis,
    y: Axis,
    alt: str,
    height: float = 220.0,
    *,
    legend: bool = True,
) -> str:
    """Lines through points from 0 to 1 on both axes, as SVG.

    Args:
        series: points by the name of their line, as text.
        x: below.
        y: on the left.
        alt: what is drawn, also for a screen reader.
        height: of the frame.
        legend: tell the names above, in the colours of the lines.
    """
    across, parts, keys = WIDTH - LEFT - RIGHT, [_axes(x, y, height, grid=True)], []
    for index, (name, points) in enumerate(series.items()):
        colour = LINES[round(index * (len(LINES) - 1) / max(1, len(series) - 1))]
        path = " ".join(f"{LEFT + across * a:.1f},{TOP + height * (1 - b):.1f}" for a, b in points)
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2" '
            'stroke-linejoin="round"/>'
        )
        if legend:
            keys.append(f'<span class="key" style="color:{colour}">{escape(name)}</span>')
    drawing = _svg(TOP + height + BOTTOM, "".join(parts), alt)
    caption = f"<figcaption><span>{escape(alt)}</span>{''.join(keys)}</figcaption>"
    return f"<figure>{caption}{drawing}</figure>"


def _axes(x: Axis, y: Axis, height: float, grid: bool = False) -> str:
    across, below, parts = WIDTH - LEFT - RIGHT, TOP + height, []
    for place, text in x.ticks:
        at = LEFT + across * place
        parts.append(
            f'<text x="{at:.1f}" y="{below + 16:.1f}" text-anchor="middle">{escape(text)}</text>'
        )
    for place, text in y.ticks:
        at = below - height * place
        parts.append(
            f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{escape(text)}</text>'
        )
        if grid:
            parts.append(
                f'<line x1="{LEFT}" x2="{LEFT + across}" y1="{at:.1f}" y2="{at:.1f}" '
                'stroke="currentColor" stroke-opacity="0.15"/>'
            )
    middle = TOP + height / 2
    return "".join(parts) + (
        f'<text x="{LEFT + across:.1f}" y="{below + 33:.1f}" text-anchor="end">'
        f"{escape(x.label)}</text>"
        f'<text transform="translate(13 {middle:.1f}) rotate(-90)" text-anchor="middle">'
        f"{escape(y.label)}</text>"
    )


def _svg(height: float, inside: str, alt: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH:g} {height:g}" width="{WIDTH:g}" role="img" '
        f'aria-label="{escape(alt, quote=True)}" fill="currentColor" font-size="13">{inside}</svg>'
    )


def _png(pixels: Tensor) -> str:
    """Pixels ``(H, W, 3)`` from 0 to 1 as a data URI."""
    drawn = Image.fromarray(pixels.clamp(0, 1).mul(255).round().to(torch.uint8).numpy())
    buffer = BytesIO()
    drawn.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def log_axis(label: str, low: float, high: float) -> tuple[Axis, float, float]:
    """An axis of powers of two that covers ``low`` to ``high``, and their logarithms to base 2."""
    first, last = math.floor(math.log2(low)), max(math.ceil(math.log2(high)), 1)
    every = max(1, math.ceil((last - first) / 8))
    ticks = [
        ((power - first) / (last - first), f"{2.0**power:.3g}")
        for power in range(first, last + 1, every)
    ]
    return Axis(label, ticks), first, last
