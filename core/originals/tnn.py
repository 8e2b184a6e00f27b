"""TNN as released: https://github.com/Doraemonzzz/tnn-pytorch (the paper's authors')."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tristate.core.block import Block
from tristate.core.mixers.tnn import TNN
from tristate.core.mlp import GatedMLP
from tristate.core.norm import AddOnly, AddThen
from tristate.core.original import Convert, Original, Renames, Rule, refuse, take
from tristate.core.parts.toeplitz import SimpleRMSNorm, Toeplitz
from tristate.core.stack import Stack

TOEPLITZ_DEFAULTS = {
    "causal": False,
    "use_decay": False,
    "use_multi_decay": False,
    "residual": False,
    "par_type": 1,
    "gamma": 0.999,
    "bias": True,
    "act_type": "none",
    "norm_type": "simplermsnorm",
    "normalize": False,
}
TNO_DEFAULTS = {
    "h": None,
    "dim": None,
    "rpe_dim": None,
    "act": "relu",
    "layers": 3,
    **TOEPLITZ_DEFAULTS,
}
GTU_DEFAULTS = {
    "embed_dim": None,
    "num_heads": None,
    "act_fun": "silu",
    "expand_ratio": 3,
    "resi_param": False,
    "use_norm": False,
    "rpe_layers": 3,
    "rpe_embedding": 512,
    "rpe_act": "relu",
    **TOEPLITZ_DEFAULTS,
    "gamma": 0.99,
}
LAYER_DEFAULTS = {
    "dim": None,
    "num_heads": None,
    "rpe_embedding": None,
    "glu_dim": None,
    "prenorm": True,
    "norm_type": "simplermsnorm",
    "causal": False,
    "gtu_act": "silu",
    "expand_ratio": 3,
    "use_decay": False,
    "gamma": 0.999,
    "rpe_act": "relu",
    "rpe_layers": 3,
    "glu_act": "silu",
}
LAGS = {1: "index", 2: "fraction", 3: "exponential"}
NORMS: dict[str, Callable[[int], nn.Module]] = {
    "simplermsnorm": SimpleRMSNorm,
    "rmsnorm": partial(SimpleRMSNorm, affine=True),
    "layernorm": nn.LayerNorm,
}
# By the original's names; it takes any other for none at all.
ACTIVATIONS = {
    **{name: name for name in ("gelu", "relu", "elu", "sigmoid", "exp", "silu")},
    "leak": "leaky_relu",
    "1+elu": "elu_plus_one",
    "2+elu": "elu_plus_two",
}


def tno(config: dict[str, Any]) -> Original:
    """``tnn.Tno``: the Toeplitz operator, its heads' channels one after another."""
    config = take(config, "tnn.Tno", TNO_DEFAULTS)
    args = _toeplitz_args("tnn.Tno", config)
    module = Toeplitz(config["h"] * config["dim"], bidirectional=not config["causal"], **args)
    return module, Renames(_toeplitz_rules(config["layers"], "", ""))


def gtu(config: dict[str, Any]) -> Original:
    """``tnn.Gtu``: the gated Toeplitz unit."""
    config = take(config, "tnn.Gtu", GTU_DEFAULTS)
    return _unit("tnn.Gtu", config), Renames(_unit_rules(config["rpe_layers"], "", ""))


def layer(config: dict[str, Any]) -> Original:
    """``tnn.TnnLayer``: unit and gated linear layer, each with its norm and residual."""
    config = take(config, "tnn.TnnLayer", LAYER_DEFAULTS)
    same = ("num_heads", "rpe_embedding", "norm_type", "causal", "expand_ratio", "use_decay")
    unit = _unit(
        "tnn.TnnLayer",
        {
            **GTU_DEFAULTS,
            **{name: config[name] for name in (*same, "gamma", "rpe_act", "rpe_layers")},
            "embed_dim": config["dim"],
            "act_fun": config["gtu_act"],
        },
    )
    dim, norm, only = config["dim"], _norm("tnn.TnnLayer", config), AddOnly()
    mlp = GatedMLP(dim, d_hidden=config["glu_dim"], activation=_name(config["glu_act"]), bias=True)
    if config["prenorm"]:
        blocks = [_block(part, AddThen(norm(dim))) for part in (unit, mlp)]
        mixers, norms = "blocks.{}.mixer.", "blocks.{}.norm.norm."
    else:
        # Not behind the residual, but in front of it.
        blocks = [_block(nn.Sequential(part, norm(dim)), only) for part in (unit, mlp)]
        mixers, norms = "blocks.{}.mixer.0.", "blocks.{}.mixer.1."
    return Stack(blocks, only), _layer_convert(config["rpe_layers"], mixers, norms)


def _block(mixer: nn.Module, norm: Any) -> Block:
    return Block(mixer, norm)


