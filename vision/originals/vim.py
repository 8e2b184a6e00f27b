"""Vim as released: https://github.com/hustvl/Vim, vim/models_mamba.py, weights under Apache-2.0."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tristate.core.mixer import Mixer
from tristate.core.mixers.bimamba import BiMamba
from tristate.core.mixers.mamba import Mamba
from tristate.core.original import Original, Renames, Rule, Unsupported, refuse, take
from tristate.core.originals.mamba import (
    SSM_DEFAULTS,
    branch_rules,
    mixer_args,
    projection_rules,
)
from tristate.vision.models.vim import Vim

MIXER_DEFAULTS = {
    **SSM_DEFAULTS,
    "d_model": None,
    "bimamba_type": "none",
    "if_divide_out": False,
    "init_layer_scale": None,
}

BACKBONE_DEFAULTS = {
    "img_size": 224,
    "patch_size": 16,
    "stride": 16,
    "depth": 24,
    "embed_dim": 192,
    "d_state": 16,
    "channels": 3,
    "num_classes": 1000,
    "ssm_cfg": None,
    "drop_rate": 0.0,
    "drop_path_rate": 0.1,
    "norm_epsilon": 1e-5,
    "rms_norm": False,
    "initializer_cfg": None,
    "fused_add_norm": False,
    "residual_in_fp32": False,
    "device": None,
    "dtype": None,
    "ft_seq_len": None,
    "pt_hw_seq_len": 14,
    "if_bidirectional": False,
    "final_pool_type": "none",
    "if_abs_pos_embed": False,
    "if_rope": False,
    "if_rope_residual": False,
    "flip_img_sequences_ratio": -1.0,
    "if_bimamba": False,
    "bimamba_type": "none",
    "if_cls_token": False,
    "if_divide_out": False,
    "init_layer_scale": None,
    "use_double_cls_token": False,
    "use_middle_cls_token": False,
}

POOLS = {"mean": "avg", "none": "last"}


def mixer(config: dict[str, Any]) -> Original:
    """``vim.Mamba``: the mixer alone."""
    config = take(config, "vim.Mamba", MIXER_DEFAULTS)
    refuse("vim.Mamba", config, init_layer_scale=None)
    make, args = _mixer(config)
    return make(config["d_model"], **args), Renames(mixer_rules())


def backbone(config: dict[str, Any]) -> Original:
    """``vim.VisionMamba``: the classifier."""
    entry = "vim.VisionMamba"
    config = take(config, entry, BACKBONE_DEFAULTS)
    refuse(
        entry,
        config,
        if_bidirectional=False,
        if_bimamba=False,
        if_rope=False,
        if_rope_residual=False,
        use_double_cls_token=False,
        initializer_cfg=None,
    )
    if config["flip_img_sequences_ratio"] > 0:
        raise Unsupported(f"{entry}: sequences flipped at random are not supported")
    # With a class token the original ignores final_pool_type.
    pool, token = "token", "middle" if config["use_middle_cls_token"] else "head"
    if not config["if_cls_token"]:
        if config["final_pool_type"] not in POOLS:
            raise Unsupported(f"{entry}: can't pool by {config['final_pool_type']!r}")
        pool, token = POOLS[config["final_pool_type"]], "none"
    ssm = take(config["ssm_cfg"] or {}, f"{entry} ssm_cfg", SSM_DEFAULTS)
    ssm |= {k: config[k] for k in ("d_state", "bimamba_type", "if_divide_out")}
    make, args = _mixer(ssm)
    module = Vim(
        img_size=config["img_size"],
        patch_size=config["patch_size"],
        stride=config["stride"],
        in_chans=config["channels"],
        num_classes=config["num_classes"],
        global_pool=pool,
        d_model=config["embed_dim"],
        n_layers=config["depth"],
        class_token=token,
        pos_embed=config["if_abs_pos_embed"],
        mixer="bimamba" if make is BiMamba else "mamba",
        mixer_args=args,
        norm="rms" if config["rms_norm"] else "layer",
        norm_eps=config["norm_epsilon"],
        residual_in_fp32=config["residual_in_fp32"],
        layer_scale=config["init_layer_scale"],
        drop_rate=config["drop_rate"],
        drop_path_rate=config["drop_path_rate"],
    )
    return module, Renames(backbone_rules(two_way=make is BiMamba))


def _mixer(config: dict[str, Any]) -> tuple[type[Mixer], dict[str, Any]]:
    match config["bimamba_type"]:
        case "v2":
            scale = 0.5 if config["if_divide_out"] else 1.0
            return BiMamba, mixer_args(config) | {"output_scale": scale}
        case "none":
            return Mamba, mixer_args(config)
        case other:
            raise Unsupported(
                f"vim: only bimamba_type 'v2' and 'none' are supported, got {other!r}"
            )


def mixer_rules(theirs: str = "", ours: str = "", *, two_way: bool = True) -> list[Rule]:
    """Rules for one mixer, two-way or plain; the prefixes are a pattern and its image."""
    rules = projection_rules(theirs, ours)
    if not two_way:
        return rules + branch_rules("branch.", theirs=theirs, ours=ours)
    return [
        *rules,
        *branch_rules("ahead.", theirs=theirs, ours=ours),
        *branch_rules("back.", "_b", theirs=theirs, ours=ours),
    ]


def backbone_rules(*, two_way: bool = True) -> list[Rule]:
    """Rules for the classifier with two-way mixers, or with plain ones."""
    block, ours = r"layers\.(?P<i>\d+)\.", r"stack.blocks.\g<i>."
    return [
        (r"cls_token|pos_embed|patch_embed\.proj\.(weight|bias)|head\.(weight|bias)", r"\g<0>"),
        (r"norm_f\.(?P<part>weight|bias)", r"stack.norm.\g<part>"),
        (rf"{block}norm\.(?P<part>weight|bias)", rf"{ours}norm.\g<part>"),
        (rf"{block}mixer\.gamma", f"{ours}scale"),
        *mixer_rules(rf"{block}mixer\.", f"{ours}mixer.", two_way=two_way),
    ]


def convert_checkpoint(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict from a released one, whichever mixer it has."""
    return Renames(backbone_rules(two_way=any(k.endswith("A_b_log") for k in state)))(state)
