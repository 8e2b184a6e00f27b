"""The layer around S5 and the LRU in their JAX code: norm, residual and gate.

``SequenceLayer`` of https://github.com/lindermanlab/S5 and of
https://github.com/NicolasZucchet/minimal-LRU; flax keeps a dense layer's weight as ``(in, out)``.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from tristate.core.layer import residual_layer
from tristate.core.norm import AddThen, BatchNorm, LayerNorm
from tristate.core.original import Rule
from tristate.core.parts.pointwise import Followed
from tristate.core.stack import Stack

MIXER = "blocks.0.mixer."


def layer(mixer: Followed, *, batchnorm: bool, prenorm: bool) -> Stack:
    """The mixer with its norm and residual."""
    norm = AddThen(BatchNorm(mixer.d_model)) if batchnorm else LayerNorm(mixer.d_model, eps=1e-6)
    return residual_layer(mixer, norm, prenorm=prenorm)


def rules(norm: str, *, batchnorm: bool, prenorm: bool) -> list[Rule]:
    """Rules for norm and gate.

    Args:
        norm: what the original calls its norm.
        batchnorm: it is a batch norm.
        prenorm: it stands in front of the mixer.
    """
    ours = ("blocks.0.norm." if prenorm else "norm.") + ("norm." if batchnorm else "")
    return [
        (rf"{norm}\.scale", f"{ours}weight"),
        (rf"{norm}\.bias", f"{ours}bias"),
        (rf"batch_stats\.{norm}\.(?P<part>mean|var)", rf"{ours}running_\g<part>"),
        (rf"batch_stats\.{norm}\.count", f"{ours}num_batches_tracked"),
        (r"out2\.kernel", f"{MIXER}output.linear.weight", torch.t),
        (r"out2\.bias", f"{MIXER}output.linear.bias"),
    ]


def prepared(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state with a GLU's two dense layers as one, the value first, and batches counted."""
    joined = dict(state)
    for name in ("kernel", "bias"):
        if f"out1.{name}" in joined:
            value = joined.pop(f"out1.{name}")
            joined[f"out2.{name}"] = torch.cat([value, joined[f"out2.{name}"]], -1)
    for name in state:
        if name.startswith("batch_stats.") and name.endswith(".mean"):
            # flax keeps a moving average that needs no count.
            joined[name.removesuffix("mean") + "count"] = torch.zeros((), dtype=torch.int64)
    return joined
