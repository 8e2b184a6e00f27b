"""The selective scan on a CPU: from tensors to the compiled kernels, for real ``A``."""

from typing import NamedTuple

import torch
from torch import Tensor

from tristate.kernels.cpu.runtime import Kernel, threads
from tristate.kernels.layout import empty_like_rows
from tristate.kernels.selective.ops import (
    LANES,
    TILE,
    checkpoint_shape,
    empty_like_weight,
    states_innermost,
)

_LANES, _TILE, _ROW = LANES, TILE, 4 * LANES
_KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}

_forward = Kernel("tristate.kernels.selective.cpu_forward", "forward")
_backward = Kernel("tristate.kernels.selective.cpu_backward", "backward")


class _Sizes(NamedTuple):
    """What both kernels are told about the work."""

    n_tasks: int
    kind: int
    batch: int
    n_splits: int
    n_groups: int
    group_size: int
    length: int
    n_states: int

    @property
    def n_blocks(self) -> int:
        return self.n_groups * -(-self.group_size // _LANES)

    @property
    def n_tiles(self) -> int:
        return -(-self.length // _TILE)


def _sizes(u: Tensor, A: Tensor, B: Tensor, C: Tensor) -> _Sizes:
    batch, dim, length = u.shape
    n_states = A.shape[1]
    # A constant weight has a value for each channel: it suits any number of groups.
    n_groups = max(_groups(B), _groups(C))
    n_blocks = n_groups * -(-(dim // n_groups) // _LANES)
    # Waking a thread costs as much as some 50,000 states.
    n_tasks = threads(min(batch * n_blocks, 1 + u.numel() * n_states // 50_000))
    # Whole sequences where they share out evenly, else a part of the channels of each.
    even = batch % n_tasks == 0 or batch >= 4 * n_tasks
    n_splits = 1 if even else min(n_tasks, n_blocks)
    n_tasks = min(n_tasks, batch * n_splits)
    kind = _KINDS[u.dtype]
    return _Sizes(n_tasks, kind, batch, n_splits, n_groups, dim // n_groups, length, n_states)


def _groups(weight: Tensor) -> int:
    return weight.shape[1] if weight.dim() == 4 else 1


def _span(x: Tensor | None, reverse: bool) -> tuple[int, int, int, int]:
    """Address of the first position that is read, and the strides of ``(B, D, L)``, in bytes."""
    if x is None:
        return 0, 0, 0, 0
    size = x.element_size()
    step_b, step_d, step_t = x.stride()
    address = x.data_ptr()
    if reverse:
        address += (x.shape[2] - 1) * step_t * size
        step_t = -step_t
    return address, step_b * size, step_d * size, step_t * size


def _weight_span(weight: Tensor, reverse: bool) -> tuple[int, int, int, int, int]:
    """The same for float32 ``(B, N, L)`` or ``(B, G, N, L)``; zeros for a constant weight."""
    if weight.dim() == 2:
        return 0, 0, 0, 0, 0
    *outer, step_n, step_t = weight.stride()
    step_b, step_g = outer if len(outer) == 2 else (outer[0], 0)
    address = weight.data_ptr()
    if reverse:
        address += (weight.shape[-1] - 1) * step_t * 4
        step_t = -step_t
    return address, 4 * step_b, 4 * step_g, 4 * step_n, 4 * step_t


def _constant(weight: Tensor) -> int:
    return weight.data_ptr() if weight.dim() == 2 else 0


def _address(x: Tensor | None) -> int:
    return 0 if x is None else x.data_ptr()


def _segments(seq_idx: Tensor | None, reverse: bool) -> tuple[int, int, int]:
    if seq_idx is None:
        return 0, 0, 0
    length = seq_idx.shape[1]
    address = seq_idx.data_ptr()
    return (address + 4 * (length - 1), 4 * length, -4) if reverse else (address, 4 * length, 4)


class _Inputs(NamedTuple):
    """The inputs as the kernels read them: parameters plain float32, sequences of one dtype."""

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    delta_bias: Tensor | None
    initial_state: Tensor | None
    seq_idx: Tensor | None


def _readable(
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
) -> _Inputs:
    if delta.dtype != u.dtype or (z is not None and z.dtype != u.dtype):
        u, delta, z = u.float(), delta.float(), None if z is None else z.float()
    B, C = B.float(), C.float()
    return _Inputs(
        u,
        delta,
        _plain(A),
        _plain(B) if B.dim() == 2 else B,
        _plain(C) if C.dim() == 2 else C,
        None if D is None else _plain(D),
        z,
        None if delta_bias is None else _plain(delta_bias),
        None if initial_state is None else _plain(initial_state),
        None if seq_idx is None else seq_idx.to(torch.int32).contiguous(),
    )


def _plain(x: Tensor) -> Tensor:
    return x.float().contiguous()


def _scratch(sizes: _Sizes, n_bytes: int) -> tuple[Tensor, int, int]:
    """Working memory: the tensor that owns it, the address of the first task's, and bytes each."""
    n_bytes = -(-n_bytes // 4096) * 4096
    memory = torch.empty(sizes.n_tasks * n_bytes + _ROW, dtype=torch.uint8)
    return memory, -(-memory.data_ptr() // _ROW) * _ROW, n_bytes


def forward(
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
    x = _readable(u, delta, A, B, C, D, z, delta_bias, initial_state, seq_idx)
    sizes = _sizes(x.u, x.A, x.B, x.C)
    batch, dim, _ = u.shape
    n_states, n_blocks = sizes.n_states, sizes.n_blocks
    # Padding is passed over.
    out = empty_like_rows(x.u, torch.empty if seq_idx is None else torch.zeros)
    last = u.new_empty(batch, dim, n_states, dtype=torch.float32)
    shape = checkpoint_shape(u, A, B, C) if keep else (0,)
    checkpoints = u.new_empty(shape, dtype=torch.float32)
    rows = 5 * (_TILE + 3) + 4 * _TILE * n_states // _LANES + (4 * n_states + 2) * n_blocks + 8
    memory, scratch, scratch_bytes = _scratch(sizes, _ROW * rows)
    _forward(
        sizes.n_tasks,
        *sizes,
        *_span(x.u, reverse),
        *_span(x.delta, reverse),
        *_span(x.z, reverse),
        *_span(out, reverse),
        x.A.data_ptr(),
        *_weight_span(x.B, reverse),
        *_weight_span(x.C, reverse),
        _constant(x.B),
        _constant(x.C),
        _address(x.D),
        _address(x.delta_bias),
        int(delta_softplus),
        _address(x.initial_state),
        last.data_ptr(),
        *_segments(x.seq_idx, reverse),
        checkpoints.data_ptr() if keep else 0,
        scratch,
        scratch_bytes,
    )
    del memory
    return out.to(u.dtype), last, checkpoints


def _weight_grads(weight: Tensor, sizes: _Sizes, padded: bool) -> Tensor:
    """Room for the gradients of B or C by each split, ``(splits, B, G, N, L)``."""
    if weight.dim() == 2:
        return weight.new_empty(1, 0, 0)
    # Each split writes its channels' groups only, and nothing is written at padding.
    new = torch.zeros if padded or sizes.n_splits > 1 else torch.empty
    outer = (sizes.n_splits, sizes.batch, sizes.n_groups)
    if states_innermost(weight):
        return new(*outer, sizes.length, sizes.n_states).transpose(3, 4)
    return new(*outer, sizes.n_states, sizes.length)


def _like_weight(parts: Tensor, weight: Tensor) -> Tensor:
    """The sum over splits, in the shape and layout of B or C."""
    if parts.shape[0] == 1 and parts.shape[2] == _groups(weight):
        return parts[0] if weight.dim() == 4 else parts[0, :, 0]
    grad = parts.sum(0)  # (B, G, N, L)
    if _groups(weight) != grad.shape[1]:
        grad = grad.sum(1, keepdim=True)
    return empty_like_weight(weight.float()).copy_(grad if weight.dim() == 4 else grad[:, 0])


def backward(
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
    x = _readable(u, delta, A, B, C, D, z, delta_bias, initial_state, seq_idx)
    sizes = _sizes(x.u, x.A, x.B, x.C)
    n_tasks, n_states, n_blocks = sizes.n_tasks, sizes.n_states, sizes.n_blocks
    new = torch.empty if seq_idx is None else torch.zeros  # padding is passed over
    batch, dim, _ = u.shape
    du, ddelta = (empty_like_rows(t, new) for t in (x.u, x.delta))
    dz = u.new_empty(0) if x.z is None else empty_like_rows(x.z, new)
    dB_parts, dC_parts = (_weight_grads(w, sizes, seq_idx is not None) for w in (B, C))
    # A gradient of each parameter by each task; the kernel for constant weights writes both.
    fixed = (n_tasks, dim, n_states if B.dim() == 2 or C.dim() == 2 else 0)
    dA = torch.empty(n_tasks, dim, n_states, dtype=torch.float32)
    dB_fixed, dC_fixed = (torch.empty(fixed, dtype=torch.float32) for _ in range(2))
    dD, dbias = (torch.empty(n_tasks, dim, dtype=torch.float32) for _ in range(2))
    dinitial = torch.empty(batch, dim, n_states, dtype=torch.float32)
    grad_out = grad_out.to(x.u.dtype)
    grad_last = None if grad_last is None else _plain(grad_last)
    n_rows = 12 * (_TILE + 3) + 2 * n_states * (_TILE + 3) + 4 * _TILE * n_states // _LANES
    n_rows += (7 * n_states + 4) * n_blocks + sizes.n_tiles // _LANES + 16
    memory, scratch, scratch_bytes = _scratch(sizes, _ROW * n_rows)
    _backward(
        n_tasks,
        *sizes,
        *_span(x.u, reverse),
        *_span(x.delta, reverse),
        *_span(x.z, reverse),
        *_span(grad_out, reverse),
        *_span(du, reverse),
        *_span(ddelta, reverse),
        *_span(dz if z is not None else None, reverse),
        x.A.data_ptr(),
        *_weight_span(x.B, reverse),
        *_weight_span(x.C, reverse),
        *_weight_span(dB_parts[0], reverse),
        *_weight_span(dC_parts[0], reverse),
        _constant(x.B),
        _constant(x.C),
        4 * batch * sizes.n_groups * n_states * sizes.length,
        _address(x.D),
        _address(x.delta_bias),
        int(delta_softplus),
        dinitial.data_ptr(),
        _address(grad_last),
        *_segments(x.seq_idx, reverse),
        checkpoints.data_ptr(),
        dA.data_ptr(),
        dB_fixed.data_ptr(),
        dC_fixed.data_ptr(),
        dD.data_ptr(),
        dbias.data_ptr(),
        scratch,
        scratch_bytes,
    )
    del memory
    dA, dB_fixed, dC_fixed, dD, dbias = (
        g.sum(0) if n_tasks > 1 else g[0] for g in (dA, dB_fixed, dC_fixed, dD, dbias)
    )
    dB = dB_fixed if B.dim() == 2 else _like_weight(dB_parts, B)
    dC = dC_fixed if C.dim() == 2 else _like_weight(dC_parts, C)
    return (
        du.to(u.dtype),
        ddelta.to(delta.dtype),
        dA.to(A.dtype),
        dB.to(B.dtype),
        dC.to(C.dtype),
        u.new_empty(0) if D is None else dD.to(D.dtype),
        dz if z is None else dz.to(z.dtype),
        u.new_empty(0) if delta_bias is None else dbias.to(delta_bias.dtype),
        u.new_empty(0) if initial_state is None else dinitial.to(initial_state.dtype),
    )
