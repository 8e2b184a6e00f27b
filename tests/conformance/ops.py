"""How each op of the golden vectors is called: one line a family.

An adapter takes the file and its inputs by name, and returns outputs by the golden names. It calls
the public function with ``backend="auto"``: the runner decides which backend that is.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tests.conformance.adapters import hippo
from tests.conformance.golden import Golden
from tristate.kernels.cross import CROSS, Route, cross_merge, cross_restore, cross_scan

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


# VMamba's numbers for sets of routes.
_ROUTES: dict[int, tuple[Route, ...]] = {
    0: CROSS,
    1: ("rows", "rows", "rows", "rows"),
    2: ("rows", "rows", "rows_back", "rows_back"),
}


def _cross_scan(golden: Golden, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    x, call = inputs["x"], golden.call
    if not call["in_channel_first"]:  # (B, H, W, D), or (B, H, W, K, D)
        x = x.permute(0, *range(3, x.dim()), 1, 2)
    y = cross_scan(x, _ROUTES[call["scans"]])
    return {"out": y if call["out_channel_first"] else y.permute(0, 3, 1, 2)}


def _cross_merge(golden: Golden, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    y, call = inputs["y"], golden.call
    if not call["out_channel_first"]:  # (B, H, W, K, D)
        y = y.permute(0, 3, 4, 1, 2)
    merge = cross_restore if call["one_by_one"] else cross_merge
    x = merge(y.flatten(3), call["H"], call["W"], _ROUTES[call["scans"]]).flatten(-2)
    return {"out": x if call["in_channel_first"] else x.movedim(-1, 1)}


def _delta_rule(golden: Golden, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    # Heads come before time.
    state = {"h0": inputs["h0"]} if "h0" in inputs else {}
    by_time = {name: x.transpose(1, 2) for name, x in inputs.items() if name != "h0"}
    results = _gated_delta_rule(golden, by_time | state)
    return {k: x.transpose(1, 2) if k.startswith("y") else x for k, x in results.items()}


def _gated_delta_rule(golden: Golden, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    from tristate.kernels.delta import chunked

    results = _by_delta_rule(inputs)
    if "output.y_chunk" not in golden.tensors:
        return results
    q, k, v, beta = (inputs[name] for name in ("q", "k", "v", "beta"))
    y, state = chunked.gated_delta_rule(
        q, k, v, beta, inputs.get("g"), inputs.get("h0"), None, q.shape[3] ** -0.5, False, 16
    )
    return results | {"y_chunk": y, "state_chunk": state}


def _delta_product(golden: Golden, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return _by_delta_rule(inputs, scale=1.0)  # as the original's reference, which doesn't scale


def _by_delta_rule(inputs: dict[str, Tensor], **options: float) -> dict[str, Tensor]:
    from tristate.kernels.delta import gated_delta_rule

    named: dict[str, Any] = {"initial_state" if k == "h0" else k: x for k, x in inputs.items()}
    y, state = gated_delta_rule(**named, **options)
    return {"y": y, "final_state": state}


def _linear_attention(golden: Golden, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    from tristate.kernels.attention import chunked, linear_attention

    named = {_NAMES.get(name, name): x for name, x in inputs.items()}
    y, state = linear_attention(**named)
    results = {"y": y, "final_state": state}
    if "output.y_chunk" not in golden.tensors:
        return results
    q, k, v = (named[name] for name in ("q", "k", "v"))
    others = (named.get(name) for name in ("g", "a", "b", "initial_state"))
    how = None, q.shape[3] ** -0.5, False, "u" in named
    y, state = chunked.linear_attention(q, k, v, *others, *how, golden.call["chunk"])
    return results | {"y_chunk": y, "state_chunk": state}


# Theirs and ours.
_NAMES = {"gk": "g", "w": "g", "alpha": "a", "beta": "b", "h0": "initial_state"}


def _heads_first(golden: Golden, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Linear attention where heads come before time."""
    named = {k: x if k in ("u", "h0") else x.transpose(1, 2) for k, x in inputs.items()}
    results = _linear_attention(golden, named)
    return {k: x.transpose(1, 2) if k.startswith("y") else x for k, x in results.items()}


