"""The originals' reference functions: the same here by the readable loops, float64 included."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from torch import Tensor

from tristate.core.compat import conv, scan
from tristate.kernels.backend import use_backend
from tristate.kernels.conv import Activation

P = ParamSpec("P")
T = TypeVar("T")


def _by_reference(function: Callable[P, T]) -> Callable[P, T]:
    """``function`` with every kernel in it computed by the reference backend."""

    @wraps(function)
    def computed(*args: P.args, **kwargs: P.kwargs) -> T:
        with use_backend("reference"):
            return function(*args, **kwargs)

    return computed


selective_scan_ref = _by_reference(scan.selective_scan_fn)
selective_state_update_ref = _by_reference(scan.selective_state_update)
mamba_inner_ref = _by_reference(scan.mamba_inner_fn)
bimamba_inner_ref = _by_reference(scan.bimamba_inner_fn)
causal_conv1d_update_ref = _by_reference(conv.causal_conv1d_update)
causal_conv1d_varlen_states_ref = conv.causal_conv1d_varlen_states


@_by_reference
def causal_conv1d_ref(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    initial_states: Tensor | None = None,
    return_final_states: bool = False,
    final_states_out: Tensor | None = None,
    activation: Activation = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """:func:`tristate.core.compat.conv.causal_conv1d_fn` without ``seq_idx``."""
    return conv.causal_conv1d_fn(
        x, weight, bias, None, initial_states, return_final_states, final_states_out, activation
    )
