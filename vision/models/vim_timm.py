"""Vim under its names in timm: released sizes, where their weights are, and how they are read."""

import math
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor

from tristate.vision.models.positions import resample_positions
from tristate.vision.models.vim import Vim
from tristate.vision.originals.vim import convert_checkpoint


def checkpoint_filter_fn(state_dict: dict[str, Any], model: Vim) -> dict[str, Tensor]:
    """Weights for ``model`` from a checkpoint: the released layout or ours, any image size.

    Positions of another grid, which must be square, are resampled.
    """
    state = state_dict.get("model", state_dict)
    if any(key.startswith("layers.") for key in state):
        state = convert_checkpoint(state)
    positions = state.get("pos_embed")
    if positions is None or model.pos_embed is None or positions.shape == model.pos_embed.shape:
        return state
    count = positions.shape[1] - model.num_prefix_tokens
    side = math.isqrt(count)
    if side * side != count:
        raise ValueError(f"pos_embed of {count} patches is not square: its grid can't be told")
    grid = model.patch_embed.grid_size
    return {**state, "pos_embed": resample_positions(positions, (side, side), grid, model.place)}


def _cfg(**kwargs: Any) -> dict[str, Any]:
    return {
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": None,
        "crop_pct": 0.875,
        "interpolation": "bicubic",
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "first_conv": "patch_embed.proj",
        "classifier": "head",
        "license": "apache-2.0",
        "paper_ids": "arXiv:2401.09417",
        "paper_name": "Vision Mamba: Efficient Visual Representation Learning with Bidirectional "
        "State Space Model",
        "origin_url": "https://github.com/hustvl/Vim",
        **kwargs,
    }


def _released(size: str, filename: str) -> dict[str, Any]:
    return _cfg(hf_hub_id=f"hustvl/Vim-{size}-midclstok", hf_hub_filename=filename)


default_cfgs = generate_default_cfgs(
    {
        "vim_tiny_patch16_224.in1k": _released("tiny", "vim_t_midclstok_76p1acc.pth"),
        "vim_small_patch16_224.in1k": _released("small", "vim_s_midclstok_80p5acc.pth"),
        "vim_base_patch16_224.in1k": _released("base", "vim_b_midclstok_81p9acc.pth"),
        "vim_tiny_patch16_stride8_224.in1k": _released("tiny", "vim_t_midclstok_ft_78p3acc.pth"),
        "vim_small_patch16_stride8_224.in1k": _released("small", "vim_s_midclstok_ft_81p6acc.pth"),
        "vim_micro_patch4_28.untrained": _cfg(
            input_size=(3, 28, 28),
            num_classes=10,
            crop_pct=1.0,
            mean=(0.5,) * 3,
            std=(0.5,) * 3,
            first_conv="patch_embed.stem.0.0",
        ),
    }
)


def _vim(variant: str, pretrained: bool, **kwargs: Any) -> Any:
    return build_model_with_cfg(
        Vim,
        variant,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg={"out_indices": kwargs.pop("out_indices", 3), "feature_cls": "getter"},
        **kwargs,
    )


@register_model
def vim_tiny_patch16_224(pretrained: bool = False, **kwargs: Any) -> Vim:
    """Vim-Ti: 7.1 M parameters; published top-1 76.1 on ImageNet-1k (Zhu et al. 2024)."""
    return _vim("vim_tiny_patch16_224", pretrained, **{"d_model": 192, **kwargs})


@register_model
def vim_small_patch16_224(pretrained: bool = False, **kwargs: Any) -> Vim:
    """Vim-S: 25.8 M parameters; published top-1 80.5 on ImageNet-1k (Zhu et al. 2024)."""
    return _vim("vim_small_patch16_224", pretrained, **{"d_model": 384, **kwargs})


@register_model
def vim_base_patch16_224(pretrained: bool = False, **kwargs: Any) -> Vim:
    """Vim-B: 97.6 M parameters; published top-1 81.9 on ImageNet-1k (the repository's README)."""
    return _vim("vim_base_patch16_224", pretrained, **{"d_model": 768, **kwargs})


@register_model
def vim_tiny_patch16_stride8_224(pretrained: bool = False, **kwargs: Any) -> Vim:
    """Vim-Ti+: overlapping patches, 730 tokens; published top-1 78.3 (Zhu et al. 2024)."""
    args = {"d_model": 192, "stride": 8, **kwargs}
    return _vim("vim_tiny_patch16_stride8_224", pretrained, **args)


@register_model
def vim_small_patch16_stride8_224(pretrained: bool = False, **kwargs: Any) -> Vim:
    """Vim-S+: overlapping patches, 730 tokens; published top-1 81.6 (Zhu et al. 2024)."""
    args = {"d_model": 384, "stride": 8, **kwargs}
    return _vim("vim_small_patch16_stride8_224", pretrained, **args)


@register_model
def vim_micro_patch4_28(pretrained: bool = False, **kwargs: Any) -> Vim:
    """A Vim for 28x28 images that trains in minutes on two CPU cores; no released weights."""
    args = {
        "img_size": 28,
        "patch_size": 4,
        "stem": "conv",
        "d_model": 64,
        "n_layers": 3,
        "mixer_args": {"d_state": 8, "expand": 1},
        **kwargs,
    }
    return _vim("vim_micro_patch4_28", pretrained, **args)