def _unit(entry: str, config: dict[str, Any]) -> TNN:
    # A parameter that is declared and never used, or an error, by release.
    refuse(entry, config, resi_param=False)
    width = int(config["expand_ratio"] * config["embed_dim"])
    d_inner = width // config["num_heads"] * config["num_heads"]
    args = _toeplitz_args(
        entry,
        {
            **config,
            "rpe_dim": config["rpe_embedding"],
            "act": config["rpe_act"],
            "layers": config["rpe_layers"],
        },
    )
    return TNN(
        config["embed_dim"],
        expand=d_inner / config["embed_dim"],
        bidirectional=not config["causal"],
        activation=_name(config["act_fun"]),
        bias=config["bias"],
        norm=_norm(entry, config)(d_inner) if config["use_norm"] else None,
        **args,
    )


def _toeplitz_args(entry: str, config: dict[str, Any]) -> dict[str, Any]:
    if config["use_decay"] and config["use_multi_decay"]:
        refuse(entry, config, use_decay=False)
    if config["par_type"] not in LAGS or (config["par_type"] == 3 and not config["causal"]):
        refuse(entry, config, par_type=1)
    decays = config["use_decay"] or config["use_multi_decay"]
    return {
        "decay": config["gamma"] if decays else None,
        "learn_decay": config["use_multi_decay"],
        "lags": LAGS[config["par_type"]],
        "normalize": config["normalize"],
        "tap_activation": _name(config["act_type"]),
        "d_hidden": config["rpe_dim"],
        "n_hidden": config["layers"],
        "lag_activation": _name(config["act"]),
        "residual": config["residual"],
        "lag_bias": config["bias"],
        "lag_norm": _norm(entry, config),
    }


def _norm(entry: str, config: dict[str, Any]) -> Callable[[int], nn.Module]:
    if config["norm_type"] not in NORMS:
        refuse(entry, config, norm_type="simplermsnorm")
    return NORMS[config["norm_type"]]


def _name(activation: str) -> str:
    return ACTIVATIONS.get(activation, "none")


def _toeplitz_rules(layers: int, theirs: str, ours: str) -> list[Rule]:
    """Rules for the operator, whose network has ``layers`` between its first and last layer."""
    rpe, network = rf"{theirs}rpe\.", f"{ours}network."
    places = [(rf"layers\.{i}\.", i) for i in range(layers)] + [(r"out\.", layers)]
    rules: list[Rule] = [
        (rf"{theirs}gamma", f"{ours}decay", torch.flatten),
        (rf"{rpe}pos_proj\.(?P<part>weight|bias)", rf"{network}layers.0.\g<part>"),
    ]
    for where, i in places:
        rules += [
            *_norm_rules(rf"{rpe}{where}0\.", f"{network}norms.{i}."),
            (rf"{rpe}{where}2\.(?P<part>weight|bias)", rf"{network}layers.{i + 1}.\g<part>"),
        ]
    return rules


def _unit_rules(layers: int, theirs: str, ours: str) -> list[Rule]:
    return [
        (rf"{theirs}(?P<name>[uv]_proj\.(?:weight|bias))", rf"{ours}\g<name>"),
        (rf"{theirs}o\.(?P<part>weight|bias)", rf"{ours}out_proj.\g<part>"),
        *_norm_rules(rf"{theirs}norm\.", f"{ours}norm."),
        *_toeplitz_rules(layers, rf"{theirs}toep\.", f"{ours}toeplitz."),
    ]


def _norm_rules(theirs: str, ours: str) -> list[Rule]:
    return [
        (rf"{theirs}(?:scale|weight)", f"{ours}weight"),
        (rf"{theirs}bias", f"{ours}bias"),
    ]


def _layer_convert(layers: int, mixers: str, norms: str) -> Convert:
    """The map of a layer; the two templates say where ours has mixers and norms of block ``i``."""
    renames = Renames(
        [
            *_unit_rules(layers, r"token_mixer\.", mixers.format(0)),
            *_norm_rules(r"token_norm\.", norms.format(0)),
            *_norm_rules(r"feature_norm\.", norms.format(1)),
            (r"l12\.(?P<part>weight|bias)", rf"{mixers.format(1)}in_proj.\g<part>"),
            (r"feature_mixer\.l3\.(?P<part>weight|bias)", rf"{mixers.format(1)}out_proj.\g<part>"),
        ]
    )

    def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        joined = dict(state)
        for part in ("weight", "bias"):
            # The gate is activated, and comes first in ours too.
            gate, value = (joined.pop(f"feature_mixer.l{i}.{part}") for i in (1, 2))
            joined[f"l12.{part}"] = torch.cat([gate, value])
        return renames(joined)

    return convert
