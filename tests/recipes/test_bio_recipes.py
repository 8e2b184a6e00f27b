"""DNA recipes build; the smoke recipe learns and predicts as a table."""

import csv
from pathlib import Path

import pytest
import torch

from tests.bio.records import annotated
from tristate.recipes import catalog
from tristate.recipes.builder import Experiment
from tristate.recipes.cli import main

SMOKE = "smoke/bio"
# Where a recipe's data are not here, something small stands in.
STANDINS = {"bio/mamba_micro_coding": ["--data.path=genome.gbk"]}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", [name for name in catalog.names() if "bio" in name])
def test_builds(name, tmp_path):
    annotated(tmp_path / "genome.gbk", 2000)
    built = Experiment("fit", name, STANDINS.get(name, []))
    facts = built.model.facts
    length = min(facts["max_length"], 80)
    with torch.no_grad():
        out = built.model.eval()(torch.randint(7, 11, (2, length)))
    classes = facts.get("class_names")
    assert out.shape == ((2, len(classes)) if classes else (2, length, facts["vocab_size"]))


def test_smoke_learns_and_predicts(capsys):
    assert main(["run", SMOKE]) == 0
    words = capsys.readouterr().out.splitlines()[-1].split()
    assert words[:2] == ["test", "accuracy"] and words[3] == "report"
    folder = Path(words[4]).parent
    with (folder / "metrics.csv").open(newline="") as file:
        losses = [float(r["train/loss"]) for r in csv.DictReader(file) if r.get("train/loss")]
    assert sum(losses[-4:]) < sum(losses[:4]), losses
    page = (folder / "report.html").read_text()
    assert "ROC" in page and "donor" in page

    Path("g.fa").write_text(">c\n" + "ACGTTGCA" * 20 + "\n")
    Path("g.bed").write_text("c\t0\t80\tx\t0\t+\nc\t7\t87\ty\t0\t-\n")
    checkpoint = str(folder / "checkpoints/best.ckpt")
    data = ["--data.predict_fasta=g.fa", "--data.predict_bed=g.bed"]
    assert main(["predict", SMOKE, "--ckpt_path", checkpoint, *data]) == 0
    text = next(Path().glob("runs/*/*/*/predictions.tsv")).read_text()
    rows = list(csv.DictReader(text.splitlines(), delimiter="\t"))
    assert [row["window"] for row in rows] == ["c:0-80(+)", "c:7-87(-)"]
    assert set(rows[0]) == {"window", "label", "probability", "p_acceptor", "p_decoy", "p_donor"}
