"""``tristate compare``: a run for each combination of values, tables and lines of what came."""

import json
from pathlib import Path

import pytest

from tristate.core.errors import UserError
from tristate.recipes import compare
from tristate.recipes.builder import Experiment
from tristate.recipes.cli import main
from tristate.recipes.compare import outcome, table, width
from tristate.recipes.compare.axes import Axis, grid
from tristate.recipes.usage import UsageError

SMOKE = "smoke/vision"
KEY = "model.backbone_args.n_layers"
OTHER = "model.lr"
SHORT = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=4"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def came(result, **more):
    row = {"folder": "runs/x", "metric": "accuracy", "result": result, "parameters": 1234}
    return row | {"rate": 12.3, "unit": "images/s", "memory_mb": 45.6, "seconds": 60.0} | more


def replace_runs(monkeypatch, answer):
    """Let ``answer(settings)`` stand for a run; the threads that each was given."""
    given = []

    def run(recipe, settings, *, threads=None, tell=print):
        tell(f"{recipe} begins")
        given.append(threads)
        return answer(settings)

    monkeypatch.setattr(compare, "run", run)
    return given


def check(row):
    """One row of a run of the smoke recipe."""
    assert 0 <= row["result"] <= 1 and row["metric"] == "accuracy" and row["lengths"] == {}
    assert row["rate"] > 0 and row["unit"] == "images/s" and row["memory_mb"] > 10
    model = Experiment("validate", SMOKE, []).model.backbone
    # The stem's batch norms have running sums as well.
    assert 0 <= row["parameters"] - sum(p.numel() for p in model.parameters()) < 100


def test_reads_what_came_of_a_run(capsys):
    assert main(["run", SMOKE, *SHORT]) == 0
    page = capsys.readouterr().out.splitlines()[-1].split()[-1]
    check(outcome.results(Path(page).parent, "accuracy"))


def test_shows_each_value_and_writes_json(capsys, tmp_path, monkeypatch):
    def answer(settings):
        failed = {"seconds": 1.0, "error": "no such number"}
        return came(0.5) if f"--{KEY}=1" in settings and SHORT[0] in settings else failed

    replace_runs(monkeypatch, answer)
    file = tmp_path / "rows.json"
    words = ["compare", SMOKE, "--vary", f"{KEY}=1,none", "--json", str(file), *SHORT]
    assert main(words) == 1
    one, failed = json.loads(file.read_text())
    assert one["varied"] == {KEY: "1"} and one["result"] == 0.5 and "folder" not in failed
    head, *rows = capsys.readouterr().out.splitlines()[-4:]
    assert head.split() == [
        "n_layers",
        "parameters",
        "test",
        "accuracy",
        "images/s",
        "minutes",
        "MB",
    ]
    assert rows[0].split() == ["1", "1,234", "0.500", "12.3", "1.0", "46"]
    assert rows[1].split() == ["none", "failed", "0.0"]
    assert rows[2] == "none failed: no such number"


