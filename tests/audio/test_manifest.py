"""Manifests: what they say, and what is refused with file, line and value."""

import gzip
import json
import tarfile

import pytest

from tests.audio.sounds import noise, write
from tristate.audio.data.manifest import find_clips, read_manifest
from tristate.core.errors import UserError


@pytest.fixture
def folder(tmp_path):
    for name in ("one.wav", "two.flac", "deep/three.ogg"):
        write(tmp_path / name, noise(8000))
    return tmp_path


def written(folder, text, name="clips.csv"):
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_csv_and_jsonl_say_the_same(folder):
    csv = written(folder, "path,start,end,label,who\none.wav,,,yes,a\ntwo.flac,0.1,0.3,no,\n")
    rows = [
        {"path": "one.wav", "label": "yes", "who": "a"},
        {"path": "two.flac", "start": 0.1, "end": 0.3, "label": "no", "who": ""},
    ]
    text = "\n\n".join(json.dumps(row) for row in rows)
    jsonl = written(folder, text, "clips.jsonl")
    first, second = read_manifest(csv), read_manifest(jsonl)
    assert [(c.path, c.start, c.end, c.label, c.more) for c in first] == [
        (c.path, c.start, c.end, c.label, c.more) for c in second
    ]
    assert first[1].start == 0.1 and first[1].end == 0.3 and first[0].end is None
    assert first[1].where.endswith("clips.csv, line 3")
    assert second[1].where.endswith("clips.jsonl, line 3")
    assert str(first[1]).endswith("two.flac[0.1:0.3]") and str(first[0]).endswith("one.wav")


def test_compressed_and_with_a_byte_order_mark(folder):
    text = "\ufeffpath,label\none.wav,嗎\n"
    plain = read_manifest(written(folder, text))
    (folder / "more.csv.gz").write_bytes(gzip.compress(text.encode()))
    assert [clip.label for clip in plain] == ["嗎"]
    assert [c.label for c in read_manifest(folder / "more.csv.gz")] == ["嗎"]


def test_paths_may_lead_into_an_archive_or_anywhere(folder, tmp_path_factory):
    with tarfile.open(folder / "clips.tar", "w") as tar:
        tar.add(folder / "one.wav", "in/one.wav")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for path in (folder / "clips.tar/in/one.wav", folder / "one.wav"):
        assert read_manifest(written(elsewhere, f"path\n{path}\n"))[0].path == path
    with pytest.raises(UserError, match=r"line 2: there is no file .*two\.wav"):
        read_manifest(written(folder, "path\nclips.tar/in/two.wav\n"))


REFUSED = {
    "path,label\none.wav,a\nthree.wav,b\n": r"clips\.csv, line 3: there is no file .*three\.wav",
    "path,label\none.wav,\n": r"line 2: the column 'label' is empty",
    "path,lable\none.wav,a\n": r"line 2: there is no column 'label'; did you mean lable\?",
    "file,label\none.wav,a\n": r"line 2: there is no column 'path'",
    "path,label,start,end\none.wav,a,0.4,0.2\n": r"line 2: the end 0\.2 must come after .* 0\.4",
    "path,label,end\none.wav,a,0\n": r"line 2: the end 0 must come after the start 0",
    "path,label,start\none.wav,a,soon\n": r"line 2: start is a time in seconds.*'soon'",
    "path,label,start\none.wav,a,-1\n": r"line 2: start is a time .*'-1'",
    "path,label,end\none.wav,a,nan\n": r"line 2: end is a time .*'nan'",
    "path,label\none.wav\n": r"line 2: 2 columns are wanted.*fewer",
    "path,label\none.wav,a,b\n": r"line 2: 2 columns are wanted.*more",
    'path,label\none.wav,"a\n': r"line 2: no CSV",
    "path,label\n": "lists no clip",
    "": "lists no clip",
}


@pytest.mark.parametrize("text", REFUSED)
def test_a_wrong_csv_is_refused_in_a_sentence(folder, text):
    with pytest.raises(UserError, match=REFUSED[text]) as caught:
        read_manifest(written(folder, text), need=["label"])
    assert "\n" not in str(caught.value) and "clips.csv" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('{"path": "one.wav"}\n{"path": ', r"line 2: no JSON"),
        ('["one.wav"]', r"line 1: an object is wanted"),
        ('{"path": "one.wav", "start": [1]}', r"line 1: start is a time"),
        ('{"path": null}', r"line 1: the column 'path' is empty"),
    ],
)
def test_a_wrong_jsonl_is_refused_in_a_sentence(folder, text, wanted):
    with pytest.raises(UserError, match=wanted):
        read_manifest(written(folder, text, "clips.jsonl"))


def test_a_manifest_that_is_none(folder):
    with pytest.raises(UserError, match="there is no manifest"):
        read_manifest(folder / "none.csv")
    with pytest.raises(UserError, match=r"\.jsonl"):
        read_manifest(written(folder, "path\n", "clips.txt"))
    (folder / "latin.csv").write_bytes(b"path\n\xe9\n")
    with pytest.raises(UserError, match=r"latin\.csv cannot be read"):
        read_manifest(folder / "latin.csv")
    (folder / "cut.csv.gz").write_bytes(gzip.compress(b"path\n" + b"one.wav\n" * 99)[:-9])
    with pytest.raises(UserError, match=r"cut\.csv\.gz cannot be read"):
        read_manifest(folder / "cut.csv.gz")


def test_clips_to_predict_on(folder):
    manifest = written(folder, "path,start\none.wav,0.25\n")
    with tarfile.open(folder / "clips.tar", "w") as tar:
        tar.add(manifest, "clips.csv")
        tar.add(folder / "one.wav", "one.wav")
    names = ["deep/three.ogg", "one.wav", "two.flac"]
    assert [str(c) for c in find_clips(str(folder))] == [str(folder / name) for name in names]
    several = [str(folder / "deep"), str(folder / "clips.tar"), str(manifest)]
    assert [str(c) for c in find_clips(several)] == [
        str(folder / "deep/three.ogg"),
        str(folder / "clips.tar/one.wav"),
        str(folder / "one.wav[0.25:]"),
    ]
    with pytest.raises(UserError, match="there is no file or folder"):
        find_clips(str(folder / "none"))
    (folder / "bare").mkdir()
    with pytest.raises(UserError, match=r"there is no sound file .*bare"):
        find_clips(str(folder / "bare"))
