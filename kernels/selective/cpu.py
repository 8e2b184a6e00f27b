"""The selective scan on a CPU, for real ``A``."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tristate.kernels.cpu.memory import empty
from tristate.kernels.cpu.runtime import Kernel
from tristate.kernels.layout import empty_like_rows, side_by_side
from tristate.kernels.selective import cpu_rows
from tristate.kernels.selective.cpu_rows import Inputs, Route, plain
from tristate.kernels.selective.ops import checkpoint_shape


class Kernels(NamedTuple):
    """Kernels that take the same arguments, made by :mod:`tristate.kernels.selective.cpu_rows`."""

    forward: Kernel
    backward: Kernel


_GENERAL = Kernels(
    Kernel("tristate.kernels.selective.cpu_forward", "forward"),
    Kernel("tristate.kernels.selective.cpu_backward", "backward"),
)
_ONE_STATE = Kernels(
    Kernel("tristate.kernels.selective.cpu_one_state", "forward"),
    Kernel("tristate.kernels.selective.cpu_one_state", "backward"),
)


def kernels(scans: Sequence[Inputs], *sequences: Tensor | None) -> Kernels:
    """The fastest kernels for scans whose outputs and gradients lie as in ``sequences``."""
    suits = all(cpu_rows.has_one_state(x, *sequences) for x in scans)
    return _ONE_STATE if suits else _GENERAL


def backward_kernels(
    scans: Sequence[Inputs], grad_out: Tensor, *sequences: Tensor | None
) -> tuple[Kernels, Tensor]:
    """Those that ran forwards, whose checkpoints these are; the gradient so that they can read it.

    Args:
        scans: their inputs.
        grad_out: of their output, in any layout.
        sequences: where gradients go.
    """
    found = kernels(scans, *sequences)
    return found, side_by_side(grad_out) if found is _ONE_STATE else grad_out


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
) -> Inputs:
    if delta.dtype != u.dtype or (z is not None and z.dtype != u.dtype):
        u, delta, z = u.float(), delta.float(), None if z is None else z.float()
    B, C = B.float(), C.float()
    return Inputs(
        u,
        delta,
        plain(A),
        plain(B) if B.dim() == 2 else B,
        plain(C) if C.dim() == 2 else C,
        None if D is None else plain(D),
        z,
        None if delta_bias is None else plain(delta_bias),
        None if initial_state is None else plain(initial_state),
        None if seq_idx is None else seq_idx.to(torch.int32).contiguous(),
    )


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
    work = cpu_rows.sizes(x.u, x.A, x.B, x.C)
    # Padding is passed over.
    out = empty_like_rows(x.u, torch.empty if seq_idx is None else torch.zeros)
    last = u.new_empty(*u.shape[:2], A.shape[1], dtype=torch.float32)
    shape = checkpoint_shape(u, A, B, C) if keep else (0,)
    checkpoints = u.new_empty(shape, dtype=torch.float32)
    memory, *scratch = cpu_rows.forward_scratch(work)
    kept = checkpoints if keep else None
    row = cpu_rows.forward_row(x, work, Route(reverse), out, last, kept, delta_softplus, scratch)
    kernels([x], out).forward(work.n_tasks, *row)
    del memory
    return out.to(u.dtype), last, checkpoints


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
    work = cpu_rows.sizes(x.u, x.A, x.B, x.C)
    new = torch.empty if seq_idx is None else torch.zeros  # padding is passed over
    du, ddelta = (empty_like_rows(t, new) for t in (x.u, x.delta))
    dz = None if x.z is None else empty_like_rows(x.z, new)
    grads = cpu_rows.room(x, work, du, ddelta, dz)
    dinitial = empty(*u.shape[:2], A.shape[1])
    chosen, grad_out = backward_kernels([x], grad_out.to(x.u.dtype), du, ddelta, dz)
    grad_last = None if grad_last is None else plain(grad_last)
    memory, *scratch = cpu_rows.backward_scratch(work)
    row = cpu_rows.backward_row(
        x,
        work,
        Route(reverse),
        grad_out,
        grad_last,
        grads,
        dinitial,
        checkpoints,
        delta_softplus,
        scratch,
    )
    chosen.backward(work.n_tasks, *row)
    del memory
    dA, dB, dC, dD, dbias = cpu_rows.of_parameters(x, grads)
    return (
        du.to(u.dtype),
        ddelta.to(delta.dtype),
        dA.to(A.dtype),
        dB.to(B.dtype),
        dC.to(C.dtype),
        u.new_empty(0) if D is None else dD.to(D.dtype),
        u.new_empty(0) if z is None or dz is None else dz.to(z.dtype),
        u.new_empty(0) if delta_bias is None else dbias.to(delta_bias.dtype),
        u.new_empty(0) if initial_state is None else dinitial.to(initial_state.dtype),
    )
