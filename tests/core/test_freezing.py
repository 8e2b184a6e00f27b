"""A frozen backbone: the head alone learns."""

import pytest
import torch
from torch import nn

from tristate.core.training.classification import Classification
from tristate.core.training.optim import parameter_groups
from tristate.vision.tasks.classify import ImageClassification

FACTS = {"class_names": ["a", "b", "c"], "in_chans": 1}
SMALL = {"d_model": 16, "n_layers": 2, "drop_path_rate": 0.5, "drop_rate": 0.5}


def make(**options) -> Classification:
    torch.manual_seed(0)
    backbone = options.pop("backbone", "vim_micro_patch4_28")
    args = options.pop("backbone_args", SMALL)
    return ImageClassification(backbone, backbone_args=args, facts=FACTS, **options)


def test_only_the_head_is_trained():
    task = make(freeze_backbone=True)
    trained = {n for n, p in task.backbone.named_parameters() if p.requires_grad}
    assert trained == {"head.weight", "head.bias"}
    groups = parameter_groups(task, 0.1)
    assert sum(p.numel() for g in groups for p in g["params"]) == 16 * 3 + 3
    task.loss((torch.randn(2, 1, 28, 28), torch.tensor([0, 1]))).backward()
    assert all((p.grad is not None) == (n in trained) for n, p in task.backbone.named_parameters())


def test_what_is_frozen_drops_nothing_and_keeps_its_statistics():
    task = make(freeze_backbone=True).train()
    assert not task.backbone.training and task.backbone.get_submodule("head").training
    images = torch.randn(2, 1, 28, 28)
    assert torch.equal(task(images), task(images))
    assert make().train().backbone.training


def test_it_is_one_with_timms_models():
    args = {"depths": [1], "dims": [8]}
    task = make(backbone="mambaout_femto", backbone_args=args, freeze_backbone=True).train()
    trained = [p for p in task.backbone.parameters() if p.requires_grad]
    assert 0 < len(trained) < len(list(task.backbone.parameters()))
    norms = [m for m in task.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert not any(m.training for m in norms)


def test_a_backbone_without_head_is_refused():
    with pytest.raises(ValueError, match="nothing to train"):
        make(backbone_args={**SMALL, "num_classes": 0}, freeze_backbone=True)
