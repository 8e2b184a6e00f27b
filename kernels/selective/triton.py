"""The selective scan on a GPU: from tensors to the kernels, and back."""

from dataclasses import dataclass
from math import lcm
from typing import Any

import torch
from torch import Tensor

from tristate.kernels.layout import channels_last, empty_like_rows
from tristate.kernels.selective import (
    triton_backward,
    triton_complex_backward,
    triton_complex_forward,
    triton_forward,
)
from tristate.kernels.selective.ops import TRITON_TILE as STEPS
from tristate.kernels.selective.ops import states_innermost, triton_checkpoint_shape
from tristate.kernels.triton.carry import hand_on
from tristate.kernels.triton.launch import launch, strides
from tristate.kernels.triton.plan import Tiles, halves, narrowed, power_of_two, share_out
from tristate.kernels.triton.segments import marks
from tristate.kernels.triton.tune import tuned


def _plans(u: Tensor, A: Tensor, B: Tensor, C: Tensor, backward: bool) -> tuple[Tiles, ...]:
    """The tiles for some sizes and layout, such that nothing is spilled; the default first."""
    n_states = power_of_two(A.shape[1])
    if backward and A.is_complex():
        tile = Tiles(STEPS, min(16, 1024 // n_states), warps=8)
    elif backward and u.element_size() == 2 and n_states <= 16:
        # Twice as wide: what the states and the sums over channels take doesn't shrink with u.
        tile = Tiles(STEPS, 64, warps=8)
    elif backward or A.is_complex():
        tile = Tiles(STEPS, min(32, 2048 // n_states), warps=8)
    elif n_states > 16:
        tile = Tiles(STEPS, min(32, 4096 // n_states), warps=8)
    else:
        tile = Tiles(STEPS, 64, warps=8 if channels_last(u) else 4)
    n_groups = lcm(_groups(B), _groups(C))
    return halves(narrowed(tile, u.shape[1] // n_groups), "channels")


def _forward_plans(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, *_: object
) -> tuple[Tiles, ...]:
    return _plans(u, A, B, C, backward=False)


def _backward_plans(
    grad_out: Tensor,
    grad_last: Tensor | None,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    *_: object,
) -> tuple[Tiles, ...]:
    return _plans(u, A, B, C, backward=True)


@dataclass(frozen=True)
class _Work:
    """What forward and backward have in common.

    Attributes:
        grid: programs: sequences times blocks of channels, and chunks of time.
        n_blocks: blocks of channels.
        arguments: of both kernels.
    """

    grid: tuple[int, int]
    n_blocks: int
    arguments: dict[str, Any]


def _work(
    tile: Tiles,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    z: Tensor | None,
    delta_bias: Tensor | None,
    seq_idx: Tensor | None,
    delta_softplus: bool,
    reverse: bool,
) -> _Work:
    batch, dim, length = u.shape
    apart = max(x.stride(1) for x in (u, delta, z) if x is not None)
    if apart * tile.channels >= 1 << 31:
        raise ValueError(
            f"channels that lie {apart} numbers apart are too far for 32 bits: hand in sequences "
            "whose channels are neighbours, x.mT.contiguous().mT"
        )
    n_states = A.shape[1]
    n_groups = lcm(_groups(B), _groups(C))
    group_blocks = -(-dim // n_groups // tile.channels)
    n_blocks = n_groups * group_blocks
    n_chunks, tiles_each = share_out(u, batch * n_blocks, -(-length // STEPS))
    arguments = {
        "u": u,
        "delta": delta,
        "A": _dense(A.T),
        "z": z,
        "bias": None if delta_bias is None else _dense(delta_bias),
        "marks": marks(seq_idx, reverse),
        "length": length,
        "n_channels": dim,
        "n_states": n_states,
        "n_blocks": n_blocks,
        "group_channels": dim // n_groups,
        "group_blocks": group_blocks,
        "n_tiles": tiles_each,
        **strides("u", u, "bdt"),
        **strides("delta", delta, "bdt"),
        **strides("z", z, "bdt"),
        "SOFTPLUS": delta_softplus,
        "REVERSE": reverse,
        "BLOCK_N": power_of_two(n_states),
        "BLOCK_D": tile.channels,
        "BLOCK_T": STEPS,
        "num_warps": tile.warps,
    }
    for name, weight in (("B", B), ("C", C)):
        varies = weight.dim() > 2  # a complex one as pairs of real numbers
        arguments[f"{name}_VARIES"] = varies
        arguments[name] = weight if varies else _dense(weight.T)
        arguments[f"{name}_channels"] = dim // _groups(weight)
        rows = weight if weight.dim() == 4 else weight[:, None] if varies else None
        arguments |= strides(name, rows, "bgnt")
    return _Work((batch * n_blocks, n_chunks), n_blocks, arguments)


def _groups(weight: Tensor) -> int:
    return weight.shape[1] if weight.dim() == 4 else 1


def _dense(x: Tensor) -> Tensor:
    """A parameter or state as the kernels read it: float32, complex numbers as pairs."""
    if x.is_complex():
        return _pairs(x.to(torch.complex64).resolve_conj().contiguous())
    return x.float().contiguous()


def _pairs(x: Tensor) -> Tensor:
    """The memory of a dense tensor as real numbers."""
    return torch.view_as_real(x) if x.is_complex() else x


@tuned("selective_scan", _forward_plans)
def forward(
    tile: Tiles,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    delta_softplus: bool,
    reverse: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Output in the layout of ``u``, last state, and with ``keep`` the states before each tile."""
    work = _work(tile, u, delta, A, B, C, z, delta_bias, seq_idx, delta_softplus, reverse)
    out = empty_like_rows(u)
    states = (u.shape[0], work.grid[1], *A.T.shape)
    scalar = torch.complex64 if A.is_complex() else torch.float32
    leaving = u.new_empty(states, dtype=scalar)
    kept = u.new_empty(triton_checkpoint_shape(u, A, B, C) if keep else (0,), dtype=scalar)
    kernel = (triton_complex_forward if A.is_complex() else triton_forward).forward
    given = {
        **work.arguments,
        "D": None if D is None else _dense(D),
        "leaving": _pairs(leaving),
        **strides("out", out, "bdt"),
    }
    entering = None if initial_state is None else initial_state.mT
    if work.grid[1] > 1:
        decays = torch.empty_like(leaving)
        summary = {"out": None, "kept": None, "decays": _pairs(decays), "entering": None}
        launch(kernel, work.grid, **given, **summary)
        entering = hand_on(decays, leaving, entering)
    launch(
        kernel,
        work.grid,
        **given,
        out=out,
        kept=_pairs(kept) if keep else None,
        decays=None,
        entering=None if entering is None else _dense(entering),
    )
    return out, leaving[:, -1].mT.contiguous(), kept


@tuned("selective_scan_backward", _backward_plans)
def backward(
    tile: Tiles,
    grad_out: Tensor,
    grad_last: Tensor | None,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    checkpoints: Tensor,
    delta_softplus: bool,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of ``u, delta, A, B, C, D, z, delta_bias, initial_state``, in their dtypes.

    Empty where an optional one is absent.
    """
    work = _work(tile, u, delta, A, B, C, z, delta_bias, seq_idx, delta_softplus, reverse)
    batch, n_chunks = u.shape[0], work.grid[1]
    du, ddelta = empty_like_rows(u), empty_like_rows(delta)
    dz = None if z is None else empty_like_rows(z)
    scalar = torch.complex64 if A.is_complex() else torch.float32
    outgoing = u.new_empty(batch, n_chunks, *A.T.shape, dtype=scalar)
    kernel = (triton_complex_backward if A.is_complex() else triton_backward).backward
    dA = torch.empty_like(outgoing)
    dD, dbias = (
        None if x is None else u.new_empty(batch, n_chunks, *x.shape, dtype=torch.float32)
        for x in (D, delta_bias)
    )
    dB, dC = (_room(weight, outgoing, work.n_blocks) for weight in (B, C))
    given = {
        **work.arguments,
        "grad_out": grad_out,
        "D": None if D is None else _dense(D),
        "dA": _pairs(dA),
        "dB": _pairs(dB),
        "dC": _pairs(dC),
        "dD": dD,
        "dz": dz,
        "dbias": dbias,
        "ddelta": ddelta,
        "kept": _pairs(checkpoints),
        "outgoing": _pairs(outgoing),
        **strides("grad", grad_out, "bdt"),
        **strides("du", du, "bdt"),
        **strides("ddelta", ddelta, "bdt"),
        **strides("dz", dz, "bdt"),
        **strides("dB", dB if B.dim() > 2 else None, "bgnt"),
        **strides("dC", dC if C.dim() > 2 else None, "bgnt"),
    }
    incoming = None if grad_last is None else grad_last.mT
    if n_chunks > 1:
        decays = torch.empty_like(outgoing)
        summary = {"du": None, "decays": _pairs(decays), "incoming": None}
        launch(kernel, work.grid, **given, **summary)
        incoming = hand_on(decays, outgoing, incoming, back=True)
    launch(
        kernel,
        work.grid,
        **given,
        du=du,
        decays=None,
        incoming=None if incoming is None else _dense(incoming),
    )
    return (
        du,
        ddelta,
        dA.sum((0, 1)).T.contiguous().to(A.dtype),
        _gathered(dB, B),
        _gathered(dC, C),
        u.new_empty(0) if D is None or dD is None else dD.sum((0, 1)).to(D.dtype),
        u.new_empty(0) if dz is None else dz,
        u.new_empty(0)
        if delta_bias is None or dbias is None
        else dbias.sum((0, 1)).to(delta_bias.dtype),
        u.new_empty(0)
        if initial_state is None
        else outgoing[:, 0].mT.contiguous().to(initial_state.dtype),
    )


def _room(weight: Tensor, states: Tensor, n_blocks: int) -> Tensor:
    """Room for the gradient of ``B`` or ``C``, one for each block of channels, or chunk of time.

    Its axes lie in memory as those of the weight.
    """
    if weight.dim() == 2:
        return torch.empty_like(states)
    batch, *_, n_states, length = weight.shape
    if states_innermost(weight):
        shape = batch, n_blocks, length, n_states
        return states.new_empty(shape, dtype=torch.float32).transpose(2, 3)
    return states.new_empty(batch, n_blocks, n_states, length, dtype=torch.float32)


def _gathered(parts: Tensor, weight: Tensor) -> Tensor:
    """The sum of the parts of a weight's gradient, in its shape and dtype."""
    if weight.dim() == 2:
        return parts.sum((0, 1)).T.contiguous().to(weight.dtype)
    n_groups = _groups(weight)
    if parts.shape[1] > n_groups:
        parts = parts.unflatten(1, (n_groups, -1)).sum(2)
    return (parts if weight.dim() == 4 else parts[:, 0]).to(weight.dtype)
