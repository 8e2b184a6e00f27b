"""The scans and what stands beside them, as functions of tensors: one folder an op."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tristate.kernels.backend import available_backends, use_backend
    from tristate.kernels.conv import causal_conv1d, causal_conv1d_update
    from tristate.kernels.linear import linear_scan
    from tristate.kernels.norm import add_norm, gated_rms_norm
    from tristate.kernels.selective import selective_scan, selective_state_update

__all__ = [
    "add_norm",
    "available_backends",
    "causal_conv1d",
    "causal_conv1d_update",
    "gated_rms_norm",
    "linear_scan",
    "selective_scan",
    "selective_state_update",
    "use_backend",
]

_HOME = {
    "add_norm": "norm",
    "available_backends": "backend",
    "causal_conv1d": "conv",
    "causal_conv1d_update": "conv",
    "gated_rms_norm": "norm",
    "linear_scan": "linear",
    "selective_scan": "selective",
    "selective_state_update": "selective",
    "use_backend": "backend",
}


def __getattr__(name: str) -> Any:
    # The command line takes its tables from here and starts without PyTorch.
    if name in _HOME:
        return getattr(import_module(f"tristate.kernels.{_HOME[name]}"), name)
    raise AttributeError(f"module 'tristate.kernels' has no attribute {name!r}")
