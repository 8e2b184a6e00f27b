"""Weights go to disk and back; what is not weights is refused in one sentence."""

import os
import pickle
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tristate.core.checkpoint import load_weights, read_weights, save_weights
from tristate.core.errors import UserError
from tristate.core.pretrained import load_pretrained


def net(width=4):
    return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Linear(width, 2))


def vit(**kwargs) -> Any:
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
    return timm.create_model("vit_tiny_patch16_224", **{**sizes, **kwargs})


def equal(a, b):
    return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


def test_comes_back(tmp_path):
    first, second = net(), net()
    save_weights(tmp_path / "w.safetensors", first)
    load_weights(tmp_path / "w.safetensors", second)
    assert equal(first, second)
    assert os.listdir(tmp_path) == ["w.safetensors"]


def test_shared_weights_come_back(tmp_path):
    first, second = net(2), net(2)
    first[2].weight = second[2].weight = nn.Parameter(torch.randn(2, 2))
    first.add_module("tied", first[2])
    second.add_module("tied", second[2])
    save_weights(tmp_path / "w.safetensors", first)
    load_weights(tmp_path / "w.safetensors", second)
    assert equal(first, second)


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"model": s}, lambda s: {"state_dict": s}])
def test_reads_what_torch_saved(tmp_path, wrap):
    first, second = net(), net()
    torch.save(wrap(first.state_dict()), tmp_path / "w.pth")
    load_weights(tmp_path / "w.pth", second)
    assert equal(first, second)


def test_not_finite_is_not_written(tmp_path):
    good, bad = net(), net()
    save_weights(tmp_path / "w.safetensors", good)
    with torch.no_grad():
        next(bad.parameters())[0, 0] = float("inf")
    with pytest.raises(UserError, match=r"0\.weight is no longer finite"):
        save_weights(tmp_path / "w.safetensors", bad)
    load_weights(tmp_path / "w.safetensors", bad)
    assert equal(good, bad)


class Evil:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def damage(name, path):
    """A file that must be refused."""
    whole = path.with_suffix(".whole")
    if name == "code":
        torch.save({"model": {"weight": Evil()}}, path)
    elif name == "bare code":
        path.write_bytes(pickle.dumps(Evil()))
    elif name == "cut":
        torch.save(net().state_dict(), whole)
        path.write_bytes(whole.read_bytes()[:-300])
    elif name == "cut safetensors":
        save_file(net().state_dict(), whole)
        path.write_bytes(whole.read_bytes()[:-8])
    elif name == "text":
        path.write_text("version https://git-lfs.github.com/spec/v1\n")
    elif name == "no tensors":
        torch.save({"epoch": 3}, path)
    elif name == "a list":
        torch.save([torch.zeros(2)], path)
    elif name == "empty":
        path.write_bytes(b"")


@pytest.mark.parametrize(
    ("name", "file", "words"),
    [
        ("code", "w.pth", "could run code"),
        ("bare code", "w.pth", "could run code"),
        ("cut", "w.pth", "cut short"),
        ("text", "w.pth", "cut short or no file of weights"),
        ("empty", "w.pth", "cut short"),
        ("no tensors", "w.pth", "no tensors"),
        ("a list", "w.pth", "holds a list"),
        ("cut safetensors", "w.safetensors", "damaged"),
        ("text", "w.safetensors", "damaged"),
        ("empty", "w.safetensors", "damaged"),
        ("missing", "w.safetensors", "there is no file"),
    ],
)
def test_refuses(tmp_path, monkeypatch, name, file, words):
    monkeypatch.chdir(tmp_path)
    damage(name, tmp_path / file)
    with pytest.raises(UserError, match=words) as error:
        read_weights(tmp_path / file)
    assert file in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("other", "words"), [(net(5), "(5, 3)"), (nn.Linear(3, 4), "lacks 0.bias")]
)
def test_another_architecture(tmp_path, other, words):
    save_weights(tmp_path / "w.safetensors", other)
    before = net()
    after = net()
    after.load_state_dict(before.state_dict())
    with pytest.raises(UserError, match="another architecture") as error:
        load_weights(tmp_path / "w.safetensors", after)
    assert words in str(error.value)
    assert equal(before, after)


def test_pretrained_takes_what_fits(tmp_path):
    first, second = vit(num_classes=7), vit(num_classes=3)
    save_weights(tmp_path / "w.safetensors", first)
    result = load_pretrained(second, str(tmp_path / "w.safetensors"))
    assert set(result.new) == set(result.left) == {"head.weight", "head.bias"}
    assert len(result.loaded) == len(second.state_dict()) - 2
    assert torch.equal(first.blocks[1].mlp.fc1.weight, second.blocks[1].mlp.fc1.weight)
    assert "head.weight" in str(result)


def test_pretrained_fits_channels_and_size(tmp_path):
    first, second = vit(), vit(in_chans=1, img_size=64)
    torch.save({"model": first.state_dict()}, tmp_path / "w.pth")
    result = load_pretrained(second, str(tmp_path / "w.pth"))
    assert not result.new and not result.left
    expected = first.patch_embed.proj.weight.sum(1, keepdim=True)
    torch.testing.assert_close(second.patch_embed.proj.weight, expected)
    assert second.pos_embed.shape[1] == 65


def test_pretrained_reads_a_tasks_checkpoint(tmp_path):
    first, second = vit(), vit()
    state = {f"backbone.{name}": value for name, value in first.state_dict().items()}
    torch.save({"state_dict": {**state, "other.weight": torch.zeros(2)}}, tmp_path / "w.ckpt")
    result = load_pretrained(second, str(tmp_path / "w.ckpt"))
    assert not result.new and equal(first, second)


def test_pretrained_refuses_what_hardly_fits(tmp_path):
    model = vit()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    save_weights(tmp_path / "w.safetensors", vit(depth=1, embed_dim=64))
    with pytest.raises(UserError, match=r"fits \d+% of this VisionTransformer"):
        load_pretrained(model, str(tmp_path / "w.safetensors"))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("source", ["hf:nobody/nothing", "hf:nobody/nothing/w.pth"])
def test_pretrained_tells_a_hub_that_is_away(source, monkeypatch):
    def away(*args, **kwargs):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr("timm.models._hub.hf_hub_download", away)
    with pytest.raises(UserError, match=r"hf:nobody/nothing \(no route to host\)"):
        load_pretrained(vit(), source)


def test_pretrained_comes_from_a_hub(tmp_path, monkeypatch):
    first, second = vit(), vit()
    save_weights(tmp_path / "model.safetensors", first)

    def local(repo_id, filename, **kwargs):
        assert repo_id == "some/repo"
        return str(tmp_path / filename)

    monkeypatch.setattr("timm.models._hub.hf_hub_download", local)
    assert not load_pretrained(second, "hf:some/repo").new
    assert equal(first, second)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("hf:nothing", "hf:OWNER/REPO"),
        ("resnet10t.c3_in1", "did you mean resnet10t.c3_in1k"),
        ("vit_tiny_patch4", "there is no file"),
    ],
)
def test_pretrained_refuses_a_wrong_name(source, words):
    with pytest.raises(UserError, match=words):
        load_pretrained(vit(), source)


def test_weights_file_is_plain_safetensors(tmp_path):
    save_weights(tmp_path / "w.safetensors", net())
    assert set(load_file(tmp_path / "w.safetensors")) == set(net().state_dict())
