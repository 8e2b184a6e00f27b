"""Laws of the Vim backbone."""

import copy

import pytest
import torch

import tristate
from tristate.vision.models.positions import insert_token, resample_positions, split_token
from tristate.vision.models.vim import Vim

SMALL = {"img_size": 32, "patch_size": 8, "d_model": 16, "n_layers": 2, "num_classes": 5}


@pytest.mark.parametrize("class_token", ["middle", "head", "none"])
@pytest.mark.parametrize("size", [(32, 32), (40, 24), (33, 47), (8, 8)])
def test_any_image_size_runs(class_token, size):
    pool = "avg" if class_token == "none" else "token"
    model = Vim(**SMALL, class_token=class_token, global_pool=pool).eval()
    assert model(torch.randn(2, 3, *size)).isfinite().all()


@pytest.mark.parametrize("place", ["middle", "head"])
def test_the_class_token_stands_where_it_should(place):
    model = Vim(**SMALL, class_token=place, pos_embed=False)
    with torch.no_grad():
        model.cls_token.fill_(7.0)
    tokens, _ = model.embed(torch.zeros(1, 3, 32, 32))
    at = 8 if place == "middle" else 0
    assert (tokens[0, at] == 7).all()
    token, patches = model.split_tokens(tokens)
    assert (token == 7).all() and (patches == 0).all()


def test_overlapping_patches():
    model = Vim(**SMALL, stride=4)
    assert model.patch_embed.grid_size == (7, 7)
    assert model(torch.randn(1, 3, 32, 32)).shape == (1, 5)


def test_a_token_goes_in_and_comes_out():
    patches, token = torch.randn(2, 9, 4), torch.randn(2, 1, 4)
    out, rest = split_token(insert_token(patches, token, lambda n: n // 2), lambda n: n // 2)
    torch.testing.assert_close((out, rest), (token, patches))


def test_resampling_keeps_a_constant_and_the_token():
    positions = torch.ones(1, 17, 3)
    positions[:, 8] = 5.0
    there = resample_positions(positions, (4, 4), (6, 9), lambda n: n // 2)
    assert there.shape == (1, 55, 3)
    token, patches = split_token(there, lambda n: n // 2)
    torch.testing.assert_close(token, torch.full((1, 1, 3), 5.0))
    torch.testing.assert_close(patches, torch.ones(1, 54, 3))


def test_reading_both_ways_is_symmetric():
    """With the branches exchanged, the features of the mirrored token row are the mirror."""
    model = Vim(**SMALL, class_token="none", global_pool="avg", pos_embed=False).double().eval()
    tokens = torch.randn(1, 16, 16, dtype=torch.float64)
    before = model.stack(tokens)
    for block in model.stack.blocks:
        mixer = block.mixer
        ahead = copy.deepcopy(mixer.ahead.state_dict())
        mixer.ahead.load_state_dict(mixer.back.state_dict())
        mixer.back.load_state_dict(ahead)
    torch.testing.assert_close(model.stack(tokens.flip(1)).flip(1), before)


def test_stochastic_depth_reaches_the_asked_rate_at_the_last_block():
    model = Vim(**(SMALL | {"n_layers": 5}), drop_path_rate=0.2)
    rates = [getattr(b.drop_path, "drop_prob", 0.0) for b in model.stack.blocks]
    assert rates == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])


def test_what_weight_decay_spares():
    names = Vim(**SMALL).no_weight_decay()
    assert {"cls_token", "pos_embed", "stack.blocks.0.mixer.ahead.A_log"} <= names
    assert "stack.blocks.0.mixer.in_proj.weight" not in names


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"class_token": "tail"}, "'middle', 'head' or 'none'"),
        ({"class_token": "none"}, "can't pool by 'token'"),
        ({"img_size": 4}, "smaller than a patch"),
        ({"mixer": "mamab"}, "mamba"),
    ],
)
def test_refuses(arguments, says):
    with pytest.raises((ValueError, KeyError), match=says):
        Vim(**(SMALL | arguments))


def test_any_mixer_stands_in():
    model = Vim(**SMALL, mixer="mamba", mixer_args={"d_state": 4})
    assert model(torch.randn(1, 3, 32, 32)).shape == (1, 5)


def test_create_model_knows_ours_and_timms():
    assert isinstance(tristate.create_model("vim_micro_patch4_28", n_layers=1), Vim)
    with pytest.raises(ValueError, match="vim_tiny_patch16_224"):
        tristate.create_model("vim_tiny_patch16_242")
    with pytest.raises(ValueError, match="'patch_sise'.*patch_size"):
        tristate.create_model("deit_tiny_patch16_224", patch_sise=8)
