"""RWKV-4's attention: a weighted mean of past values, by channel."""

import torch
from torch import Tensor

from tristate.kernels.backend import choose
from tristate.kernels.checks import (
    expect_floating,
    expect_one_device,
    expect_segments,
    expect_shape,
)
from tristate.kernels.rwkv import ops, reference
from tristate.kernels.rwkv.reference import LEAST

__all__ = ["LEAST", "wkv"]


def wkv(
    k: Tensor,
    v: Tensor,
    *,
    w: Tensor,
    u: Tensor,
    initial_state: Tensor | None = None,
    seq_idx: Tensor | None = None,
    reverse: bool = False,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """The mean of all values so far, weighted by keys, distance and a bonus of the present one.

    ``o[t] = sum_j weight[t, j] v[j] / sum_j weight[t, j]`` with ``weight[t, j] = exp(k[j] +
    (t - 1 - j) w)`` for ``j < t`` and ``exp(k[t] + u)`` for ``t`` itself, by channel. O(B L D)
    time; the fast backends keep the state at every 64th position for the gradient. Nothing
    overflows, whatever the keys.

    Args:
        k: logarithms of the weights, ``(B, L, D)``. Any strides; channels side by side are fastest.
        v: values, ``(B, L, D)``.
        w: logarithm of the decay, ``(D,)``, at most 0.
        u: bonus of the present position, ``(D,)``.
        initial_state: ``(B, 3, D)``: numerator and denominator in units of ``exp(m)``, and ``m``,
            which is :data:`LEAST` where nothing has been summed up, as when absent. It enters the
            first segment.
        seq_idx: segment of each position, ``(B, L)`` integers. Where it changes the sums start
            anew; a negative one marks padding: state unchanged, output 0.
        reverse: read time backwards. Equals flipping the inputs, and the output back.
        backend: ``"auto"``, or one of :func:`tristate.kernels.backend.available_backends`.

    Returns:
        The output, ``(B, L, D)`` in the dtype of ``v``, and the state after the last real position,
        ``(B, 3, D)``, at least float32. Gradients flow through its first two rows; the third is
        only their unit, and what it stands for doesn't depend on it.

    Raises:
        ValueError: shapes, dtypes or devices disagree, or the backend can't run this.

    Source: Peng et al. 2023, https://arxiv.org/abs/2305.13048, equations 14 to 16.
    """
    _check(k, v, w, u, initial_state, seq_idx)
    inputs = (k, v, w, u, initial_state)
    # float32 is not enough for an input in float64, whichever it is.
    exact = any(x is not None and x.dtype == torch.float64 for x in inputs)
    offered = ("reference",) if exact else ("reference", "cpu", "triton")
    chosen = choose("wkv", v, backend, offered)
    if chosen != "reference":
        # A program that leaves seldom computes gradients.
        keep = (
            torch.is_grad_enabled()
            and not torch.compiler.is_exporting()
            and any(x is not None and x.requires_grad for x in inputs)
        )
        op = ops.triton_forward if chosen == "triton" else ops.run
        return op(*inputs, seq_idx, reverse, keep)[:2]
    return reference.wkv(*inputs, seq_idx, reverse)


def _check(
    k: Tensor,
    v: Tensor,
    w: Tensor,
    u: Tensor,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
) -> None:
    if k.dim() != 3 or 0 in k.shape[1:]:
        raise ValueError(f"k must be (B, L, D), none but B empty, got {tuple(k.shape)}")
    batch, length, dim = k.shape
    expect_shape("v", v, (batch, length, dim), "(B, L, D)")
    expect_shape("w", w, (dim,), "(D,)")
    expect_shape("u", u, (dim,), "(D,)")
    expect_shape("initial_state", initial_state, (batch, 3, dim), "(B, 3, D)")
    expect_segments(seq_idx, batch, length)
    tensors = {"k": k, "v": v, "w": w, "u": u, "initial_state": initial_state}
    expect_floating(tensors)
    expect_one_device({**tensors, "seq_idx": seq_idx})
