"""Hybrids: which layers a stack has, by name, where they are not all alike.

A pattern is a function ``(d_model, n_layers, **arguments)`` that returns the modules of each layer,
in order; :func:`tristate.core.plain.plain_stack` puts each into a residual block. A :class:`Beside`
among them is a mixer that also reads a side branch.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from torch import nn

from tristate.core.arguments import call
from tristate.core.mixers import MIXERS
from tristate.core.mixers.attention import Attention
from tristate.core.mixers.griffin_recurrence import GriffinRecurrence
from tristate.core.mlp import MLP, GatedMLP
from tristate.core.moe import Experts
from tristate.core.side import SharedTransformer, another_use
from tristate.kernels.registry import Registry


class Beside(NamedTuple):
    """A mixer, and the branch that it reads beside the stream."""

    mixer: nn.Module
    side: nn.Module


Layers = list[list[Any]]

PATTERNS = Registry(
    "pattern of layers",
    {
        "griffin": "tristate.core.patterns:griffin",
        "h3_hybrid": "tristate.core.patterns:h3_hybrid",
        "hawk": "tristate.core.patterns:hawk",
        "interleaved": "tristate.core.patterns:interleaved",
        "jamba": "tristate.core.patterns:jamba",
        "mega_encoder": "tristate.core.mega:layers",
        "rwkv": "tristate.core.rwkv:layers",
        "striped_hyena": "tristate.core.patterns:striped_hyena",
        "zamba": "tristate.core.patterns:zamba",
    },
)


def griffin(
    d_model: int,
    n_layers: int,
    *,
    n_heads: int = 4,
    n_kv_heads: int = 1,
    window: int = 1024,
    attention_every: int = 3,
    d_inner: int | None = None,
    d_hidden: int | None = None,
    d_conv: int = 4,
    rotary_base: float = 10_000.0,
    bias: bool = True,
) -> Layers:
    """Two recurrent blocks, then one attention within a window, each followed by a gated MLP.

    Args:
        d_model: width.
        n_layers: mixers, each with its MLP.
        n_heads: heads of the attention, and blocks of the recurrences' gates.
        n_kv_heads: heads of keys and values.
        window: places that an attention sees, its own among them.
        attention_every: every so many layers is an attention; 0 for none (Hawk).
        d_inner: width of the recurrences; ``d_model`` when absent.
        d_hidden: width inside the MLPs; ``3 d_model`` when absent.
        d_conv: taps of the recurrences' filter.
        rotary_base: of the attention.
        bias: biases of the MLPs.

    Source: De et al. 2024, https://arxiv.org/abs/2402.19427.
    """
    layers: Layers = []
    for index in range(n_layers):
        if attention_every and index % attention_every == attention_every - 1:
            mixer = Attention(
                d_model,
                n_heads=n_heads,
                n_kv_heads=n_kv_heads,
                window=window,
                rotary_base=rotary_base,
                rotary_fraction=0.5,
                out_bias=True,
            )
        else:
            mixer = GriffinRecurrence(d_model, d_inner=d_inner, n_heads=n_heads, d_conv=d_conv)
        mlp = GatedMLP(d_model, d_hidden=d_hidden or 3 * d_model, activation="gelu_tanh", bias=bias)
        layers.append([mixer, mlp])
    return layers


def hawk(d_model: int, n_layers: int, **recurrence: Any) -> Layers:
    """:func:`griffin` without attention.

    Args:
        d_model: width.
        n_layers: mixers, each with its MLP.
        **recurrence: ``n_heads``, ``d_inner``, ``d_hidden``, ``d_conv`` and ``bias``.
    """
    return call(griffin, d_model, n_layers, attention_every=0, **recurrence)


def jamba(
    d_model: int,
    n_layers: int,
    *,
    n_heads: int = 4,
    n_kv_heads: int | None = None,
    d_hidden: int | None = None,
    n_experts: int = 8,
    top_k: int = 2,
    attention_every: int = 8,
    attention_offset: int = 4,
    experts_every: int = 2,
    experts_offset: int | None = 1,
    norm_eps: float = 1e-6,
    mamba_args: Mapping[str, Any] | None = None,
) -> Layers:
    """Mamba with normalised dt, B and C; one layer in eight is attention, every other has experts.

    Args:
        d_model: width.
        n_layers: mixers, each with its MLP or experts.
        n_heads: heads of the attention, which has no rotary embedding.
        n_kv_heads: heads of keys and values; ``n_heads`` when absent.
        d_hidden: width inside the MLPs and the experts.
        n_experts: experts of a layer.
        top_k: experts of a position.
        attention_every: every so many layers is an attention.
        attention_offset: index of the first of them.
        experts_every: every so many layers has experts in place of an MLP.
        experts_offset: index of the first of them; None for no experts.
        norm_eps: of Mamba's norms.
        mamba_args: other arguments of :class:`tristate.core.mixers.mamba.Mamba`.

    Source: Lieber et al. 2024, https://arxiv.org/abs/2403.19887.
    """
    layers: Layers = []
    for index in range(n_layers):
        if index % attention_every == attention_offset:
            mixer = Attention(d_model, n_heads=n_heads, n_kv_heads=n_kv_heads, rotary_base=None)
        else:
            mixer = call(MIXERS["mamba"], d_model, norm_eps=norm_eps, **(mamba_args or {}))
        if index % experts_every == experts_offset:
            mlp = Experts(d_model, d_hidden=d_hidden, n_experts=n_experts, top_k=top_k)
        else:
            mlp = GatedMLP(d_model, d_hidden=d_hidden)
        layers.append([mixer, mlp])
    return layers


def zamba(
    d_model: int,
    n_layers: int,
    *,
    mixer: str = "mamba2",
    mixer_args: Mapping[str, Any] | None = None,
    shared_every: int = 6,
    shared_layers: Iterable[int] | None = None,
    n_shared: int = 1,
    rank: int = 8,
    adapt_attention: bool = False,
    **shared: Any,
) -> Layers:
    """Mamba-2 layers; now and then one also reads an attention block that many layers share.

    The block sees the stream and what entered the stack, and has a low-rank change of its own at
    each use.

    Args:
        d_model: width.
        n_layers: mixers; there are no MLPs beside the shared ones.
        mixer: name in :data:`tristate.core.mixers.MIXERS`.
        mixer_args: its arguments beside ``d_model``.
        shared_every: every so many layers reads the block.
        shared_layers: indices of those layers, where they are not evenly spread.
        n_shared: different blocks, which take turns.
        rank: of the changes.
        adapt_attention: also change queries, keys and values, not the MLP alone.
        **shared: arguments of :class:`tristate.core.side.SharedTransformer`.

    Source: Glorioso et al. 2024, https://arxiv.org/abs/2405.16712 and
    https://arxiv.org/abs/2411.15242.
    """
    readers = list(shared_layers if shared_layers is not None else [])
    if shared_layers is None:
        readers = list(range(shared_every - 1, n_layers, shared_every))
    blocks = [
        call(SharedTransformer, d_model, **shared) for _ in range(min(n_shared, len(readers)))
    ]
    layers: Layers = []
    for index in range(n_layers):
        one = call(MIXERS[mixer], d_model, **(mixer_args or {}))
        if index in readers:
            block = blocks[readers.index(index) % len(blocks)]
            one = Beside(one, another_use(block, rank=rank, adapt_attention=adapt_attention))
        layers.append([one])
    return layers


def h3_hybrid(
    d_model: int,
    n_layers: int,
    *,
    attention_layers: Iterable[int] | None = None,
    n_heads: int = 4,
    d_hidden: int | None = None,
    mixer_args: Mapping[str, Any] | None = None,
) -> Layers:
    """H3 layers but for two attentions, the second and that in the middle; an MLP behind each.

    Args:
        d_model: width.
        n_layers: mixers, each with its MLP.
        attention_layers: indices of the attentions; ``1`` and ``1 + n_layers / 2`` when absent.
        n_heads: heads of the attention, which has no rotary embedding.
        d_hidden: width inside the MLPs; ``4 d_model`` when absent.
        mixer_args: arguments of H3.

    Source: Fu et al. 2022, https://arxiv.org/abs/2212.14052, section 3.3.
    """
    places = {1, 1 + n_layers // 2} if attention_layers is None else set(attention_layers)
    layers: Layers = []
    for index in range(n_layers):
        if index in places:
            mixer = Attention(d_model, n_heads=n_heads, rotary_base=None)
        else:
            mixer = call(MIXERS["h3"], d_model, **(mixer_args or {}))
        layers.append([mixer, MLP(d_model, d_hidden=d_hidden, activation="gelu_tanh")])
    return layers


def striped_hyena(
    d_model: int,
    n_layers: int,
    *,
    attention_layers: Iterable[int] | None = None,
    n_heads: int = 4,
    n_kv_heads: int | None = None,
    d_hidden: int | None = None,
    mixer_args: Mapping[str, Any] | None = None,
) -> Layers:
    """Hyena layers with rotary attention in between; a gated MLP behind each.

    Args:
        d_model: width.
        n_layers: mixers, each with its MLP.
        attention_layers: indices of the attentions; every other one when absent.
        n_heads: heads of the attention.
        n_kv_heads: heads of keys and values; ``n_heads`` when absent.
        d_hidden: width inside the MLPs.
        mixer_args: arguments of Hyena.

    Source: Poli et al. 2023, https://github.com/togethercomputer/stripedhyena.
    """
    places = set(range(1, n_layers, 2)) if attention_layers is None else set(attention_layers)
    layers: Layers = []
    for index in range(n_layers):
        if index in places:
            mixer = Attention(d_model, n_heads=n_heads, n_kv_heads=n_kv_heads)
        else:
            mixer = call(MIXERS["hyena"], d_model, **(mixer_args or {}))
        layers.append([mixer, GatedMLP(d_model, d_hidden=d_hidden)])
    return layers


def interleaved(
    d_model: int,
    n_layers: int,
    *,
    mixers: list[str],
    mixer_args: Mapping[str, Mapping[str, Any]] | None = None,
    mlp_args: Mapping[str, Any] | None = None,
) -> Layers:
    """Mixers by name, over and over in the given order; a gated MLP behind each where asked for.

    Args:
        d_model: width.
        n_layers: mixers.
        mixers: names in :data:`tristate.core.mixers.MIXERS`, first to last.
        mixer_args: arguments by a mixer's name.
        mlp_args: arguments of :class:`tristate.core.mlp.GatedMLP`; None for no MLPs.
    """
    layers: Layers = []
    for index in range(n_layers):
        name = mixers[index % len(mixers)]
        layer: list[Any] = [call(MIXERS[name], d_model, **(mixer_args or {}).get(name, {}))]
        if mlp_args is not None:
            layer.append(call(GatedMLP, d_model, **mlp_args))
        layers.append(layer)
    return layers