@pytest.mark.parametrize("jobs", [1, 2])
def test_runs_every_combination(jobs, capsys, tmp_path, monkeypatch):
    def answer(settings):
        layers, lr = (word.partition("=")[2] for word in settings)
        return came(int(layers) / 10 + float(lr))

    threads = replace_runs(monkeypatch, answer)
    words = ["compare", SMOKE, "--vary", f"{KEY}=2,1", "--vary", f"{OTHER}=0.01,0.08"]
    plot = tmp_path / "lines.svg"
    assert main([*words, "--jobs", str(jobs), "--plot", str(plot)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert [line.split() for line in out[-3:]] == [
        ["test", "accuracy", "lr", "0.01", "0.08"],
        ["2", "0.210", "0.280"],
        ["1", "0.110", "0.180"],
    ]
    assert plot.read_text().lstrip().startswith("<?xml")
    assert threads == 4 * [None] if jobs == 1 else all(threads)
    assert ("[2, 0.01] smoke/vision begins" in out) == (jobs == 2)


def test_earlier_rows_are_joined_and_shown(capsys, tmp_path):
    old = {"value": "s4d", "settings": ["--model.mixer=s4d", "--model.d_model=54"], **came(0.7)}
    new = {"varied": {"model.mixer": "lru"}, "settings": ["--model.mixer=lru"], **came(0.8)}
    files = [tmp_path / name for name in ("one.json", "two.json", "three.json")]
    for file, rows in zip(files, [[old], [new], [old | {"result": 0.9}]], strict=True):
        file.write_text(json.dumps(rows))
    joined, plot = tmp_path / "all.json", tmp_path / "all.png"
    words = ["compare", "--from", *map(str, files), "--json", str(joined), "--plot", str(plot)]
    assert main(words) == 0
    out = [line.split() for line in capsys.readouterr().out.splitlines()[-2:]]
    assert [(row[0], row[2]) for row in out] == [("s4d", "0.900"), ("lru", "0.800")]
    assert table.read([joined]) == table.read(files) and plot.read_bytes()[:4] == b"\x89PNG"


def test_a_table_too_wide_for_the_terminal_stands_upright(capsys, monkeypatch):
    lengths = {str(2**k): 0.5 for k in range(10, 20)}
    rows = [{"varied": {"mixer": "mamba"}, **came(0.5, lengths=lengths)}]
    table.show(rows)
    head, row = capsys.readouterr().out.splitlines()[-2:]
    assert head.split()[-3:] == ["131072", "262144", "524288"] and row.split()[-2:] == 2 * ["0.500"]
    for name, value in {"FORCE_COLOR": "1", "TERM": "dumb", "COLUMNS": "60"}.items():
        monkeypatch.setenv(name, value)
    table.show(rows)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[-2:]] == [["262144", "0.500"], ["524288", "0.500"]]


def test_several_lengths_are_drawn_over_the_length():
    rows = [
        {"varied": {"mixer": name}, **came(y, lengths={"128": y / 2, "64": y})}
        for name, y in (("a", 1.0), ("b", 0.5))
    ]
    assert table.series(rows) == (
        "length",
        {"a": [("64", 1.0), ("128", 0.5)], "b": [("64", 0.5), ("128", 0.25)]},
    )


def test_files_that_do_not_fit_are_refused(tmp_path):
    one, other = tmp_path / "one.json", tmp_path / "other.json"
    one.write_text(json.dumps([{"varied": {"a": "1"}, **came(0.5)}]))
    for text in ("{", '[{"seconds": 1}]', "[3]"):
        other.write_text(text)
        with pytest.raises(UserError, match="other.json is not what"):
            table.read([one, other])
    other.write_text(json.dumps([{"varied": {"b": "1"}, **came(0.5)}]))
    with pytest.raises(UserError, match="different settings"):
        table.read([one, other])
    with pytest.raises(UserError, match="can't read"):
        table.read([tmp_path / "none.json"])
    with pytest.raises(UserError, match="nothing to draw"):
        table.draw(tmp_path / "x.png", [{"varied": {"a": "1"}, "seconds": 1.0}])


def test_a_value_brings_settings_of_its_own():
    axis = Axis.read("m.mixer=s4d,attention;.args.heads=[1,2];lr=1,attention,{a: 1, b: 2}")
    assert axis.values == {
        "s4d": ["--m.mixer=s4d"],
        "attention;.args.heads=[1,2];lr=1": [
            "--m.mixer=attention",
            "--m.args.heads=[1,2]",
            "--lr=1",
        ],
        "attention": ["--m.mixer=attention"],
        "{a: 1, b: 2}": ["--m.mixer={a: 1, b: 2}"],
    }
    both = list(grid([Axis.read("a=1,2;b=3"), Axis.read("c=4")]))
    assert both == [
        ({"a": "1", "c": "4"}, ["--a=1", "--c=4"]),
        ({"a": "2", "c": "4"}, ["--a=2", "--b=3", "--c=4"]),
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("nothing", "wants KEY=A,B"),
        ("key=", "wants KEY=A,B"),
        ("key=1;lr", "KEY=VALUE behind a semicolon"),
        ("key=1;.=2", "KEY=VALUE behind a semicolon"),
        ("key=1,1", "twice"),
    ],
)
def test_an_axis_that_is_not_understood_is_refused(words, said):
    with pytest.raises(UsageError, match=said):
        Axis.read(words)


def test_a_setting_is_varied_once():
    with pytest.raises(UsageError, match="a setting of its own"):
        list(grid([Axis.read("a=1"), Axis.read("a=2")]))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "name a RECIPE"),
        ([SMOKE], "at least one --vary"),
        ([SMOKE, "--vary", "a=1", "--jobs", "0"], "--jobs wants at least 1"),
        ([SMOKE, "--vary", "a=1", "--plot", "x.pdf"], "a .png or an .svg"),
        ([SMOKE, "--from", "x.json"], "--from shows runs of earlier"),
    ],
)
def test_a_command_line_that_is_not_understood_is_refused(words, said, capsys):
    with pytest.raises(SystemExit):
        main(["compare", *words])
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_runs_in_processes_of_their_own(capsys, tmp_path):
    file = tmp_path / "rows.json"
    words = ["compare", SMOKE, "--vary", f"{KEY}=1,none", "--jobs", "2", "--json", str(file)]
    # The second value is no number: its run fails.
    assert main([*words, *SHORT]) == 1
    one, failed = json.loads(file.read_text())
    check(one)
    assert Path(one["folder"]).is_dir() and "folder" not in failed
    assert capsys.readouterr().out.splitlines()[-1] == f"none failed: {failed['error']}"


def test_chooses_the_width_that_comes_nearest():
    target = 9_000
    chosen = width.nearest_width(SMOKE, [], target)

    def count(chosen):
        built = Experiment("validate", SMOKE, [f"--{width.WIDTH}={chosen}"])
        return sum(p.numel() for p in built.model.parameters())

    assert abs(count(chosen) - target) <= min(abs(count(chosen + d) - target) for d in (-2, 2))


@pytest.mark.parametrize("refused", [lambda w: False, lambda w: w % 12, lambda w: w < 100])
@pytest.mark.parametrize("target", [100, 12_345, 10**9])
def test_passes_over_widths_that_are_refused(refused, target):
    def count(w):
        return None if refused(w) else 3 * w * w

    allowed = [w for w in width.WIDTHS if not refused(w)]
    best = min(allowed, key=lambda w: abs(count(w) - target))
    assert width.nearest(count, target) == best


def test_an_unknown_recipe_has_no_width():
    with pytest.raises(UsageError, match="vim_micro_fashion"):
        width.nearest_width("vision/vim_micro_fashon", [], 1000)
