"""Image classification from data to predictions and report, with models of timm and of our own."""

import csv
import re

import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch.nn import functional as F

from tests.core.toy import LIGHTNING
from tristate.core.checkpoint import save_weights
from tristate.core.errors import UserError
from tristate.core.training.figures import MATRIX_CLASSES, class_table, confusion_matrix, picture
from tristate.core.training.loader import Loader, Named
from tristate.vision.data.tensors import TensorImages
from tristate.vision.tasks.classify import ImageClassification

pytestmark = [pytest.mark.filterwarnings(line) for line in LIGHTNING]

CLASSES = ["<up>", "down", "left", "right", "in", "out"]
FACTS = {
    "class_names": CLASSES,
    "in_chans": 1,
    "input_size": [28, 28],
    "mean": [0.5],
    "std": [0.25],
}
TINY_VIT = {"img_size": 28, "patch_size": 7, "embed_dim": 32, "depth": 1, "num_heads": 2}


class Bars(LightningDataModule):
    """Six places of a bright bar: learnt in moments."""

    def source(self, count):
        labels = torch.arange(count) % len(CLASSES)
        images = torch.randint(0, 60, (count, 1, 28, 28), dtype=torch.uint8)
        for image, label in zip(images, labels.tolist(), strict=True):
            image[:, 4 * label + 2 : 4 * label + 6] += 150
        return TensorImages(images, labels, mean=[0.5], std=[0.25])

    def train_dataloader(self):
        return Loader(self.source(96), 24, shuffle=True, drop_last=True)

    def val_dataloader(self):
        return Loader(self.source(48), 24)

    def test_dataloader(self):
        return Loader(self.source(50), 24)

    def predict_dataloader(self):
        return Loader(Named(self.source(12), "bars"), 24)


def make(backbone="vit_tiny_patch16_224", backbone_args=TINY_VIT, **options):
    return ImageClassification(backbone, backbone_args=backbone_args, facts=FACTS, **options)


def make_trainer(folder, **options):
    settings = {
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "default_root_dir": folder,
        **options,
    }
    return Trainer(**settings)


