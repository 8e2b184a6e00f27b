"""What a user would take instead on a GPU, where it is installed.

mamba-ssm and causal-conv1d (https://github.com/state-spaces/mamba,
https://github.com/Dao-AILab/causal-conv1d), flash-linear-attention
(https://github.com/fla-org/flash-linear-attention), PyTorch: each function here calls one of
theirs, its first argument, with the inputs of a case.
"""

from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

from torch import Tensor
from torch.nn import functional as F


def _scan(scan: Any, **inputs: Tensor) -> Tensor:
    return scan(**inputs, delta_softplus=True)


def _two_scans(scan: Any, **inputs: Tensor) -> Tensor:
    """One each way, the second over flipped copies, and the sum."""
    ahead = {name: x for name, x in inputs.items() if not name.endswith("_back")}
    back = {name: inputs.get(f"{name}_back", x) for name, x in ahead.items()}
    sequences = ("u", "delta", "B", "C", "z")
    back = {name: x.flip(-1) if name in sequences else x for name, x in back.items()}
    return _scan(scan, **ahead) + _scan(scan, **back).flip(-1)


def _chunk_scan(scan: Any, **inputs: Tensor) -> Tensor:
    return scan(**inputs, chunk_size=256, dt_softplus=True)


def _conv(conv: Any, **inputs: Tensor) -> Tensor:
    return conv(**inputs, activation="silu")


def _torch_conv(conv: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A grouped convolution with padding, cut to length."""
    n_channels, width = weight.shape
    y = conv(x, weight[:, None], bias, padding=width - 1, groups=n_channels)
    return F.silu(y[..., : x.shape[2]])


def _first(op: Any, **inputs: Tensor) -> Tensor:
    return op(**inputs)[0]


def _norm(norm: Any, x: Tensor, weight: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
    return norm(x, weight, None, residual=residual, eps=1e-5, prenorm=True)


def _torch_norm(norm: Any, x: Tensor, weight: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
    total = x + residual
    return norm(total, weight.shape, weight, 1e-5), total


def _gated_norm(norm: Any, x: Tensor, weight: Tensor, z: Tensor) -> Tensor:
    return norm(x, weight, None, z=z, eps=1e-5, norm_before_gate=False)


class Peer(NamedTuple):
    """A function of another package.

    Attributes:
        op: what it computes.
        module: where it is.
        name: its name there.
        call: calls it with an op's inputs.
    """

    op: str
    module: str
    name: str
    call: Callable[..., Any]


_SCAN = ("mamba_ssm.ops.selective_scan_interface", "selective_scan_fn")

PEERS = (
    Peer("add_norm", "mamba_ssm.ops.triton.layer_norm", "rms_norm_fn", _norm),
    Peer("add_norm", "torch.nn.functional", "rms_norm", _torch_norm),
    Peer("bidirectional_selective_scan", *_SCAN, _two_scans),
    Peer("causal_conv1d", "causal_conv1d", "causal_conv1d_fn", _conv),
    Peer("causal_conv1d", "torch.nn.functional", "conv1d", _torch_conv),
    Peer("gated_delta_rule", "fla.ops.gated_delta_rule", "chunk_gated_delta_rule", _first),
    Peer("gated_rms_norm", "mamba_ssm.ops.triton.layernorm_gated", "rmsnorm_fn", _gated_norm),
    Peer("linear_attention", "fla.ops.gla", "chunk_gla", _first),
    Peer("selective_scan", *_SCAN, _scan),
    Peer("ssd_scan", "mamba_ssm.ops.triton.ssd_combined", "mamba_chunk_scan_combined", _chunk_scan),
)


def _package(peer: Peer) -> str:
    return peer.module.partition(".")[0]


def installed(op: str) -> dict[str, Callable[..., Any]]:
    """Those that compute an op and are here, by their package."""
    return {
        _package(peer): partial(peer.call, getattr(import_module(peer.module), peer.name))
        for peer in PEERS
        if peer.op == op and find_spec(_package(peer))
    }


def absent() -> Iterator[str]:
    """A sentence for each package that isn't here."""
    for package in sorted({_package(peer) for peer in PEERS}):
        if not find_spec(package):
            yield f"{package} isn't installed: no row has it"
