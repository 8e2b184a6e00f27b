"""What timm asks of every registered model (its tests/test_models.py), over our names."""

import pytest
import timm
import torch
from timm.models import FeatureInfo

import tristate

NAMES = tristate.list_models("vim_*")


def size_of(model):
    channels, height, width = model.default_cfg["input_size"]
    # A smaller image keeps the large ones quick; any size runs.
    return channels, min(height, 96), min(width, 96)


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def model(name):
    torch.manual_seed(0)
    # Every width and patch as registered; two layers, since the contract does not depend on depth.
    return timm.create_model(name, n_layers=2).eval()


@pytest.fixture
def image(model):
    return torch.randn(2, *size_of(model))


def test_names_are_registered():
    assert set(NAMES) >= {
        "vim_tiny_patch16_224",
        "vim_small_patch16_224",
        "vim_base_patch16_224",
        "vim_tiny_patch16_stride8_224",
        "vim_small_patch16_stride8_224",
        "vim_micro_patch4_28",
    }


def test_forward(model, image):
    y = model(image)
    assert y.shape == (2, model.num_classes) and y.isfinite().all()


def test_features_then_head_is_forward(model, image):
    features = model.forward_features(image)
    torch.testing.assert_close(model.forward_head(features), model(image))
    assert model.forward_head(features, pre_logits=True).shape == (2, model.head_hidden_size)


def test_every_parameter_gets_a_gradient(name):
    model = timm.create_model(name, n_layers=2, num_classes=42).train()
    y = model(torch.randn(2, *size_of(model)))
    assert y.shape == (2, 42) and y.isfinite().all()
    y.mean().backward()
    assert not [n for n, p in model.named_parameters() if p.grad is None]
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_gradient_checkpointing(name):
    model = timm.create_model(name, n_layers=2, num_classes=4).train()
    image, grads = torch.randn(2, *size_of(model)), []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        model(image).square().sum().backward()
        grads.append({n: p.grad.clone() for n, p in model.named_parameters()})
    for n, grad in grads[0].items():
        torch.testing.assert_close(grads[1][n], grad, rtol=1e-4, atol=1e-4)


def test_default_cfg_is_true(model):
    cfg, state = model.default_cfg, model.state_dict()
    assert cfg["classifier"] + ".weight" in state
    assert cfg["first_conv"] + ".weight" in state
    assert cfg["num_classes"] == model.num_classes
    assert cfg["license"] and cfg["origin_url"]
    assert model.get_submodule(cfg["first_conv"]).in_channels == cfg["input_size"][0]


def test_reset_classifier(name):
    model = timm.create_model(name, n_layers=1).eval()
    image = torch.randn(2, *size_of(model))
    model.reset_classifier(0)
    assert model(image).shape == (2, model.num_features)
    model.reset_classifier(0, "")
    assert model(image).ndim == 3 and model(image).shape[-1] == model.num_features
    model.reset_classifier(7, "avg")
    assert model(image).shape == (2, 7)
    assert model.get_classifier().out_features == model.num_classes == 7
    with pytest.raises(ValueError, match="avg"):
        model.reset_classifier(7, "average")


def test_no_head_by_constructor(name):
    model = timm.create_model(name, n_layers=1, num_classes=0, global_pool="").eval()
    y = model(torch.randn(2, *size_of(model)))
    assert y.ndim == 3 and y.shape[-1] == model.num_features


def test_one_channel(name):
    model = timm.create_model(name, n_layers=1, in_chans=1).eval()
    _, height, width = size_of(model)
    assert model(torch.randn(1, 1, height, width)).isfinite().all()


def test_features_only(name):
    model = timm.create_model(name, features_only=True, n_layers=3, out_indices=(0, 2)).eval()
    side = 28 if "28" in name else 96
    maps = model(torch.randn(1, 3, side, side))
    assert len(maps) == 2 == len(model.feature_info.channels())
    for channels, map_ in zip(model.feature_info.channels(), maps, strict=True):
        assert map_.shape[1] == channels
        grid = timm.create_model(name, n_layers=1).patch_embed.grid_of(side, side)
        assert map_.shape[2:] == grid


def test_forward_intermediates(model, image):
    info = FeatureInfo(model.feature_info, len(model.feature_info))
    output, maps = model.forward_intermediates(image)
    assert len(maps) == len(info.channels())
    torch.testing.assert_close(output, model.forward_features(image))
    for channels, reduction, map_ in zip(info.channels(), info.reduction(), maps, strict=True):
        assert map_.shape[1] == channels
        assert map_.shape[2] <= -(-image.shape[2] // reduction) + 1
    # Laid out as tokens, with the last norm: the last one is the features without their token.
    _, tokens = model.forward_intermediates(image, norm=True, output_fmt="NLC")
    torch.testing.assert_close(tokens[-1], model.split_tokens(output)[1])
    (only,) = model.forward_intermediates(image, [0], stop_early=True, intermediates_only=True)
    torch.testing.assert_close(only, maps[0])
    ((patches, token),) = model.forward_intermediates(
        image, 1, return_prefix_tokens=True, intermediates_only=True
    )
    torch.testing.assert_close(patches, maps[-1])
    assert token.shape == (2, 1, model.num_features)


def test_pruning_keeps_what_is_asked_for(name):
    model = timm.create_model(name, n_layers=3).eval()
    image = torch.randn(1, *size_of(model))
    _, maps = model.forward_intermediates(image)
    assert model.prune_intermediate_layers([1], prune_norm=True) == [1]
    assert len(model.stack.blocks) == 2
    (map_,) = model.forward_intermediates(image, [1], intermediates_only=True)
    torch.testing.assert_close(map_, maps[1])


def test_layer_wise_groups_cover_all_parameters(model):
    from timm.models import group_parameters

    groups = group_parameters(model, model.group_matcher(), reverse=True)
    assert set(groups) == {n for n, _ in model.named_parameters()}
    assert groups["patch_embed.proj.weight"] == 0
    assert groups["stack.blocks.0.mixer.in_proj.weight"] == 1
    assert groups["head.weight"] == max(groups.values())


def test_a_misspelt_argument_is_named(name):
    with pytest.raises(ValueError, match="'patch_sise'.*patch_size"):
        tristate.create_model(name, patch_sise=8)