@pytest.fixture(scope="module")
def tested(tmp_path_factory):
    """A task that has learnt and was tested, its trainer and its folder."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("run")
    task, data = make(lr=5e-3, ema=0.5), Bars()
    trainer = make_trainer(folder, max_epochs=12)
    trainer.fit(task, data)
    (result,) = trainer.test(task, data, verbose=False)
    return task, trainer, folder, result


def test_learns(tested):
    result = tested[3]
    assert result["test/accuracy"] > 0.9 and result["test/accuracy_top5"] >= result["test/accuracy"]
    # What is stated is over the images, not over the batches (24, 24 and 2 here).
    task, data = tested[0], Bars()
    torch.manual_seed(1)
    images, labels = next(iter(Loader(data.source(50), 50)))
    with torch.no_grad():
        logits = task.eval()(images)
    loss, accuracy = F.cross_entropy(logits, labels), (logits.argmax(1) == labels).float().mean()
    torch.manual_seed(1)
    (again,) = make_trainer(tested[2]).test(task, data, verbose=False)
    assert again["test/loss"] == pytest.approx(float(loss), rel=1e-4)
    assert again["test/accuracy"] == pytest.approx(float(accuracy), rel=1e-6)


def test_writes_predictions(tested):
    task, trainer, folder, _ = tested
    trainer.predict(task, Bars(), return_predictions=False)
    with (folder / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["file", "label", "probability"]
    assert [row["file"] for row in rows] == [f"bars[{i}]" for i in range(12)]
    right = [row["label"] == CLASSES[i % 6] for i, row in enumerate(rows)]
    assert sum(right) > 9 and all(0 < float(row["probability"]) <= 1 for row in rows)
    assert not list(folder.glob("*.part"))


def test_report_shows_what_was_tested(tested):
    task, trainer, _, result = tested
    trainer.test(task, Bars(), verbose=False)
    sections = {section.title: section.html for section in task.report_sections()}
    assert {"Confusions", "Classes", "Right ones"} <= set(sections)
    counts = task.confusions
    assert int(counts.sum()) == 50
    assert len(task.right) == min(24, int(counts.diagonal().sum()))
    assert len(task.wrong) == min(24, 50 - int(counts.diagonal().sum()))
    for html in sections.values():
        assert "<up>" not in html and "<script" not in html
        # Nothing is loaded from outside.
        assert all(s.startswith("data:") for s in re.findall(r'(?:src|href)="([^"]*)"', html))
    assert sections["Right ones"].count("<img") == len(task.right)


def test_most_confident_mistakes_come_first(tmp_path):
    task = make()
    with torch.no_grad():
        head = task.get_submodule("backbone.head")
        head.get_parameter("weight").zero_()
        head.get_parameter("bias").copy_(torch.arange(6.0))
    make_trainer(tmp_path).test(task, Bars(), verbose=False)
    # It always says the last class, equally sure: all others are mistakes.
    assert {example.predicted for example in task.wrong} == {5} and len(task.wrong) == 24
    probabilities = [example.probability for example in task.wrong]
    assert probabilities == sorted(probabilities, reverse=True)
    assert all(example.label == 5 for example in task.right)


@pytest.mark.parametrize(
    ("backbone", "backbone_args"),
    [
        ("deit_tiny_patch16_224", {"img_size": 28, "patch_size": 4, "depth": 1}),
        ("mambaout_femto", {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]}),
        ("vim_micro_patch4_28", {"d_model": 16, "n_layers": 1}),
        ("resnet10t", {}),
    ],
)
@pytest.mark.parametrize("mixed", [{}, {"mixup": 0.8, "cutmix": 1.0, "label_smoothing": 0.1}])
def test_any_backbone_trains(tmp_path, backbone, backbone_args, mixed):
    task = make(backbone, backbone_args, **mixed)
    before = {name: value.clone() for name, value in task.named_parameters()}
    make_trainer(tmp_path, max_epochs=1, limit_train_batches=3, limit_val_batches=1).fit(
        task, Bars()
    )
    moved = [not torch.equal(value, before[name]) for name, value in task.named_parameters()]
    assert all(moved)


def test_label_smoothing_and_mixing_keep_the_mean_of_the_target():
    torch.manual_seed(0)
    images, labels = next(iter(Bars().train_dataloader()))
    task = make(label_smoothing=0.3).eval()
    expected = F.cross_entropy(task(images), labels, label_smoothing=0.3)
    torch.testing.assert_close(task.loss((images, labels)), expected)
    # Mixing with nothing is the plain loss; the batch itself is left alone.
    mixing = make(mixup=1.0, mix_prob=0.0, label_smoothing=0.3).eval()
    mixing.load_state_dict(task.state_dict())
    kept = images.clone()
    torch.testing.assert_close(mixing.loss((images, labels)), expected)
    assert torch.equal(images, kept)


def test_comes_back_from_its_checkpoint(tmp_path):
    task = make(mixup=0.2)
    trainer = make_trainer(tmp_path, max_epochs=1, limit_train_batches=1, limit_val_batches=1)
    trainer.fit(task, Bars())
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    again = ImageClassification.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    assert again.class_names == CLASSES and again.hparams["mixup"] == 0.2
    images = torch.randn(2, 1, 28, 28)
    assert torch.equal(again.eval()(images), task.eval()(images))


def test_pretrained_weights_are_loaded_once_and_not_over_a_checkpoint(tmp_path):
    source = make()
    save_weights(tmp_path / "w.safetensors", source)
    path = str(tmp_path / "w.safetensors")
    fresh = make(pretrained=path)
    trainer = make_trainer(tmp_path)
    trainer.test(fresh, Bars(), verbose=False)
    assert all(torch.equal(v, source.state_dict()[k]) for k, v in fresh.state_dict().items())
    other = make(pretrained=path)
    trainer.strategy.connect(other)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    saved = {name: value.clone() for name, value in other.state_dict().items()}
    trainer.test(other, Bars(), ckpt_path=tmp_path / "a.ckpt", verbose=False)
    assert all(torch.equal(v, saved[k]) for k, v in other.state_dict().items())


def test_a_missing_file_of_weights_is_named(tmp_path):
    with pytest.raises(UserError, match="there is no file nowhere.pth"):
        make_trainer(tmp_path).test(make(pretrained="nowhere.pth"), Bars(), verbose=False)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backbone_args": {"dept": 2}}, "did you mean depth"),
        ({"backbone": "vit_tiny_patch16_22"}, "unknown model"),
        (
            {"backbone": "vim_micro_patch4_28", "backbone_args": {"d_mode": 8}},
            "did you mean d_model",
        ),
        ({"mixup": -1.0}, "mixup"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"lr": -1.0}, "lr"),
    ],
)
def test_wrong_arguments_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        make(**options)


def test_unknown_options_are_refused():
    with pytest.raises(TypeError, match="mix_up"):
        make(mix_up=0.2)
    with pytest.raises(ValueError, match="class_names"):
        ImageClassification("resnet10t")


def test_figures_for_few_and_for_many_classes():
    counts = torch.tensor([[3, 1], [0, 4]])
    svg = confusion_matrix(counts, ["a&b", "c"])
    assert "a&amp;b taken for c: 1" in svg and svg.count("<rect") == 3 and "7 of 8" in svg
    assert "<td>0.750</td>" in class_table(counts, ["a&b", "c"])
    many = torch.eye(MATRIX_CLASSES + 1).long() * 5
    many[2, 7] = 3
    html = confusion_matrix(many, [f"k{i}" for i in range(len(many))])
    assert "svg" not in html and "<th scope=row>k2</th><td>k7</td><td>3</td>" in html
    with pytest.raises(ValueError, match="3 names"):
        confusion_matrix(counts, ["a", "b", "c"])


def test_small_pictures_are_enlarged_by_whole_factors():
    html = picture(torch.rand(1, 28, 28), 'a "dress"')
    assert 'width="84" height="84"' in html and "pixelated" in html and "&quot;dress&quot;" in html
    assert 'width="200" height="100"' in picture(torch.rand(3, 100, 200), "x")
