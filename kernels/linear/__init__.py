"""First-order linear recurrence along time, real or complex: the scan of S4D, S5, LRU, RG-LRU."""

import torch
from torch import Tensor

from tristate.kernels.backend import choose
from tristate.kernels.checks import expect_one_device, expect_segments, expect_shape
from tristate.kernels.linear import ops, reference

__all__ = ["linear_scan"]


def linear_scan(
    a: Tensor,
    b: Tensor,
    *,
    initial_state: Tensor | None = None,
    seq_idx: Tensor | None = None,
    reverse: bool = False,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """First-order recurrence ``h[t] = a[t] * h[t-1] + b[t]`` along axis 1.

    The fast backend keeps nothing but its output for the gradient. Beyond inputs, outputs and
    gradients it takes a few rows of ``D`` numbers a thread; storage other than rows of channels is
    gathered tile by tile. Inputs of 16 bits are widened as a whole.

    Args:
        a: decay, ``(B, L, D)``, or ``(D,)`` where it is constant in time; real or complex, of
            modulus up to 1 for a stable recurrence.
        b: input, ``(B, L, D)``, real or complex. Any strides; channels side by side are fastest.
        initial_state: ``h[-1]``, ``(B, D)``; zeros when absent. It enters the first segment.
        seq_idx: segment of each position, ``(B, L)`` integers. Where it changes the state starts
            from zero; a negative one marks padding: state unchanged, output 0.
        reverse: read time backwards. Equals flipping the inputs in time, and the output back.
        backend: ``"auto"``, or one of :func:`tristate.kernels.backend.available_backends`.

    Returns:
        All states ``(B, L, D)`` in the dtype of ``b``, complex where ``a`` is, and the one after
        the last real position ``(B, D)``, at least float32.

    Raises:
        ValueError: shapes, dtypes or devices disagree, or the backend can't run this.

    Source: Martin & Cundy 2018, https://arxiv.org/abs/1709.04057, eq. 1.
    """
    _check(a, b, initial_state, seq_idx)
    inputs = [x for x in (a, b, initial_state) if x is not None]
    wide = torch.float32
    for x in inputs:
        wide = torch.promote_types(wide, x.dtype)
    dtype = torch.promote_types(b.dtype, torch.complex64) if wide.is_complex else b.dtype
    exact = wide not in (torch.float32, torch.complex64)
    offered = ("reference",) if exact else ("reference", "cpu", "triton")
    chosen = choose("linear_scan", b, backend, offered)
    if chosen == "reference":
        h, last = reference.linear_scan(a, b, initial_state, seq_idx, reverse)
    else:
        state = None if initial_state is None else initial_state.to(wide)
        forward = ops.triton_forward if chosen == "triton" else ops.run
        h, last = forward(a.to(wide), b.to(wide), state, seq_idx, reverse)
    return h.to(dtype), last


def _check(a: Tensor, b: Tensor, initial_state: Tensor | None, seq_idx: Tensor | None) -> None:
    if b.dim() != 3 or b.shape[1] < 1:
        raise ValueError(f"b must be (B, L, D) with L >= 1, got {tuple(b.shape)}")
    batch, length, dim = b.shape
    if a.shape not in (b.shape, (dim,)):
        raise ValueError(
            f"a must be (B, L, D) = {tuple(b.shape)} or (D,) = ({dim},), got {tuple(a.shape)}"
        )
    expect_shape("initial_state", initial_state, (batch, dim), "(B, D)")
    expect_segments(seq_idx, batch, length)
    for name, x in {"a": a, "b": b, "initial_state": initial_state}.items():
        if x is not None and not (x.is_floating_point() or x.is_complex()):
            raise ValueError(f"{name} must be floating point or complex, got {x.dtype}")
    real = not (a.is_complex() or b.is_complex())
    if real and initial_state is not None and initial_state.is_complex():
        raise ValueError(f"initial_state is {initial_state.dtype}, but a and b are real")
    expect_one_device({"b": b, "a": a, "initial_state": initial_state, "seq_idx": seq_idx})
