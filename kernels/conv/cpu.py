"""The causal convolution on a CPU: from tensors to the kernels on rows, and back."""

import torch
from torch import Tensor

from tristate.kernels.layout import empty_like_rows
from tristate.kernels.cpu.runtime import Kernel, threads

_forward = Kernel("tristate.kernels.conv.cpu_kernels", "forward")
_backward = Kernel("tristate.kernels.conv.cpu_kernels", "backward")

LANES = 16
# The kernels always have four taps; those of a shorter filter come last.
TAPS = 4
# Below this many elements a second thread costs more than it brings.
SMALL = 1 << 14


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    seq_idx: Tensor | None,
    initial_states: Tensor | None,
    silu: bool,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    """Output in the layout and dtype of ``x``, and last state in float32."""
    batch, dim, length = x.shape
    width = weight.shape[1]
    values = x.float()
    out = empty_like_rows(values)
    rows = _parameter_rows(weight, bias)
    states = _state_rows(initial_states, batch, dim, rows)
    last = torch.empty_like(states)
    seq_idx = None if seq_idx is None else seq_idx.int().contiguous()
    n_tasks = _n_tasks(batch, dim, length)
    scratch = _scratch(2 * n_tasks, length, dim, values, out)
    _forward(
        n_tasks,
        n_tasks,
        *_storage(values),
        *_storage(out),
        0 if seq_idx is None else seq_idx.data_ptr(),
        states.data_ptr(),
        last.data_ptr(),
        rows.data_ptr(),
        scratch.data_ptr(),
        batch,
        dim,
        length,
        4 * rows.shape[1],
        width,
        silu,
        reverse,
    )
    return out.to(x.dtype), last[:, TAPS - width :, :dim].transpose(1, 2).contiguous()


def backward(
    grad_out: Tensor,
    grad_state: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    seq_idx: Tensor | None,
    initial_states: Tensor | None,
    silu: bool,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of ``x`` (in its layout), ``weight``, ``bias`` and the initial state."""
    batch, dim, length = x.shape
    width = weight.shape[1]
    values, grad = x.float(), grad_out.float()
    dx = empty_like_rows(values)
    rows = _parameter_rows(weight, bias)
    states = _state_rows(initial_states, batch, dim, rows)
    dlast = _state_rows(grad_state, batch, dim, rows)
    dstates = torch.zeros_like(states)
    seq_idx = None if seq_idx is None else seq_idx.int().contiguous()
    n_tasks = _n_tasks(batch, dim, length)
    sums = torch.zeros(n_tasks, *rows.shape)
    scratch = _scratch(3 * n_tasks, length, dim, values, grad, dx)
    _backward(
        n_tasks,
        n_tasks,
        *_storage(grad),
        *_storage(values),
        *_storage(dx),
        0 if seq_idx is None else seq_idx.data_ptr(),
        states.data_ptr(),
        dlast.data_ptr(),
        dstates.data_ptr(),
        rows.data_ptr(),
        sums.data_ptr(),
        scratch.data_ptr(),
        batch,
        dim,
        length,
        4 * rows.shape[1],
        width,
        silu,
        reverse,
    )
    total = sums.sum(0)[:, :dim]
    dweight = total[TAPS - width : TAPS].t().to(weight.dtype, copy=True).contiguous()
    dbias = total[TAPS].to(weight.dtype if bias is None else bias.dtype, copy=True)
    dinitial = dstates[:, TAPS - width :, :dim].transpose(1, 2).contiguous()
    if initial_states is not None:
        dinitial = dinitial.to(initial_states.dtype)
    return dx.to(x.dtype), dweight, dbias, dinitial


def _parameter_rows(weight: Tensor, bias: Tensor | None) -> Tensor:
    """Four rows of taps, one of biases and one of zeros, each of a multiple of 16 channels."""
    dim, width = weight.shape
    rows = torch.zeros(TAPS + 2, -(-dim // LANES) * LANES)
    rows[TAPS - width : TAPS, :dim] = weight.detach().t()
    if bias is not None:
        rows[TAPS, :dim] = bias.detach()
    return rows


def _state_rows(states: Tensor | None, batch: int, dim: int, like: Tensor) -> Tensor:
    """States ``(B, D, W - 1)`` as three rows for each sequence, the newest last."""
    rows = torch.zeros(batch, TAPS - 1, like.shape[1])
    if states is not None:
        rows[:, TAPS - 1 - states.shape[2] :, :dim] = states.detach().transpose(1, 2)
    return rows


def _storage(x: Tensor) -> tuple[int, int, int, int]:
    """Address and strides, in bytes."""
    b, d, t = x.stride()
    return x.data_ptr(), 4 * b, 4 * d, 4 * t


def _n_tasks(batch: int, dim: int, length: int) -> int:
    """One for each thread: as many sequences, or blocks of channels where those are more."""
    if batch * dim * length < SMALL:
        return 1
    return threads(max(batch, -(-dim // LANES)))


def _scratch(n_lines: int, length: int, dim: int, *tensors: Tensor) -> Tensor:
    """Room into which channels are gathered as rows; none where storage is rows already."""
    whole = dim % LANES == 0 and all(x.stride(1) == 1 for x in tensors)
    return torch.empty(0 if whole else n_lines * length * LANES)