def _retention(golden: Golden, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    q = inputs["q"]
    decay = 1 - 2.0 ** (-5 - torch.arange(q.shape[1], dtype=q.dtype))
    logs = decay.log()[:, None].expand(*q.shape[:3])
    return _heads_first(golden, {**inputs, "g": logs})


def _hgrn(golden: Golden, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    from tristate.kernels.linear import linear_scan

    decay = inputs["g"].exp()
    y, state = linear_scan(decay, inputs["x"], initial_state=inputs.get("h0"))
    return {"y": y, "final_state": state}


def _wkv(golden: Golden, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    from tristate.kernels.rwkv import wkv

    decay, bonus = -inputs["time_decay"].exp(), inputs["time_first"]
    y, state = wkv(inputs["key"], inputs["value"], w=decay, u=bonus)
    return {"y": y, **dict(zip(("num", "den", "max"), state.unbind(1), strict=True))}


def _ssd(golden: Golden, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    from tristate.kernels.ssd import ssd_scan

    flags = _flags(golden, "chunk_size", "dt_limit", "dt_softplus")
    out, states = ssd_scan(**inputs, **flags, return_final_states=True)
    return {"out": out, "final_states": states}


def _ssd_minimal(golden: Golden, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    from tristate.kernels.ssd import ssd_scan

    # Its A is the logarithm of each step's decay, its X has the step in it.
    steps = -inputs["A"]
    y, state = ssd_scan(
        inputs["X"] / steps[..., None],
        steps,
        -steps.new_ones(steps.shape[2]),
        inputs["B"],
        inputs["C"],
        golden.call["chunk"],
        initial_states=inputs["initial_states"],
        return_final_states=True,
    )
    return {"y": y, "final_state": state}


def _mamba3_siso(golden: Golden, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    from tristate.core.parts.mamba3 import Mamba3State, mamba3_scan

    heads = inputs["V"].shape[2]
    q, k = (
        inputs[name].repeat_interleave(heads // inputs[name].shape[2], 2) + inputs[f"{name}_bias"]
        for name in ("Q", "K")
    )
    state = None
    if "s0" in inputs:
        state = Mamba3State(*(inputs[name] for name in ("a0", "s0", "k0", "v0")))
    y, last = mamba3_scan(
        q,
        k,
        inputs["V"],
        *(inputs[name].transpose(1, 2) for name in ("ADT", "DT", "Trap")),
        inputs["Angles"],
        D=inputs.get("D"),
        z=inputs.get("Z"),
        state=state,
    )
    names = ("angle_state", "ssm_state", "k_state", "v_state")
    states = dict(zip(names, last, strict=True))
    return {"y": y, "y_chunk": y, "chunk_ssm_state": last.scan, **states}


OPS: dict[str, Adapter] = {
    "hippo.discretized": hippo.discretized,
    "hippo.nplr": hippo.nplr,
    "hippo.transition": hippo.transition,
    "ops.delta_rule": _delta_rule,
    "ops.delta_product": _delta_product,
    "ops.gated_delta_rule": _gated_delta_rule,
    "ops.gated_delta_product": _delta_product,
    "ops.mamba3_siso": _mamba3_siso,
    "ops.selective_scan": _selective_scan,
    "ops.selective_state_update": _selective_state_update,
    "ops.ssd": _ssd,
    "ops.ssd_minimal_discrete": _ssd_minimal,
    "ops.cross_scan": _cross_scan,
    "ops.cross_merge": _cross_merge,
    "ops.causal_conv1d": _causal_conv1d,
    "ops.causal_conv1d_update": _causal_conv1d_update,
    "ops.add_norm": _add_norm,
    "ops.gated_rms_norm": _gated_rms_norm,
    "ops.gla": _linear_attention,
    "ops.simple_gla": _linear_attention,
    "ops.rwkv6": _heads_first,
    "ops.rwkv7": _heads_first,
    "ops.iplr_delta_rule": _heads_first,
    "ops.retention": _retention,
    "ops.hgrn": _hgrn,
    "ops.rwkv4_wkv": _wkv,
}
