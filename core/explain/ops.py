"""The ops of sequence mixers, and the argument in which each is linear.

What mixes positions in a layer is one call of one of these. With all other arguments as they are,
its output is a linear map of its values: attention, a scan and a convolution alike. So what a layer
reads where needs no formula of the layer's own: the op itself is asked, impulse by impulse.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from inspect import signature
from typing import Any, NamedTuple

from torch import Tensor


def _never(arguments: Mapping[str, Any]) -> bool:
    return False


def _always(arguments: Mapping[str, Any]) -> bool:
    return True


def _constant_decay(arguments: Mapping[str, Any]) -> bool:
    seq_idx = arguments.get("seq_idx")
    one_sequence = seq_idx is None or bool((seq_idx == seq_idx[:, :1]).all() & (seq_idx >= 0).all())
    return arguments["a"].dim() == 1 and one_sequence


class LinearOp(NamedTuple):
    """A function whose output is linear in its values, the other arguments being fixed.

    Attributes:
        path: ``"module:function"``, or ``"module:Class.method"``.
        values: that argument: a tensor, batch first, or a pair, one of each direction of time.
        axis: of the positions, in values and output alike.
        n_axes: axes that the positions take, from that one on: 2 on a map.
        heads: the last axis holds channels which all get the same weights.
        skip: argument that weighs the values themselves in the output.
        gate: argument whose SiLU multiplies the output.
        state: argument that holds the state before the first position.
        names: of the arguments, where the function has no signature to ask for them.
        invariant: whether the map is the same at all positions: then it is a convolution.
    """

    path: str
    values: str
    axis: int
    n_axes: int = 1
    heads: bool = False
    skip: str | None = None
    gate: str | None = None
    state: str | None = None
    names: tuple[str, ...] = ()
    invariant: Callable[[Mapping[str, Any]], bool] = _never

    @property
    def name(self) -> str:
        """The function's, as it is called."""
        return self.path.partition(":")[2].partition(".")[0]

    def resolve(self) -> tuple[Any, str, Callable[..., Any]]:
        """Where it is defined (a module or a class), its name there, and itself."""
        module, _, path = self.path.partition(":")
        *outer, last = path.split(".")
        holder = import_module(module)
        for name in outer:
            holder = getattr(holder, name)
        return holder, last, vars(holder)[last]

    def bind(self, function: Callable[..., Any], args: Any, kwargs: Any) -> dict[str, Any]:
        """The arguments of a call by name; what was not given is absent."""
        if self.names:
            return {**dict(zip(self.names, args, strict=False)), **kwargs}
        return dict(signature(function).bind(*args, **kwargs).arguments)

    def laid(self, x: Tensor) -> Tensor:
        """Values or an output as ``(B, *channels, L)``; of a head its first channel."""
        x = x[..., 0] if self.heads else x
        first = self.axis % x.dim()
        return x.flatten(first, first + self.n_axes - 1).movedim(first, -1)


_SDPA = "query key value attn_mask dropout_p is_causal scale enable_gqa"

OPS = (
    LinearOp(
        "tristate.core.parts.attention:attend",
        values="v",
        axis=1,
        heads=True,
    ),
    LinearOp(
        "tristate.core.parts.chunked_attention:ChunkedAttention.forward",
        values="v",
        axis=1,
        heads=True,
    ),
    LinearOp(
        "tristate.core.parts.mamba3:mamba3_scan",
        values="v",
        axis=1,
        heads=True,
        skip="D",
        gate="z",
        state="state",
    ),
    LinearOp(
        "tristate.core.ssm.recurrence:Recurrence.run",
        values="x",
        axis=-1,
        state="state",
        invariant=_always,
    ),
    LinearOp(
        "tristate.core.ssm.shift:ShiftSSM.run",
        values="x",
        axis=-1,
        state="state",
        invariant=_always,
    ),
    LinearOp(
        "tristate.kernels.attention:linear_attention",
        values="v",
        axis=1,
        heads=True,
        state="initial_state",
    ),
    LinearOp(
        "tristate.kernels.cross:bidirectional_selective_scan",
        values="u",
        axis=-1,
        skip="D",
        gate="z",
    ),
    LinearOp(
        "tristate.kernels.cross:selective_scan_2d",
        values="u",
        axis=-2,
        n_axes=2,
        skip="D",
    ),
    LinearOp(
        "tristate.kernels.delta:gated_delta_rule",
        values="v",
        axis=1,
        heads=True,
        state="initial_state",
    ),
    LinearOp(
        "tristate.kernels.linear:linear_scan",
        values="b",
        axis=1,
        state="initial_state",
        invariant=_constant_decay,
    ),
    LinearOp(
        "tristate.kernels.longconv:long_conv",
        values="x",
        axis=-1,
        skip="D",
        invariant=_always,
    ),
    LinearOp(
        "tristate.kernels.rwkv:wkv",
        values="v",
        axis=1,
        state="initial_state",
    ),
    LinearOp(
        "tristate.kernels.selective:selective_scan",
        values="u",
        axis=-1,
        skip="D",
        gate="z",
        state="initial_state",
    ),
    LinearOp(
        "tristate.kernels.ssd:ssd_scan",
        values="x",
        axis=1,
        heads=True,
        skip="D",
        gate="z",
        state="initial_states",
    ),
    LinearOp(
        "torch.nn.functional:scaled_dot_product_attention",
        values="value",
        axis=2,
        heads=True,
        names=tuple(_SDPA.split()),
    ),
)
"""A new op is a line here; the laws in ``tests/core/test_explain.py`` then hold for its mixers."""
