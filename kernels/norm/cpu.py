"""The fused norms on a CPU: from tensors to the kernels on rows, and back."""

import struct

import torch
from torch import Tensor

from tristate.kernels.cpu.memory import address, empty, zeros
from tristate.kernels.cpu.runtime import Kernel, threads

_KERNELS = "tristate.kernels.norm.cpu_kernels"
_add_norm = Kernel(_KERNELS, "add_norm")
_add_norm_backward = Kernel(_KERNELS, "add_norm_backward")
_gated_rms_norm = Kernel(_KERNELS, "gated_rms_norm")
_gated_rms_norm_backward = Kernel(_KERNELS, "gated_rms_norm_backward")

# Below this many elements a second thread costs more than it brings.
SMALL = 1 << 14


def add_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    rms: bool,
    eps: float,
    residual_dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """``(out, total)``; ``total`` is empty where it would be ``x`` itself."""
    dim = x.shape[-1]
    values, weight, bias = _plain(x), _plain(weight), None if bias is None else _plain(bias)
    added = None if residual is None else _plain(residual)
    total = None if residual is None else torch.empty_like(values)
    out = torch.empty_like(values)
    n_rows, n_tasks, spares = _tasks(x, dim)
    _add_norm(
        n_tasks,
        n_tasks,
        values.data_ptr(),
        address(added),
        address(total),
        weight.data_ptr(),
        address(bias),
        out.data_ptr(),
        spares.data_ptr(),
        n_rows,
        dim,
        rms,
        _bits(eps),
    )
    if total is None:
        # Where the dtypes differ, `values` is a copy already.
        total = x.new_empty(0) if x.dtype == residual_dtype else values
    return out.to(x.dtype), total.to(residual_dtype)


def add_norm_backward(
    grad_out: Tensor,
    grad_total: Tensor,
    total: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    rms: bool,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the sum (in its dtype), of ``weight`` and of what is or could be the bias."""
    dim = total.shape[-1]
    grad, values, scale = _plain(grad_out), _plain(total), _plain(weight)
    grad_sum = _plain(grad_total) if grad_total.numel() else None
    dtotal = torch.empty_like(values)
    n_rows, n_tasks, spares = _tasks(total, dim)
    # Each task sums the parameters' gradients for itself.
    dweight, dbias = zeros(n_tasks, dim), zeros(n_tasks, dim)
    _add_norm_backward(
        n_tasks,
        n_tasks,
        grad.data_ptr(),
        address(grad_sum),
        values.data_ptr(),
        scale.data_ptr(),
        dtotal.data_ptr(),
        dweight.data_ptr(),
        dbias.data_ptr(),
        spares.data_ptr(),
        n_rows,
        dim,
        rms,
        _bits(eps),
    )
    return (
        dtotal.to(total.dtype),
        _total(dweight).to(weight.dtype),
        _total(dbias).to(weight.dtype if bias is None else bias.dtype),
    )


def gated_rms_norm(
    x: Tensor,
    weight: Tensor,
    z: Tensor | None,
    eps: float,
    group_size: int,
    norm_before_gate: bool,
) -> Tensor:
    """The normalised and gated rows, in the dtype of ``x``."""
    values, scale, gate = _plain(x), _plain(weight), None if z is None else _plain(z)
    out = torch.empty_like(values)
    n_rows, n_tasks, spares = _tasks(x, group_size)
    _gated_rms_norm(
        n_tasks,
        n_tasks,
        values.data_ptr(),
        address(gate),
        scale.data_ptr(),
        out.data_ptr(),
        spares.data_ptr(),
        n_rows,
        group_size,
        x.shape[-1] // group_size,
        not norm_before_gate,
        _bits(eps),
    )
    return out.to(x.dtype)


def gated_rms_norm_backward(
    grad_out: Tensor,
    x: Tensor,
    weight: Tensor,
    z: Tensor | None,
    eps: float,
    group_size: int,
    norm_before_gate: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of ``x``, ``weight`` and ``z`` (empty without one)."""
    grad, values, scale = _plain(grad_out), _plain(x), _plain(weight)
    gate = None if z is None else _plain(z)
    dx = torch.empty_like(values)
    dz = None if gate is None else torch.empty_like(gate)
    n_rows, n_tasks, spares = _tasks(x, group_size)
    dweight = zeros(n_tasks, x.shape[-1])
    _gated_rms_norm_backward(
        n_tasks,
        n_tasks,
        grad.data_ptr(),
        values.data_ptr(),
        address(gate),
        scale.data_ptr(),
        dx.data_ptr(),
        address(dz),
        dweight.data_ptr(),
        spares.data_ptr(),
        n_rows,
        group_size,
        x.shape[-1] // group_size,
        not norm_before_gate,
        _bits(eps),
    )
    dz = x.new_empty(0) if z is None or dz is None else dz.to(z.dtype)
    return dx.to(x.dtype), _total(dweight).to(weight.dtype), dz


def _plain(x: Tensor) -> Tensor:
    """The values in float32, rows one after another."""
    return x.float().contiguous()


def _total(parts: Tensor) -> Tensor:
    """The sum over the tasks."""
    return parts[0] if parts.shape[0] == 1 else parts.sum(0)


def _bits(value: float) -> int:
    """A float32 as the integer that a kernel is given."""
    return struct.unpack("i", struct.pack("f", value))[0]


def _tasks(x: Tensor, n: int) -> tuple[int, int, Tensor]:
    """Rows of ``n`` elements, tasks that share them, and room for 16 numbers for each task."""
    n_rows = x.numel() // n if n else 0
    n_tasks = 1 if x.numel() < SMALL else threads(n_rows)
    return n_rows, n_tasks, empty(n_tasks, 16)
