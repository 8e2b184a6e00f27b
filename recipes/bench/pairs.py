"""Models of transformers, small and random, beside ours with the same weights."""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol

import torch
from torch import Tensor

from tristate.core.original import from_original


class Peer(Protocol):
    """What generates beside ours."""

    def prompt(self, x: Tensor) -> tuple[Tensor, Any]:
        """What comes out for a prompt, and the cache after it."""
        ...

    def step(self, x: Tensor, cache: Any) -> Tensor:
        """What comes out for one more token."""
        ...


@dataclass(frozen=True)
class Pair:
    """Ours and its peers.

    Attributes:
        ours: has ``forward_state`` and ``step``.
        draw: inputs of so many positions, batch first.
        peers: the others by name.
    """

    ours: Any
    draw: Callable[[int], Tensor]
    peers: dict[str, Peer] = field(default_factory=dict)


VOCABULARY = 1024
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}

# Options of each family beside the width; the sizes of a layer are those of the released models in
# proportion.
FAMILIES: dict[str, dict[str, Any]] = {
    "FalconMamba": {"num_hidden_layers": 2, "state_size": 16},
    "Jamba": HEADS
    | {
        "num_hidden_layers": 4,
        "intermediate_size": 512,
        "num_experts": 4,
        "attn_layer_period": 4,
        "attn_layer_offset": 2,
    },
    "Mamba": {"num_hidden_layers": 2, "state_size": 16},
    "Mamba2": {"num_hidden_layers": 2, "head_dim": 64, "num_heads": 8, "n_groups": 1},
    "Qwen3Next": {
        "linear_num_value_heads": 4,
        "linear_num_key_heads": 2,
        "linear_key_head_dim": 64,
        "linear_value_head_dim": 64,
    },
    "RecurrentGemma": {
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "num_hidden_layers": 3,
        "intermediate_size": 1536,
        "lru_width": 256,
    },
    "Rwkv": {"num_hidden_layers": 2},
    # The step from a cache has no least step size there: choose one that is never reached.
    "Zamba2": {
        "num_attention_heads": 4,
        "num_hidden_layers": 4,
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
        "mamba_d_state": 64,
        "mamba_ngroups": 1,
        "n_mamba_heads": 8,
        "num_mem_blocks": 1,
        "intermediate_size": 512,
        "adapter_rank": 8,
        "use_mem_rope": True,
        "time_step_min": 1e-7,
    },
}


def pair(family: str, width: int) -> Pair:
    """Ours and theirs of a family with the same random weights; Qwen3Next's layer by itself."""
    transformers: Any = import_module("transformers")
    # Each of its models says that kernels are missing.
    transformers.logging.set_verbosity_error()
    if family == "Qwen3Next":
        return _layer(transformers, FAMILIES[family] | {"hidden_size": width})
    config = getattr(transformers, f"{family}Config")(
        vocab_size=VOCABULARY, hidden_size=width, pad_token_id=0, **FAMILIES[family]
    )
    theirs = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    ours = _read(f"transformers.{family}ForCausalLM", config.to_diff_dict(), theirs)
    return Pair(
        ours,
        lambda length: torch.randint(1, VOCABULARY, (1, length)),
        {"transformers": _LanguageModel(theirs, transformers.DynamicCache)},
    )


def _layer(transformers: Any, options: dict[str, Any]) -> Pair:
    config = transformers.Qwen3NextConfig(
        **options, num_hidden_layers=1, layer_types=["linear_attention"]
    )
    module: Any = import_module("transformers.models.qwen3_next.modeling_qwen3_next")
    theirs = module.Qwen3NextGatedDeltaNet(config, 0).eval()
    ours = _read("qwen3_next.Qwen3NextGatedDeltaNet", options, theirs)
    return Pair(
        ours,
        lambda length: torch.randn(1, length, options["hidden_size"]),
        {"transformers": _Layer(theirs, lambda: transformers.DynamicCache(config=config))},
    )


def _read(entry: str, config: dict[str, Any], theirs: Any) -> Any:
    ours, convert = from_original(entry, config)
    ours.load_state_dict(convert(theirs.state_dict()))
    return ours.eval()


class _LanguageModel:
    """One of transformers: families name their caches differently.

    Args:
        model: theirs.
        cache: makes one from a configuration.
    """

    def __init__(self, model: Any, cache: Any) -> None:
        self.model, self.cache = model, cache
        family = type(model).__name__
        self.told = {"RecurrentGemmaForCausalLM": "position_ids"}.get(family)
        self.name = "state" if family == "RwkvForCausalLM" else "cache_params"
        if hasattr(model.config, "num_attention_heads"):
            self.name = "past_key_values"

    def prompt(self, x: Tensor) -> tuple[Tensor, Any]:
        """Logits ``(B, L, V)`` and the cache."""
        cache = None if self.name == "state" else self.cache(config=self.model.config)
        out = self.model(x, use_cache=True, **{self.name: cache})
        return out.logits, (x.shape[1], out.state if self.name == "state" else cache)

    def step(self, x: Tensor, cache: Any) -> Tensor:
        """Logits ``(B, V)``; the cache goes on by a token."""
        seen, cache = cache
        options = {self.told: torch.full((len(x), 1), seen)} if self.told else {}
        out = self.model(x[:, None], use_cache=True, **{self.name: cache}, **options)
        return out.logits[:, 0]


class _Layer:
    """A layer of transformers with a cache of its own.

    Args:
        layer: theirs.
        cache: makes one.
    """

    def __init__(self, layer: Any, cache: Callable[[], Any]) -> None:
        self.layer, self.cache = layer, cache

    def prompt(self, x: Tensor) -> tuple[Tensor, Any]:
        """``(B, L, D)`` and the cache."""
        cache = self.cache()
        return self.layer(x, cache_params=cache), cache

    def step(self, x: Tensor, cache: Any) -> Tensor:
        """``(B, D)``; the cache goes on by a token."""
        return self.layer(x[:, None], cache_params=cache)[:, 0]
