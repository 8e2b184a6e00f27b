"""What is measured on a GPU: ops at the sizes of models that are trained there. A line a case."""

from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tristate import kernels
from tristate.recipes.bench.cases import Case
from tristate.recipes.bench.gpu import problems
from tristate.recipes.bench.gpu.peers import installed
from tristate.recipes.bench.gpu.problems import Problem, Sizes


def _branches(**inputs: Tensor) -> Any:
    pairs: dict[str, Any] = {}
    for name, x in inputs.items():
        if not name.endswith("_back"):
            other = inputs.get(f"{name}_back")
            pairs[name] = x if other is None else (x, other)
    return kernels.bidirectional_selective_scan(**pairs, delta_softplus=True)


def _first(op: Callable[..., Any]) -> Callable[..., Tensor]:
    return lambda **inputs: op(**inputs)[0]


class Entry(NamedTuple):
    """An op at a size.

    Attributes:
        op: its name.
        what: whose size it is.
        sizes: by name.
        problem: makes the inputs.
        ours: the op, as a function of them.
        is_quick: whether a quick run has it.
    """

    op: str
    what: str
    sizes: Sizes
    problem: Problem
    ours: Callable[..., Any]
    is_quick: bool = False


_SCAN = partial(kernels.selective_scan, delta_softplus=True)
_LAST = partial(problems.selective, channels_last=True)
_SSD = partial(kernels.ssd_scan, dt_softplus=True)
_LINEAR, _WKV = _first(kernels.linear_scan), _first(kernels.wkv)
_DELTA, _ATTENTION = _first(kernels.gated_delta_rule), _first(kernels.linear_attention)
_CONV = partial(kernels.causal_conv1d, activation="silu")
_POWERS = partial(kernels.vandermonde, length=16384)
_GATED = partial(kernels.gated_rms_norm, norm_before_gate=False)

_MAMBA = {"B": 8, "D": 4096, "L": 2048, "N": 16, "groups": 1}
_DNA = {"B": 1, "D": 512, "L": 131072, "N": 16, "groups": 1}
_VMAMBA = {"B": 32, "D": 768, "L": 3136, "N": 1, "groups": 4}
_VIM = {"B": 64, "D": 384, "L": 197, "N": 16, "groups": 1}
_MAMBA2 = {"B": 8, "L": 2048, "H": 64, "P": 64, "N": 128}
_HEADS = {"B": 8, "L": 2048, "H": 16, "K": 128, "V": 128}
_ROWS = {"rows": 16384, "D": 4096}

ENTRIES = (
    Entry("selective_scan", "Mamba", _MAMBA, problems.selective, _SCAN, True),
    Entry("selective_scan", "Mamba, channels last", _MAMBA, _LAST, _SCAN, True),
    Entry("selective_scan", "DNA", _DNA, problems.selective, _SCAN),
    Entry("selective_scan", "VMamba", _VMAMBA, problems.selective, _SCAN),
    Entry("bidirectional_selective_scan", "Vim", _VIM, problems.both_ways, _branches, True),
    Entry("ssd_scan", "Mamba-2", _MAMBA2, problems.ssd, _SSD, True),
    Entry("linear_scan", "RG-LRU", {"B": 8, "L": 2048, "D": 4096}, problems.linear, _LINEAR, True),
    Entry("linear_scan", "S5", {"B": 16, "L": 4096, "D": 1024}, problems.linear_complex, _LINEAR),
    Entry("gated_delta_rule", "128 channels", _HEADS, problems.delta, _DELTA, True),
    Entry("linear_attention", "GLA", _HEADS, problems.attention, _ATTENTION, True),
    Entry("wkv", "RWKV-4", {"B": 8, "L": 2048, "D": 2048}, problems.wkv, _WKV),
    Entry("vandermonde", "S4D", {"D": 1024, "N": 32, "L": 16384}, problems.powers, _POWERS),
    Entry("causal_conv1d", "Mamba", _MAMBA | {"width": 4}, problems.conv, _CONV, True),
    Entry("add_norm", "RMS", _ROWS, problems.rows("x", "residual"), kernels.add_norm, True),
    Entry("gated_rms_norm", "gate before", _ROWS, problems.rows("x", "z"), _GATED, True),
)

OPS = tuple(dict.fromkeys(entry.op for entry in ENTRIES))


def selected(only: Collection[str], quick: bool, device: torch.device) -> Iterator[Case]:
    """Those of the named ops, or of all, with inputs on the device; the quick ones if asked."""
    for entry in ENTRIES:
        if entry.op in (only or OPS) and (entry.is_quick or not quick):
            inputs = entry.problem(entry.sizes, device)
            what, n_elements = f"{entry.op}, {entry.what}", 0
            if entry.op.endswith("selective_scan"):
                ways = 2 if "u_back" in inputs else 1
                n_elements = ways * inputs["u"].numel() * entry.sizes["N"]
            yield Case(what, entry.sizes, inputs, entry.ours, installed(entry.op), n_elements)
