"""How each op of the golden vectors is called: one line a family.

An adapter takes the file and its inputs by name, and returns outputs by the golden names. It calls
the public function with ``backend="auto"``: the runner decides which backend that is.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from tests.conformance.golden import Golden

Adapter = Callable[[Golden, dict[str, Tensor]], dict[str, Tensor]]


def _flags(golden: Golden, *names: str) -> dict[str, Any]:
    """Those of the call's arguments that the function takes; the others only describe shapes."""
    return {name: golden.call[name] for name in names if name in golden.call}


def _selective_scan(golden: Golden, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    from tristate.kernels.selective import selective_scan

    out, state = selective_scan(
        **inputs, **_flags(golden, "delta_softplus"), return_last_state=True
    )
    return {"out": out, "y": out, "last_state": state}


def _selective_state_update(golden: Golden, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    from tristate.kernels.selective import selective_state_update

    out = selective_state_update(**inputs, **_flags(golden, "dt_softplus"))
    return {"out": out, "new_state": inputs["state"]}


def _causal_conv1d(golden: Golden, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    from tristate.kernels.conv import causal_conv1d

    out, state = causal_conv1d(**inputs, **_flags(golden, "activation"), return_final_states=True)
    return {"out": out, "final_states": state}


def _causal_conv1d_update(golden: Golden, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    from tristate.kernels.conv import causal_conv1d_update

    out = causal_conv1d_update(**inputs, **_flags(golden, "activation"))
    return {"out": out, "new_conv_state": inputs["conv_state"]}


def _add_norm(golden: Golden, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    from tristate.kernels.norm import add_norm

    flags = _flags(golden, "rms", "eps", "residual_in_fp32")
    out, residual_out = add_norm(**inputs, **flags, prenorm=True)
    return {"out": out, "residual_out": residual_out}


def _gated_rms_norm(golden: Golden, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    from tristate.kernels.norm import gated_rms_norm

    return {
        "out": gated_rms_norm(**inputs, **_flags(golden, "eps", "group_size", "norm_before_gate"))
    }


OPS: dict[str, Adapter] = {
    "ops.selective_scan": _selective_scan,
    "ops.selective_state_update": _selective_state_update,
    "ops.causal_conv1d": _causal_conv1d,
    "ops.causal_conv1d_update": _causal_conv1d_update,
    "ops.add_norm": _add_norm,
    "ops.gated_rms_norm": _gated_rms_norm,
}
