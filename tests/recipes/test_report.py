"""The report: one page that asks for nothing outside itself."""

import json
import re
from html.parser import HTMLParser

import pytest

from tristate.core.training.curves import line_chart, read_curves
from tristate.core.training.report import Headline, Section, write_report

VOID = {"meta", "img", "br", "line", "circle", "polyline", "rect", "hr", "input", "source"}


class Page(HTMLParser):
    """Collects the elements and checks that they close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.feed(text)
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


@pytest.fixture
def page(tmp_path):
    (tmp_path / "metrics.csv").write_text(
        "epoch,step,train/loss,val/loss,val/accuracy,train/items_per_second\n"
        "0,0,2.5,,,\n0,1,2.0,,,100\n0,1,,1.9,0.25,\n1,2,1.5,,,110\n1,3,nan,,,\n1,3,,1.4,0.5,\n"
    )
    record = {
        "command": "tristate run a/b --model.x '<b>'",
        "started": "2026-01-01T00:00:00+00:00",
        "seed": 7,
        "device": "CPU",
        "platform": "Linux",
        "versions": {"tristate": "1.2.3", "torch": "2"},
    }
    (tmp_path / "versions.json").write_text(json.dumps(record))
    (tmp_path / "config.yaml").write_text("key: <value> & more\n")
    path = write_report(
        tmp_path,
        title="a/b <script>",
        subtitle="tea & cake",
        headline=Headline("0.912", "test accuracy"),
        facts={"parameters": "12 k"},
        sections=[Section("Mine & yours", "<p>hello</p>")],
    )
    return path.read_text(encoding="utf-8")


def test_asks_for_nothing_outside(page):
    parsed = Page(page)
    for tag, attrs in parsed.elements:
        for name in ("src", "href", "srcset", "data", "action", "xlink:href"):
            assert (attrs.get(name) or "data:").startswith("data:"), (tag, attrs)
    assert not re.search(r"url\(|@import|https?:", page)
    assert not parsed.all("script") and not parsed.all("link")
    policy = next(a for a in parsed.all("meta") if "http-equiv" in a)
    assert policy["content"].startswith("default-src 'none'")


def test_holds_what_a_reader_wants(page):
    for text in ("0.912", "test accuracy", "12 k", "tea &amp; cake", "Mine &amp; yours", "hello"):
        assert text in page
    assert "tristate run a/b --model.x &#x27;&lt;b&gt;&#x27;" in page
    assert "key: &lt;value&gt; &amp; more" in page
    assert "<script>" not in page
    # The loss in training and validation, the accuracy, and the speed in a fold.
    labels = [attrs["aria-label"] for attrs in Page(page).all("svg")]
    assert labels == [
        "loss over steps: training ends at 1.5, validation ends at 1.4",
        "accuracy over steps: validation ends at 0.5",
        "items per second over steps: training ends at 110",
    ]


def test_is_made_for_phones_light_and_dark(page):
    metas = {attrs.get("name"): attrs.get("content") for attrs in Page(page).all("meta")}
    assert "width=device-width" in str(metas["viewport"])
    assert metas["color-scheme"] == "light dark"
    assert "prefers-color-scheme: dark" in page


def test_a_folder_without_anything_gives_a_page(tmp_path):
    page = write_report(tmp_path, title="empty").read_text()
    assert Page(page).all("h1") and not Page(page).all("svg")


def test_curves_leave_out_what_is_not_a_number(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,train/loss_step,train/loss_epoch,val/x\n0,3,,\n1,2,2.5,inf\n2,,1.5,\n")
    assert read_curves(path) == {"loss": {"train": [(1.0, 2.5), (2.0, 1.5)]}}
    assert read_curves(tmp_path / "absent.csv") == {}


@pytest.mark.parametrize(
    "points",
    [
        [(0.0, 1.0)],
        [(5.0, 3.0), (6.0, 3.0)],
        [(0.0, -1e-9), (1e6, 1e9)],
        [(float(i), 1 / (1 + i)) for i in range(5000)],
        [(0.0, 1e4)] + [(float(i), 1.0 + i % 2) for i in range(1, 100)],
    ],
)
def test_a_chart_stays_in_its_frame(points):
    svg = line_chart("loss", {"training": points})
    numbers = re.search(r'(?:points="([^"]+)"|cx="([\d.]+)" cy="([\d.]+)")', svg)
    assert numbers
    flat = " ".join(group for group in numbers.groups() if group).replace(",", " ").split()
    xs, ys = [float(n) for n in flat[::2]], [float(n) for n in flat[1::2]]
    (width, height), *_ = re.findall(r'viewBox="0 0 (\d+) (\d+)"', svg)
    assert min(xs + ys) >= 0 and max(xs) <= float(width) and max(ys) <= float(height)
    assert len(xs) <= 200


def test_a_chart_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one point"):
        line_chart("loss", {"training": []})
