"""The scan of Mamba-2: heads whose decay is one number a step (state space duality)."""

import torch
from torch import Tensor

from tristate.kernels.backend import choose
from tristate.kernels.checks import (
    expect_floating,
    expect_one_device,
    expect_segments,
    expect_shape,
)
from tristate.kernels.ssd import ops, reference

__all__ = ["ssd_scan"]


def ssd_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    chunk_size: int = 64,
    *,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    initial_states: Tensor | None = None,
    seq_idx: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = (0.0, float("inf")),
    return_final_states: bool = False,
    reverse: bool = False,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """Recurrence of a matrix a head: ``h[t] = exp(dt[t] A) h[t-1] + dt[t] x[t] B[t]^T``.

    The output is ``(h[t] C[t] + D x[t]) silu(z[t])``; see :mod:`tristate.kernels.ssd.reference`.
    One step for a token at a time is :func:`tristate.kernels.selective.selective_state_update`.

    For the gradient the cpu backend keeps the states before each 128 positions, ``N / 128`` times
    the size of ``x`` in float32, and the output before the gate where there is one. Its backward
    makes gradients in float32 of ``B`` and ``C``, for each thread where threads share a sequence.

    Args:
        x: input, ``(B, L, H, P)``, any strides; ``P`` side by side is fastest.
        dt: step sizes, ``(B, L, H)``.
        A: decay rates, ``(H,)``, below 0 for a stable recurrence.
        B: input weights, ``(B, L, G, N)``; head ``h`` takes those of group ``h // (H / G)``.
        C: output weights, like ``B``.
        chunk_size: length of the chunks that the original computes at once. The result doesn't
            depend on it, and nothing here does.
        D: weight of the input in the output, ``(H,)`` or ``(H, P)``.
        z: gate, like ``x``.
        dt_bias: added to ``dt``, ``(H,)``.
        initial_states: ``(B, H, P, N)``; zeros when absent. It enters the first segment.
        seq_idx: segment of each position, ``(B, L)`` integers. Where it changes the state starts
            from zero; a negative one marks padding: state unchanged, output 0.
        cu_seqlens: instead of ``seq_idx``, for a batch of 1: where each segment starts, and the
            length, ``(segments + 1,)`` integers.
        dt_softplus: apply softplus to the step sizes, after the bias.
        dt_limit: the least and the largest step size, applied last.
        return_final_states: also return the state after the last real position.
        reverse: read time backwards. Equals flipping the inputs in time, and the output back.
        backend: ``"auto"``, or one of :func:`tristate.kernels.backend.available_backends`.

    Returns:
        The output, ``(B, L, H, P)`` in the dtype of ``x``; with ``return_final_states`` also the
        last states ``(B, H, P, N)``, in float32 at least, through which gradients flow.

    Raises:
        ValueError: shapes, dtypes or devices disagree, or the backend can't run this.

    Source: mamba-ssm's ``mamba_chunk_scan_combined``, https://github.com/state-spaces/mamba.
    """
    _check(x, dt, A, B, C, D, z, dt_bias, initial_states, dt_limit)
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
    if cu_seqlens is not None:
        if seq_idx is not None:
            raise ValueError("seq_idx and cu_seqlens say the same: give one of them")
        seq_idx = _segments(cu_seqlens, x)
    expect_segments(seq_idx, x.shape[0], x.shape[1])
    inputs = (x, dt, A, B, C, D, z, dt_bias, initial_states)
    expect_one_device({"x": x, "seq_idx": seq_idx})
    # float32 is not enough for an input in float64, whichever it is.
    exact = any(tensor is not None and tensor.dtype == torch.float64 for tensor in inputs)
    offered = ("reference",) if exact else ("reference", "cpu", "triton")
    flags = (dt_softplus, float(dt_limit[0]), float(dt_limit[1]), reverse)
    chosen = choose("ssd_scan", x, backend, offered)
    if chosen == "reference":
        out, last = reference.ssd_scan(*inputs, seq_idx, *flags)
    else:
        # A program that leaves seldom computes gradients, and may be of any length: how many chunks
        # that makes would limit it.
        keep = torch.is_grad_enabled() and not torch.compiler.is_exporting()
        keep = keep and any(tensor is not None and tensor.requires_grad for tensor in inputs)
        forward = ops.triton_forward if chosen == "triton" else ops.run
        out, last, _, _ = forward(*inputs, seq_idx, *flags, keep)
    return (out, last) if return_final_states else out


def _segments(cu_seqlens: Tensor, x: Tensor) -> Tensor:
    """``seq_idx (1, L)`` from the places where segments start."""
    if x.shape[0] != 1 or cu_seqlens.dim() != 1 or cu_seqlens.shape[0] < 2:
        raise ValueError(
            "cu_seqlens must be (segments + 1,) with x of batch 1, "
            f"got {tuple(cu_seqlens.shape)} and x {tuple(x.shape)}"
        )
    if cu_seqlens.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"cu_seqlens must be int32 or int64, got {cu_seqlens.dtype}")
    # While a program is traced there are no values to look at.
    if not torch.compiler.is_compiling():
        starts = cu_seqlens.tolist()
        if starts[0] != 0 or starts[-1] != x.shape[1] or starts != sorted(starts):
            raise ValueError(f"cu_seqlens must rise from 0 to L = {x.shape[1]}, got {starts}")
    positions = torch.arange(x.shape[1], device=x.device, dtype=cu_seqlens.dtype)
    return torch.bucketize(positions, cu_seqlens[1:], out_int32=True, right=True)[None]


def _check(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    initial_states: Tensor | None,
    dt_limit: tuple[float, float],
) -> None:
    if x.dim() != 4 or x.shape[1] < 1:
        raise ValueError(f"x must be (B, L, H, P) with L >= 1, got {tuple(x.shape)}")
    batch, length, n_heads, width = x.shape
    if B.dim() != 4 or B.shape[:2] != x.shape[:2] or B.shape[3] < 1:
        raise ValueError(f"B must be (B, L, G, N) = ({batch}, {length}, ...), got {tuple(B.shape)}")
    n_groups, n_states = B.shape[2:]
    if n_groups < 1 or n_heads % n_groups:
        raise ValueError(f"B has {n_groups} groups, which don't divide {n_heads} heads")
    expect_shape("C", C, (batch, length, n_groups, n_states), "the shape of B")
    expect_shape("dt", dt, (batch, length, n_heads), "(B, L, H)")
    expect_shape("A", A, (n_heads,), "(H,)")
    if D is not None and D.shape not in ((n_heads,), (n_heads, width)):
        raise ValueError(
            f"D must be (H,) = ({n_heads},) or (H, P) = ({n_heads}, {width}), got {tuple(D.shape)}"
        )
    expect_shape("z", z, (batch, length, n_heads, width), "(B, L, H, P)")
    expect_shape("dt_bias", dt_bias, (n_heads,), "(H,)")
    states = (batch, n_heads, width, n_states)
    expect_shape("initial_states", initial_states, states, "(B, H, P, N)")
    tensors = {"x": x, "dt": dt, "A": A, "B": B, "C": C, "D": D, "z": z}
    tensors |= {"dt_bias": dt_bias, "initial_states": initial_states}
    expect_floating(tensors)
    expect_one_device(tensors)
    if not dt_limit[0] <= dt_limit[1]:
        raise ValueError(f"dt_limit must be (least, largest), got {dt_limit}")
