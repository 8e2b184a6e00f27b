"""RWKV-4's attention on a CPU: from tensors to the compiled kernels."""

import torch
from torch import Tensor

from tristate.kernels.cpu.memory import LINE, address, empty, scratch, segments, span, zeros
from tristate.kernels.cpu.runtime import Kernel, threads
from tristate.kernels.rwkv.ops import TILE

_LANES = 16
# Below this many numbers a second thread costs more than it brings.
_SMALL = 1 << 13
_KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}

_forward = Kernel("tristate.kernels.rwkv.cpu_forward", "forward")
_backward = Kernel("tristate.kernels.rwkv.cpu_backward", "backward")


def forward(
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
    dtype = v.dtype
    k, v, w, u, initial_state, seq_idx = _readable(k, v, w, u, initial_state, seq_idx)
    batch, length, dim = k.shape
    n_tasks, sizes = _sizes(k)
    # Padding is passed over.
    out = (empty if seq_idx is None else zeros)(v.shape, dtype=v.dtype)
    last = empty(batch, 3, dim)
    kept = empty((batch, -(-length // TILE), 3, dim) if keep else 0)
    memory, *where = scratch(n_tasks, LINE * (12 + 3 * TILE + 5 * -(-dim // _LANES)))
    _forward(
        n_tasks,
        n_tasks,
        *sizes,
        *span(k, 1, reverse),
        *span(v, 1, reverse),
        w.data_ptr(),
        u.data_ptr(),
        *span(out, 1, reverse),
        address(initial_state),
        last.data_ptr(),
        address(kept) if keep else 0,
        *segments(seq_idx, reverse),
        *where,
    )
    del memory
    return out.to(dtype), last, kept


def backward(
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
    given = k, v, w, u, initial_state
    k, v, w, u, initial_state, seq_idx = _readable(k, v, w, u, initial_state, seq_idx)
    batch, length, dim = k.shape
    n_tasks, sizes = _sizes(k)
    new = empty if seq_idx is None else zeros  # padding is passed over
    dk, dv = new(k.shape), new(k.shape)
    dw, du, dinitial = empty(batch, dim), empty(batch, dim), empty(batch, 3, dim)
    grad_out = grad_out.to(k.dtype)
    grad_last = None if grad_last is None else grad_last.float().contiguous()
    n_rows = 16 + 7 * TILE + 8 * -(-dim // _LANES)
    memory, *where = scratch(n_tasks, LINE * n_rows + 4 * -(-length // TILE))
    _backward(
        n_tasks,
        n_tasks,
        *sizes,
        *span(k, 1, reverse),
        *span(v, 1, reverse),
        w.data_ptr(),
        u.data_ptr(),
        *span(grad_out, 1, reverse),
        *span(dk, 1, reverse),
        *span(dv, 1, reverse),
        dw.data_ptr(),
        du.data_ptr(),
        last.data_ptr(),
        address(grad_last),
        dinitial.data_ptr(),
        states.data_ptr(),
        *segments(seq_idx, reverse),
        *where,
    )
    del memory

    def like(grad: Tensor, given: Tensor | None) -> Tensor:
        return k.new_empty(0) if given is None else grad.to(given.dtype)

    dk, dv, dw, du = like(dk, given[0]), like(dv, given[1]), dw.sum(0), du.sum(0)
    return dk, dv, like(dw, given[2]), like(du, given[3]), like(dinitial, given[4])


def _readable(
    k: Tensor,
    v: Tensor,
    w: Tensor,
    u: Tensor,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """The inputs as the kernels read them: sequences of one dtype, the others dense float32."""
    if k.dtype != v.dtype:
        k, v = k.float(), v.float()
    return (
        k,
        v,
        w.float().contiguous(),
        u.float().contiguous(),
        None if initial_state is None else initial_state.float().contiguous(),
        None if seq_idx is None else seq_idx.to(torch.int32).contiguous(),
    )


def _sizes(k: Tensor) -> tuple[int, tuple[int, ...]]:
    """How many tasks, and what both kernels are told about the work."""
    batch, length, dim = k.shape
    n_blocks = -(-dim // _LANES)
    n_tasks = threads(max(1, min(batch * n_blocks, k.numel() // _SMALL)))
    # Whole sequences where they share out evenly, else a part of the channels of each.
    n_splits = 1 if batch % n_tasks == 0 else min(n_tasks, n_blocks)
    return n_tasks, (_KINDS[k.dtype], batch, n_splits, length, dim)
