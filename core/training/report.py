"""A run as one page: ``report.html``, self-contained, for a phone as well as a wide screen."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from tristate.core.training.curves import Points, line_chart, read_curves

# Nothing may be fetched: pictures and sounds travel inside the page.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:"

STAGES = ("train", "val")


@dataclass(frozen=True)
class Section:
    """A part of the report.

    Attributes:
        title: its heading, as text.
        html: its body, trusted markup without outside references.
    """

    title: str
    html: str


@dataclass(frozen=True)
class Headline:
    """The figure at the top.

    Attributes:
        value: such as ``"0.893"``.
        label: such as ``"test accuracy"``.
    """

    value: str
    label: str


def write_report(
    folder: Path,
    *,
    title: str,
    subtitle: str = "",
    headline: Headline | None = None,
    facts: Mapping[str, str] | None = None,
    sections: Sequence[Section] = (),
) -> Path:
    """Write ``report.html`` into a run's folder and return its path.

    Curves come from ``metrics.csv``, the command and versions from ``versions.json`` and the
    configuration from ``config.yaml`` of the same folder; what is not there is left out.

    Args:
        folder: of the run.
        title: the recipe, as text.
        subtitle: what was trained on what.
        headline: the main figure.
        facts: short values by label ("parameters": "412 k"), shown as tiles.
        sections: the task's own parts, in order.
    """
    curves = read_curves(folder / "metrics.csv")
    record = _json(folder / "versions.json")
    body = [
        page_header(title, subtitle, headline, facts or {}),
        *_learning(curves),
        *page_parts(sections),
        *_again(record),
        *_details(folder / "config.yaml", record),
    ]
    path = folder / "report.html"
    path.write_text(whole_page(title, body, record), encoding="utf-8")
    return path


def whole_page(title: str, body: Sequence[str], record: Mapping) -> str:
    """A page that stands alone, with the look of all reports.

    Args:
        title: as text.
        body: parts, trusted markup without outside references.
        record: of the run, for the foot of the page; may be empty.
    """
    style = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>{style}</style>\n</head>\n"
        f"<body>\n<main>\n{chr(10).join(body)}\n</main>\n{_footer(record)}\n</body>\n</html>\n"
    )


def _json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def page_header(
    title: str, subtitle: str, headline: Headline | None, facts: Mapping[str, str]
) -> str:
    """The head of a page; arguments as of :func:`write_report`."""
    parts = [f"<h1>{escape(title)}</h1>"]
    if subtitle:
        parts.append(f'<p class="subtitle">{escape(subtitle)}</p>')
    if headline:
        parts.append(
            f'<p class="headline"><strong>{escape(headline.value)}</strong> '
            f"<span>{escape(headline.label)}</span></p>"
        )
    if facts:
        tiles = "".join(
            f"<div><dt>{escape(label)}</dt><dd>{escape(value)}</dd></div>"
            for label, value in facts.items()
        )
        parts.append(f'<dl class="facts">{tiles}</dl>')
    return f"<header>{''.join(parts)}</header>"


def _section(title: str, html: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n{html}\n</section>"


def page_parts(sections: Sequence[Section]) -> list[str]:
    """Sections side by side where the screen is wide enough, as markup."""
    if not sections:
        return []
    inside = "\n".join(_section(section.title, section.html) for section in sections)
    return [f'<div class="parts">\n{inside}\n</div>']


def _learning(curves: Mapping[str, Mapping[str, Points]]) -> list[str]:
    """One chart for each metric that was taken in training or validation, the loss first."""
    names = sorted(curves, key=lambda name: (name != "loss", name))
    shown, rest = [], []
    for name in names:
        series = {stage: curves[name][stage] for stage in STAGES if stage in curves[name]}
        if series:
            # Only what was validated tells of learning; rates and speeds are for whoever asks.
            (shown if "val" in series or name == "loss" else rest).append(_chart(name, series))
    if not shown and not rest:
        return []
    more = (
        f'<details><summary>Rates and speed</summary><div class="charts">{"".join(rest)}</div>'
        "</details>"
        if rest
        else ""
    )
    return [_section("Learning curves", f'<div class="charts">{"".join(shown)}</div>{more}')]


def _chart(name: str, series: Mapping[str, Points]) -> str:
    words = name.replace("_", " ")
    names = {"train": "training", "val": "validation"}
    labelled = {names[stage]: points for stage, points in series.items()}
    keys = "".join(
        f'<span class="key {label}">{label} <b>{points[-1][1]:.4g}</b></span>'
        for label, points in labelled.items()
    )
    return (
        f"<figure><figcaption><span>{escape(words)}</span>{keys}</figcaption>"
        f"{line_chart(words, labelled)}</figure>"
    )


def _again(record: Mapping) -> list[str]:
    if "command" not in record:
        return []
    rows = [("device", record["device"]), ("seed", record["seed"]), ("started", record["started"])]
    listed = "".join(
        f"<tr><th scope=row>{label}</th><td>{escape(str(value))}</td></tr>" for label, value in rows
    )
    html = f"<pre><code>{escape(record['command'])}</code></pre><table>{listed}</table>"
    return [_section("Run again", html)]


def _details(config: Path, record: Mapping) -> list[str]:
    parts = []
    if config.is_file():
        text = escape(config.read_text(encoding="utf-8"))
        parts.append(
            f"<details><summary>Configuration</summary><pre><code>{text}</code></pre></details>"
        )
    if "versions" in record:
        rows = "".join(
            f"<tr><th scope=row>{escape(name)}</th><td>{escape(value)}</td></tr>"
            for name, value in {**record["versions"], "platform": record["platform"]}.items()
        )
        parts.append(f"<details><summary>Versions</summary><table>{rows}</table></details>")
    return [_section("Details", "".join(parts))] if parts else []


def _footer(record: Mapping) -> str:
    version = record.get("versions", {}).get("tristate", "")
    return f"<footer>made by tristate {escape(version)}</footer>"
