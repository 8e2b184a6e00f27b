"""Which parameters decay, at which rate they learn, and how the rate goes."""

import pytest
import torch
from torch import nn

from tristate.core.training.optim import parameter_groups, warmup_cosine


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, 4, 8))
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.norm = nn.LayerNorm(8)
        self.A_log = nn.Parameter(torch.zeros(8, 4))
        self.A_log._no_weight_decay = True  # pyright: ignore
        self.frozen = nn.Parameter(torch.zeros(8, 8), requires_grad=False)
        self.head = nn.Linear(8, 2)

    def no_weight_decay(self):
        return {"pos_embed"}

    def group_matcher(self, coarse=False):
        return {
            "stem": "^pos_embed",
            "blocks": [(r"^blocks\.(\d+)", None), ("^norm|^A_log", (99,))],
        }


def by_name(module, groups):
    names = {parameter: name for name, parameter in module.named_parameters()}
    return {names[p]: (g["weight_decay"], g["lr_scale"]) for g in groups for p in g["params"]}


def test_decay_spares_what_it_must():
    task = nn.ModuleDict({"backbone": Net()})
    settings = by_name(task, parameter_groups(task, 0.1))
    decayed = {name for name, (decay, _) in settings.items() if decay}
    assert decayed == {f"backbone.{n}.weight" for n in ("blocks.0", "blocks.1", "blocks.2", "head")}
    assert set(settings) == {n for n, p in task.named_parameters() if p.requires_grad}
    assert {scale for _, scale in settings.values()} == {1.0}


def test_what_learns_slowly_may_be_told_another_rate():
    net = Net()
    net.A_log._max_lr = 1e-3  # pyright: ignore
    for given, scale in ((None, 0.1), (2e-3, 0.2), (1.0, 1.0)):
        settings = by_name(net, parameter_groups(net, 0.1, lr=1e-2, ssm_lr=given))
        assert settings["A_log"][1] == pytest.approx(scale)
        assert settings["head.weight"][1] == 1.0


def test_each_layer_learns_slower_than_the_one_above():
    task = nn.ModuleDict({"backbone": Net(), "head": nn.Linear(2, 2)})
    settings = by_name(task, parameter_groups(task, 0.1, layer_decay=0.5))
    scale = {name: scale for name, (_, scale) in settings.items()}
    ladder = ["pos_embed", *(f"blocks.{i}.weight" for i in range(3)), "head.weight"]
    scales = [scale[f"backbone.{name}"] for name in ladder]
    assert scales == sorted(scales) and len(set(scales)) == len(ladder)
    assert scales[1] / scales[2] == 0.5
    # The task's own parts learn at the full rate.
    assert scale["backbone.head.weight"] == scale["head.weight"] == 1


def test_time_constants_learn_no_faster_than_they_may():
    net = Net()
    net.A_log._max_lr = 1e-3  # pyright: ignore

    def scales(**options):
        return {n: s for n, (_, s) in by_name(net, parameter_groups(net, 0.1, **options)).items()}

    assert scales(lr=1e-2)["A_log"] == pytest.approx(0.1)
    assert set(scales(lr=1e-4).values()) == set(scales().values()) == {1.0}
    assert {s for name, s in scales(lr=1e-2).items() if name != "A_log"} == {1.0}


def test_layer_decay_needs_layers():
    with pytest.raises(ValueError, match="group_matcher"):
        parameter_groups(nn.Linear(2, 2), 0.1, layer_decay=0.5)


def test_schedule_rises_then_falls():
    values = [warmup_cosine(p / 100, 0.2, 0.1) for p in range(101)]
    assert values[0] == 0 and values[10] == pytest.approx(0.5) and values[20] == pytest.approx(1)
    assert values[60] == pytest.approx(0.55) and values[100] == pytest.approx(0.1)
    assert values[:21] == sorted(values[:21]) and values[20:] == sorted(values[20:], reverse=True)


@pytest.mark.parametrize(("warmup", "ends"), [(0.0, (1.0, 0.0)), (1.0, (0.0, 0.0))])
def test_schedule_without_one_of_its_parts(warmup, ends):
    assert warmup_cosine(0.0, warmup, 0.0) == pytest.approx(ends[0])
    assert warmup_cosine(1.0, warmup, 0.0) == pytest.approx(ends[1])
