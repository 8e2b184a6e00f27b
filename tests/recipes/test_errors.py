"""A wrong command line: one sentence that names the thing and the nearest right one."""

import pytest
import yaml

from tristate.recipes import catalog
from tristate.recipes.cli import main

SMOKE = "smoke/vision"
CLASSIFY = "tristate.vision.tasks.classify"

WRONG = {
    "verb": (["rum"], "unknown verb 'rum'; did you mean run?"),
    "no recipe": (["run"], "wants a RECIPE first"),
    "recipe": (["run", "vision/vim_mikro_fashion"], "did you mean vision/vim_micro_fashion"),
    "recipe without its folder": (
        ["fit", "vim_micro_fashion"],
        "did you mean vision/vim_micro_fashion?",
    ),
    "recipe file": (["fit", "absent.yaml"], "there is no recipe file absent.yaml"),
    "task key": (["fit", SMOKE, "--model.learnrate", "1"], "no argument 'learnrate'"),
    "task key, spelt out": (
        ["fit", SMOKE, "--model.init_args.label_smothing=0.1"],
        "did you mean label_smoothing?",
    ),
    "prefix of a task key": (["fit", SMOKE, "--model.weight=0"], "did you mean weight_decay?"),
    "data key": (["fit", SMOKE, "--data.batchsize", "8"], "did you mean batch_size?"),
    "trainer key": (["fit", SMOKE, "--trainer.max_epoch=1"], "did you mean max_epochs or"),
    "prefix of a trainer key": (["fit", SMOKE, "--trainer.prec=32"], "did you mean precision?"),
    "group": (["fit", SMOKE, "--trainr.max_epochs=1"], "did you mean trainer?"),
    "key without its group": (["fit", SMOKE, "--max_epochs=1"], "did you mean trainer.max_epochs?"),
    "task key without its group": (["fit", SMOKE, "--lr=1"], "did you mean model.lr?"),
    "prefix of a key of our own": (["fit", SMOKE, "--ckpt=x.ckpt"], "did you mean ckpt_path?"),
    "stray word": (["fit", SMOKE, "stray"], "unexpected word 'stray'"),
    "class": (
        ["fit", SMOKE, f"--model.class_path={CLASSIFY}.ImageClasification"],
        "did you mean ImageClassification?",
    ),
    "module": (["fit", SMOKE, "--model.class_path=tristat.Task"], "no module 'tristat'"),
    "class of another kind": (
        ["fit", SMOKE, f"--data.class_path={CLASSIFY}.ImageClassification"],
        "is not a subclass of LightningDataModule, which data wants",
    ),
    "type": (["fit", SMOKE, "--trainer.max_epochs=many"], "wants int or null, got 'many'"),
    "type in a class": (["fit", SMOKE, "--model.lr=fast"], "model.lr wants float, got 'fast'"),
    "key in a callback": (
        [
            "fit",
            SMOKE,
            "--trainer.callbacks",
            "[{class_path: lightning.pytorch.callbacks.EarlyStopping, init_args: {monitr: x}}]",
        ],
        "did you mean monitor?",
    ),
    "no value": (["fit", SMOKE, "--out"], "--out wants a value"),
    "checkpoint": (["fit", SMOKE, "--ckpt_path=a.ckpt"], "there is no checkpoint a.ckpt"),
    "overlay": (["fit", SMOKE, "--config=absent.yaml"], "there is no file"),
    "nothing to evaluate": (["test", SMOKE], "name a checkpoint with --ckpt_path"),
    "recipe to copy": (["copy", "smoke/visoin"], "did you mean smoke/vision"),
    "list": (["list", "--jsn"], "takes only --json, got --jsn"),
}

REFUSED = {
    "backbone": (["fit", SMOKE, "--model.backbone=vim_mikro_patch4_28"], "vim_micro_patch4_28"),
    "backbone argument": (["fit", SMOKE, "--model.backbone_args.d_modell=8"], "d_model"),
    "value out of range": (["fit", SMOKE, "--model.lr=-1"], "lr must be at least 0, got -1"),
    "missing data": (["fit", SMOKE, "--data.root=nowhere"], "nowhere"),
    "duration": (["fit", SMOKE, "--trainer.max_time=soon"], "soon"),
}


def told(capsys) -> str:
    out, err = capsys.readouterr()
    assert err.startswith("tristate: ") and err.count("\n") == 1, f"not one sentence: {err}"
    assert "Traceback" not in out + err
    return err


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    # What could not start has left no run behind.
    assert not list(tmp_path.glob("runs/*/*/*"))


@pytest.mark.parametrize("case", WRONG)
def test_wrong_words_exit_2(case, capsys):
    words, sentence = WRONG[case]
    assert main(words) == 2
    assert sentence in told(capsys)


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_built_exits_1(case, capsys):
    words, sentence = REFUSED[case]
    assert main(words) == 1
    assert sentence in told(capsys)


FILES = {
    "group": (lambda r: r.update(modle=r.pop("model")), "did you mean model?"),
    "task key": (lambda r: r["model"]["init_args"].update(lrr=1), "did you mean lr"),
    "data key": (lambda r: r["data"]["init_args"].update(shif=1), "did you mean shift?"),
    "trainer key": (lambda r: r["trainer"].update(max_epoch=1), "did you mean max_epochs"),
    "prefix": (lambda r: r["trainer"].update(accel="cpu"), "did you mean accelerator"),
    "type": (lambda r: r["trainer"].update(max_epochs="x"), "trainer.max_epochs wants int"),
    "no task": (lambda r: r.pop("model"), "lacks model"),
    "no data": (lambda r: r.pop("data"), "lacks data"),
    "no backbone": (lambda r: r["model"]["init_args"].pop("backbone"), "a value for backbone"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_wrong_recipe_file_exits_2(case, capsys, tmp_path):
    change, sentence = FILES[case]
    recipe = yaml.safe_load(catalog.find(SMOKE).read_text())
    change(recipe)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(recipe))
    assert main(["fit", "mine.yaml"]) == 2
    assert sentence in told(capsys)


def test_a_file_that_is_no_yaml_is_told(capsys, tmp_path):
    (tmp_path / "mine.yaml").write_text("model: {class_path: [\n")
    assert main(["fit", "mine.yaml"]) == 2
    assert "not valid YAML" in told(capsys)
