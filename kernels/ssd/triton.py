"""The scan of Mamba-2 on a GPU: from tensors to the kernels, and back."""

import math
from typing import Any

import torch
from torch import Tensor

from tristate.kernels.ssd import triton_backward, triton_forward, triton_weights
from tristate.kernels.ssd.ops import triton_kept_shape
from tristate.kernels.ssd.triton_work import (
    SAVED,
    Work,
    backward_tile,
    between_chunks,
    forward_tile,
    shared_work,
    step_sizes,
    weights_tile,
)
from tristate.kernels.triton.launch import launch, strides
from tristate.kernels.triton.plan import Tiles, halves, narrower, programs_to_fill
from tristate.kernels.triton.tune import tuned


def _forward_plans(x: Tensor, *_: object) -> tuple[Tiles, ...]:
    return narrower(forward_tile(x))


def _backward_plans(
    grad_out: Tensor, grad_last: Tensor | None, x: Tensor, *_: object
) -> tuple[Tiles, ...]:
    # The parts that float16 is multiplied in leave registers for half as many.
    return halves(backward_tile(x, 16 if x.dtype == torch.float16 else 32), "channels", least=16)


@tuned("ssd_scan", _forward_plans)
def forward(
    tile: Tiles,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    initial_states: Tensor | None,
    seq_idx: Tensor | None,
    dt_softplus: bool,
    dt_min: float,
    dt_max: float,
    reverse: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Output, last states, nothing, and with ``keep`` the states before each part."""
    flags = dt_softplus, dt_min, dt_max, reverse
    work = shared_work(tile, x, dt, A, B, C, D, z, dt_bias, seq_idx, *flags)
    out = x.new_empty(x.shape)
    kept = x.new_empty(triton_kept_shape(x, B) if keep else (0,), dtype=torch.float32)
    state = between_chunks(work, x, work.B, initial_states)
    launch(
        triton_forward.forward,
        work.grid,
        **work.inputs,
        **_of_heads(work, x),
        state=state,
        out=out,
        kept=kept if keep else None,
        n_tiles=work.parts * work.kept,
        **strides("out", out, "bthp"),
    )
    return out, state[:, -1].contiguous(), x.new_empty(0, dtype=torch.float32), kept


@tuned("ssd_scan_backward", _backward_plans)
def backward(
    tile: Tiles,
    grad_out: Tensor,
    grad_last: Tensor | None,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    initial_states: Tensor | None,
    seq_idx: Tensor | None,
    y: Tensor,
    kept: Tensor,
    dt_softplus: bool,
    dt_min: float,
    dt_max: float,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the first nine inputs, in their dtypes; empty where one is absent."""
    flags = dt_softplus, dt_min, dt_max, reverse
    work = shared_work(tile, x, dt, A, B, C, D, z, dt_bias, seq_idx, *flags)
    batch, length, n_heads, width = x.shape
    n_chunks = work.grid[1]

    def exact(*shape: int) -> Tensor:
        return x.new_empty(shape, dtype=torch.float32)

    dx = x.new_empty(x.shape)
    dz = None if z is None else z.new_empty(z.shape)
    d_sizes = exact(work.n_blocks, batch, n_heads, length)
    dA = exact(batch, n_chunks, n_heads, work.n_blocks)
    dD = None if D is None else exact(batch, n_chunks, n_heads, width)
    slope = between_chunks(work, grad_out, work.C, grad_last, back=True)
    slopes = torch.empty_like(kept)
    saved = min(SAVED, work.kept)
    own = exact(math.prod(work.grid), work.kept // saved, tile.channels, B.shape[3])
    launch(
        triton_backward.backward,
        work.grid,
        **work.inputs,
        **_of_heads(work, x),
        grad_out=grad_out,
        kept=kept,
        slope=slope,
        own=own,
        dx=dx,
        d_sizes=d_sizes,
        dz=dz,
        dA=dA,
        dD=dD,
        slopes=slopes,
        n_parts=work.parts,
        SAVED=saved,
        **strides("grad", grad_out, "bthp"),
    )
    dB, dC = _of_weights(work, grad_out, x, kept, slopes)
    ddt = d_sizes.sum(0)
    ddt = (ddt.flip(2) if reverse else ddt).transpose(1, 2)
    raw, size = step_sizes(dt, dt_bias, dt_softplus)
    inside = (size >= dt_min) & (size <= dt_max)
    if seq_idx is not None:
        inside &= (seq_idx >= 0)[..., None]
    ddt = torch.where(inside, ddt * torch.sigmoid(raw) if dt_softplus else ddt, 0)
    none = x.new_empty(0)
    if dD is not None:
        dD = dD.sum((0, 1))
    return (
        dx,
        ddt.to(dt.dtype),
        dA.sum((0, 1, 3)).to(A.dtype),
        dB.to(B.dtype),
        dC.to(C.dtype),
        none if D is None or dD is None else (dD if D.dim() == 2 else dD.sum(1)).to(D.dtype),
        none.clone() if dz is None else dz,
        none.clone() if dt_bias is None else ddt.sum((0, 1)).to(dt_bias.dtype),
        none.clone()
        if initial_states is None
        else slope[:, 0].contiguous().to(initial_states.dtype),
    )


def _of_heads(work: Work, x: Tensor) -> dict[str, Any]:
    """Arguments of the kernels that take a head each, and all of it."""
    return _of_all(work, x) | {
        "D": work.D,
        **strides("D", work.D, "hp"),
        "n_blocks": work.n_blocks,
    }


def _of_all(work: Work, x: Tensor) -> dict[str, Any]:
    """Arguments of the kernels that need ``x``, ``B`` and ``C``."""
    return {
        "x": x,
        "B": work.B,
        "C": work.C,
        **strides("x", x, "bthp"),
        **strides("B", work.B, "btgn"),
        **strides("C", work.C, "btgn"),
        "KEPT": work.kept,
    }


def _of_weights(
    work: Work, grad_out: Tensor, x: Tensor, kept: Tensor, slopes: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradients of ``B`` and ``C``, in float32."""
    batch, length, n_groups, n_states = work.B.shape
    group_heads = work.inputs["group_heads"]
    tile, block = weights_tile(n_states)
    n_tiles = -(-length // tile.steps)
    # Heads of a group are shared out where their sums leave programs idle.
    wanted = programs_to_fill(kept) // max(1, batch * n_groups * n_tiles)
    split_heads = -(-group_heads // max(1, min(group_heads, wanted)))
    n_splits = -(-group_heads // split_heads)
    shape = batch, n_groups, n_splits, length, n_states
    dB, dC = kept.new_empty(shape), kept.new_empty(shape)
    launch(
        triton_weights.weights,
        (batch * n_groups * n_splits, n_tiles, -(-n_states // block)),
        **{
            **work.inputs,
            **_of_all(work, x),
            "KEPT": work.kept * work.inputs["BLOCK_T"] // tile.steps,
            "BLOCK_N": block,
            "BLOCK_P": tile.channels,
            "BLOCK_T": tile.steps,
            "num_warps": tile.warps,
        },
        grad_out=grad_out,
        kept=kept,
        slopes=slopes,
        dB=dB,
        dC=dC,
        n_groups=n_groups,
        split_heads=split_heads,
        **strides("grad", grad_out, "bthp"),
    )
    dB, dC = (x.sum(2).transpose(1, 2).contiguous() for x in (dB, dC))
    return dB, dC
