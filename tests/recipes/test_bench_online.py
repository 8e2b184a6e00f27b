"""``tristate bench kernels --only online``: what learning from a stream holds in memory."""

import json

import pytest

from tristate.kernels.backend import available_backends
from tristate.recipes import bench
from tristate.recipes.bench import memory, online

pytestmark = pytest.mark.skipif(
    "cpu" not in available_backends(), reason="this processor has no fused multiply-add vectors"
)
SMALL = 4e6  # bytes: what an allocator may hold on to


def peaks(monkeypatch, way, *lengths):
    monkeypatch.setattr(online, "LENGTHS", (200, *lengths))
    monkeypatch.setattr(online, "PIECE", 200)
    rows = [bench.row(c, "forward+backward", 1) for c in online.cases(False) if way in c.what]
    if rows[0]["peak_bytes"] is None:
        pytest.skip("this system does not count a process's peak")
    # The shortest one only warms up.
    return rows, [row["peak_bytes"] for row in rows[1:]]


def test_memory_stays_online_and_grows_back_through_all(monkeypatch):
    rows, (short, long) = peaks(monkeypatch, "exact", 400, 2000)
    assert long < short + SMALL
    more, (short, long) = peaks(monkeypatch, "all", 2000, 20_000)
    assert long > short + SMALL
    sentences = memory.growth([*rows, *more])
    assert [s.partition(":")[0] for s in sentences] == ["exact", "back through all"]
    assert "MB at 2,000 steps" in sentences[0]


def test_a_row_has_what_the_contract_says(monkeypatch):
    rows, _ = peaks(monkeypatch, "window", 200)
    assert set(rows[0]) == {
        "what", "shape", "backend", "direction", "threads", "ms", "floor_ms", "peers", "peak_bytes",
    }  # fmt: skip
    assert rows[0]["ms"] > rows[0]["floor_ms"] > 0
    json.dumps(rows)
