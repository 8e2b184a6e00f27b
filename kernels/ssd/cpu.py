"""The scan of Mamba-2 on a CPU: from tensors to the compiled kernels."""

from typing import NamedTuple

import torch
from torch import Tensor

from tristate.kernels.cpu.memory import LINE, address, empty, scratch, segments, span, zeros
from tristate.kernels.cpu.runtime import Kernel, threads
from tristate.kernels.ssd.ops import CHUNK, TILE, kept_shape

_forward = Kernel("tristate.kernels.ssd.cpu_forward", "forward")
_backward = Kernel("tristate.kernels.ssd.cpu_backward", "backward")

_LANES = 16
_ROWS, _QUADS, _NUMBERS = LINE * (TILE + TILE // 2), 16 * TILE, 4 * TILE
_KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
# Below this many elements of states a second thread costs more than it brings.
_SMALL = 1 << 18
# What the states of a block of heads may take of a core's second cache, in bytes.
_CACHE = 1 << 18


class _Inputs(NamedTuple):
    """The inputs as the kernels read them: ``x`` and ``z`` of one dtype, the rest float32."""

    x: Tensor
    dt: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    dt_bias: Tensor | None
    initial_states: Tensor | None
    seq_idx: Tensor | None


def _readable(
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
) -> _Inputs:
    if z is not None and z.dtype != x.dtype:
        x, z = x.float(), z.float()
    D, dt_bias, initial_states = (
        None if t is None else t.float().contiguous() for t in (D, dt_bias, initial_states)
    )
    seq_idx = None if seq_idx is None else seq_idx.int()
    A = A.float().contiguous()
    return _Inputs(x, dt.float(), A, B.float(), C.float(), D, z, dt_bias, initial_states, seq_idx)


class _Sizes(NamedTuple):
    """What both kernels are told about the work."""

    n_tasks: int
    kind: int
    batch: int
    length: int
    n_heads: int
    per_block: int
    per_group: int
    width: int
    n_states: int


def _sizes(x: _Inputs) -> _Sizes:
    batch, length, n_heads, width = x.x.shape
    n_groups, n_states = x.B.shape[2:]
    n_tasks = threads(max(1, min(batch * n_heads, x.x.numel() * n_states // _SMALL)))
    # Of heads that are run side by side the cache must hold the states; threads share the heads out
    # where they don't share the sequences.
    per_block = max(1, _CACHE // _state_bytes(width, n_states))
    if batch % n_tasks != 0:
        per_block = min(per_block, -(-n_heads // n_tasks))
    per_block = min(per_block, n_heads)
    kind = _KINDS[x.x.dtype]
    per_group = n_heads // n_groups
    return _Sizes(n_tasks, kind, batch, length, n_heads, per_block, per_group, width, n_states)


def _span(x: Tensor | None, reverse: bool) -> tuple[int, ...]:
    return (0, 0, 0, 0, 0) if x is None else span(x, 1, reverse)


def _parts_span(parts: Tensor, reverse: bool) -> tuple[int, ...]:
    """Of the tasks' gradients of B or C, which may be one for all."""
    start, step, *steps = span(parts, 2, reverse)
    return start, step if parts.shape[0] > 1 else 0, *steps


def _skip_span(D: Tensor | None) -> tuple[int, int, int]:
    if D is None:
        return 0, 0, 0
    return D.data_ptr(), 4 * D.stride(0), 4 * D.stride(1) if D.dim() == 2 else 0


def _blocks(n: int) -> int:
    return -(-n // _LANES)


def _state_bytes(n_lanes: int, n_rows: int) -> int:
    return _blocks(n_lanes) * 4 * LINE * -(-n_rows // 4)


_PREPARED = 11 * _NUMBERS + 2 * LINE


def forward(
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
    """Output, last states, and with ``keep`` what the backward needs: see the op."""
    given = _readable(x, dt, A, B, C, D, z, dt_bias, initial_states, seq_idx)
    batch, _, n_heads, width = x.shape
    n_states = B.shape[3]
    out = empty(x.shape, dtype=given.x.dtype)
    last = empty(batch, n_heads, width, n_states)
    y = empty(x.shape if keep and z is not None else 0)
    kept = empty(kept_shape(x, B) if keep else 0)
    limits = torch.tensor([dt_min, dt_max], dtype=torch.float32, device="cpu")
    sizes = _sizes(given)
    n_bytes = _PREPARED + _NUMBERS + LINE + 5 * _ROWS + 8 * _QUADS * _blocks(n_states)
    n_bytes += sizes.per_block * _state_bytes(width, n_states)
    memory, start, n_bytes = scratch(sizes.n_tasks, n_bytes)
    _forward(
        sizes.n_tasks,
        *sizes,
        *_span(given.x, reverse),
        *_span(given.z, reverse),
        *_span(out, reverse),
        *_span(y if y.numel() else None, reverse),
        *span(given.dt, 1, reverse),
        *span(given.B, 1, reverse),
        *span(given.C, 1, reverse),
        given.A.data_ptr(),
        *_skip_span(given.D),
        address(given.dt_bias),
        address(given.initial_states),
        last.data_ptr(),
        kept.data_ptr() if keep else 0,
        *segments(given.seq_idx, reverse),
        int(dt_softplus),
        limits.data_ptr(),
        start,
        n_bytes,
    )
    del memory
    return out.to(x.dtype), last, y, kept


def backward(
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
    given = _readable(x, dt, A, B, C, D, z, dt_bias, initial_states, seq_idx)
    sizes = _sizes(given)
    batch, length, n_heads, width = x.shape
    n_states, per_block = sizes.n_states, sizes.per_block
    dx = empty(x.shape, dtype=given.x.dtype)
    dz = empty(x.shape if z is not None else 0, dtype=given.x.dtype)
    ddt = empty(batch, length, n_heads)
    # A sum for each task, unless every sequence is one task's alone.
    n_parts = 1 if batch % sizes.n_tasks == 0 else sizes.n_tasks
    dB, dC = (zeros(n_parts, *B.shape) for _ in range(2))
    dA, dbias = empty(2, batch, n_heads)
    dD, dinitial = empty(batch, n_heads, width), empty(batch, n_heads, width, n_states)
    grad_out = grad_out.to(given.x.dtype)
    grad_last = None if grad_last is None else grad_last.float().contiguous()
    limits = torch.tensor([dt_min, dt_max], dtype=torch.float32, device="cpu")

    n_tiles = -(-length // TILE)
    by_state = _state_bytes(n_states, width)
    n_bytes = _PREPARED + 4 * _NUMBERS + LINE + 11 * _ROWS
    n_bytes += 8 * _QUADS * (_blocks(n_states) + _blocks(width))
    n_bytes += per_block * (_state_bytes(width, n_states) + by_state)
    n_bytes += LINE * (per_block * (_blocks(width) + 1) + _blocks(n_tiles))
    n_bytes += CHUNK * per_block * (_NUMBERS + by_state)
    memory, start, n_bytes = scratch(sizes.n_tasks, n_bytes)
    _backward(
        sizes.n_tasks,
        *sizes,
        *_span(given.x, reverse),
        *_span(given.z, reverse),
        *_span(grad_out, reverse),
        *_span(y if z is not None else None, reverse),
        *span(given.dt, 1, reverse),
        *span(given.B, 1, reverse),
        *span(given.C, 1, reverse),
        *_span(dx, reverse),
        *_span(dz if z is not None else None, reverse),
        *span(ddt, 1, reverse),
        *_parts_span(dB, reverse),
        *_parts_span(dC, reverse),
        given.A.data_ptr(),
        *_skip_span(given.D),
        address(given.dt_bias),
        kept.data_ptr(),
        address(grad_last),
        dinitial.data_ptr(),
        dA.data_ptr(),
        dD.data_ptr(),
        dbias.data_ptr(),
        *segments(given.seq_idx, reverse),
        int(dt_softplus),
        limits.data_ptr(),
        start,
        n_bytes,
    )
    del memory
    dD = dD.sum(0)
    if D is not None and D.dim() == 1:
        dD = dD.sum(1)
    none = x.new_empty(0)
    return (
        dx.to(x.dtype),
        ddt.to(dt.dtype),
        dA.sum(0).to(A.dtype),
        (dB.sum(0) if n_parts > 1 else dB[0]).to(B.dtype),
        (dC.sum(0) if n_parts > 1 else dC[0]).to(C.dtype),
        none if D is None else dD.to(D.dtype),
        none.clone() if z is None else dz.to(z.dtype),
        none.clone() if dt_bias is None else dbias.sum(0).to(dt_bias.dtype),
        none.clone() if initial_states is None else dinitial.to(initial_states.dtype),
    )
