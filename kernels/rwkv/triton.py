"""RWKV-4's attention on a GPU: from tensors to the kernels, and back."""

from typing import Any

import torch
from torch import Tensor

from tristate.kernels.rwkv import triton_backward, triton_kernels
from tristate.kernels.rwkv.ops import TILE
from tristate.kernels.triton.launch import launch, strides
from tristate.kernels.triton.plan import Tiles, halves, narrowed, share_out
from tristate.kernels.triton.segments import marks
from tristate.kernels.triton.tune import tuned

_BLOCK = 128


def _forward_plans(k: Tensor, *_: object) -> tuple[Tiles, ...]:
    return halves(narrowed(Tiles(TILE, channels=16, warps=8), k.shape[2]), "channels")


def _backward_plans(
    grad_out: Tensor, grad_last: Tensor | None, k: Tensor, *_: object
) -> tuple[Tiles, ...]:
    return _forward_plans(k)


@tuned("wkv", _forward_plans)
def forward(
    tile: Tiles,
    k: Tensor,
    v: Tensor,
    w: Tensor,
    u: Tensor,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    reverse: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Output, last state, and with ``keep`` the states before each tile."""
    batch, length, dim = k.shape
    grid, sizes = _work(tile, k)
    out = v.new_empty(v.shape)
    leaving = v.new_empty(batch, grid[1], 3, dim, dtype=torch.float32)
    kept = v.new_empty((batch, -(-length // TILE), 3, dim) if keep else (0,), dtype=torch.float32)
    given = {
        **_inputs(k, v, w, u, seq_idx, reverse),
        "leaving": leaving,
        **sizes,
        **strides("out", out, "btd"),
    }
    entering = _dense(initial_state)
    if grid[1] > 1:
        decays = v.new_empty(batch, grid[1], dim, dtype=torch.float32)
        summary = {"out": None, "kept": None, "decays": decays, "entering": None}
        launch(triton_kernels.forward, grid, **given, **summary)
        entering = _hand_on(decays, leaving, entering, back=False)
    launch(
        triton_kernels.forward,
        grid,
        **given,
        out=out,
        kept=kept if keep else None,
        decays=None,
        entering=entering,
    )
    return out, leaving[:, -1].clone(), kept


@tuned("wkv_backward", _backward_plans)
def backward(
    tile: Tiles,
    grad_out: Tensor,
    grad_last: Tensor | None,
    k: Tensor,
    v: Tensor,
    w: Tensor,
    u: Tensor,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    last: Tensor,
    states: Tensor,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of ``k, v, w, u, initial_state``, in their dtypes; the last empty if absent."""
    batch, _, dim = k.shape
    grid, sizes = _work(tile, k)
    dk, dv = k.new_empty(k.shape), v.new_empty(v.shape)
    outgoing = k.new_empty(batch, grid[1], 3, dim, dtype=torch.float32)
    dw, du = k.new_empty(2, batch, grid[1], dim, dtype=torch.float32).unbind(0)
    given = {
        "grad": grad_out,
        **_inputs(k, v, w, u, seq_idx, reverse),
        "kept": states,
        "dv": dv,
        "dw": dw,
        "du": du,
        "outgoing": outgoing,
        **sizes,
        **strides("grad", grad_out, "btd"),
        **strides("dk", dk, "btd"),
        **strides("dv", dv, "btd"),
    }
    incoming = None
    if grad_last is not None:
        # The unit of the last sums' gradients is one over theirs.
        incoming = torch.cat([grad_last[:, :2].float(), -last[:, 2:]], 1)
    if grid[1] > 1:
        decays = k.new_empty(batch, grid[1], dim, dtype=torch.float32)
        summary = {"dk": None, "decays": decays, "incoming": None}
        launch(triton_backward.backward, grid, **given, **summary)
        incoming = _hand_on(decays, outgoing, incoming, back=True)
    launch(triton_backward.backward, grid, **given, dk=dk, decays=None, incoming=incoming)
    dinitial = k.new_empty(0)
    if initial_state is not None:
        dinitial = _of_state(outgoing[:, 0], initial_state.float()).to(initial_state.dtype)
    return dk, dv, dw.sum((0, 1)).to(w.dtype), du.sum((0, 1)).to(u.dtype), dinitial


def _of_state(grads: Tensor, state: Tensor) -> Tensor:
    """The gradient of a state from the gradients of its sums and their unit."""
    scale = (grads[:, 2] + state[:, 2]).exp()
    num, den = scale * grads[:, 0], scale * grads[:, 1]
    return torch.stack([num, den, num * state[:, 0] + den * state[:, 1]], 1)


def _work(tile: Tiles, k: Tensor) -> tuple[tuple[int, int], dict[str, int]]:
    """The grid, and the sizes that both kernels take."""
    batch, length, dim = k.shape
    n_blocks = -(-dim // tile.channels)
    n_chunks, n_tiles = share_out(k, batch * n_blocks, -(-length // tile.steps))
    return (batch * n_blocks, n_chunks), {
        "length": length,
        "n_channels": dim,
        "n_blocks": n_blocks,
        "n_tiles": n_tiles,
        "BLOCK_D": tile.channels,
        "BLOCK_T": tile.steps,
        "num_warps": tile.warps,
    }


def _inputs(
    k: Tensor, v: Tensor, w: Tensor, u: Tensor, seq_idx: Tensor | None, reverse: bool
) -> dict[str, Any]:
    """The arguments that both kernels take."""
    return {
        "k": k,
        "v": v,
        "w": _dense(w),
        "u": _dense(u),
        "marks": marks(seq_idx, reverse),
        **strides("k", k, "btd"),
        **strides("v", v, "btd"),
        "REVERSE": reverse,
    }


def _hand_on(decays: Tensor, ends: Tensor, initial: Tensor | None, back: bool) -> Tensor:
    """The sums that enter each chunk, in the order of time or against it."""
    batch, n_chunks, _, dim = ends.shape
    entering = torch.empty_like(ends)
    launch(
        triton_kernels.carry,
        (-(-dim // _BLOCK), batch),
        decays=decays,
        ends=ends,
        initial=initial,
        entering=entering,
        n_chunks=n_chunks,
        n_channels=dim,
        BACK=back,
        BLOCK=_BLOCK,
    )
    return entering


def _dense(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.float().contiguous()
