"""Tables of data pipelines: equal ones pass, others are told with place and value."""

import json

import pytest

from tests.conformance.execute import check


@pytest.fixture
def answer(tmp_path):
    (tmp_path / "tiny.fa").write_text(">c\nACGTTN\n")
    (tmp_path / "tiny.bed").write_text("c\t0\t4\ttrain\n")
    table = {
        "regions": {"c": 6},
        "rows": [{"id": 0, "region": "c", "start": 1, "end": 5, "strand": "-", "seq": "AACG"}],
        "rev": [{"text": "AAC", "plus": "AAC", "minus": "GTT"}],
        "notes": "",
    }

    def give(**changes):
        path = tmp_path / "genomic_benchmarks_loc2seq.json"
        path.write_text(json.dumps({**table, **changes}))
        return check(path, path.name, None, None)  # pyright: ignore[reportArgumentType]

    return give


def test_equal_tables_pass(answer):
    result = answer()
    assert (result.status, result.output_error, result.reason) == ("PASS", 0.0, "")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"regions": {"c": 7}}, "regions.c is 6, golden 7"),
        ({"regions": {"c": 6, "d": 1}}, "regions.d is only in the golden"),
        ({"rev": [{"text": "A", "plus": "A", "minus": "A"}]}, r"rev[0].minus is 'T', golden 'A'"),
        ({"rows": [{"region": "c"}]}, "KeyError"),
    ],
)
def test_others_fail_with_place_and_value(answer, changes, said):
    result = answer(**changes)
    assert result.status == "FAIL" and said in result.reason and result.output_error is None
