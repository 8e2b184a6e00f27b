"""The (gated) delta rule: linear attention that corrects what its state holds under a key."""

import torch
from torch import Tensor

from tristate.kernels.backend import choose, is_free
from tristate.kernels.checks import (
    expect_floating,
    expect_one_device,
    expect_segments,
    expect_shape,
)
from tristate.kernels.delta import chunked, ops, reference

__all__ = ["gated_delta_rule"]


def gated_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    beta: Tensor,
    g: Tensor | None = None,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    seq_idx: Tensor | None = None,
    reverse: bool = False,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Each step corrects what a matrix state ``S (K, V)`` holds under a key; each token reads it.

    ``S = exp(g) S``, ``S = S + k (beta (v - k^T S))^T``, ``o = scale q^T S``; see
    :mod:`tristate.kernels.delta.reference`. Without ``g`` this is DeltaNet, with one by head Gated
    DeltaNet, with one by key channel Kimi Delta Attention; with ``n`` corrections a token (Gated)
    DeltaProduct. For a stable recurrence keys have length 1, ``beta`` is in ``[0, 2]`` and ``g`` at
    most 0.

    Args:
        q: queries, ``(B, L, H, K)``.
        k: keys, ``(B, L, H, K)``, or ``(B, n L, H, K)`` for a product of ``n`` corrections a token:
            step ``n t + j`` is the ``j``-th of token ``t``.
        v: values, ``(B, n L, H, V)``.
        beta: how much is corrected, ``(B, n L, H)``, or ``(B, n L, H, V)`` by value channel.
        g: logarithm of the decay before a token's corrections, ``(B, L, H)``, or by key channel
            ``(B, L, H, K)``; none when absent.
        scale: of the output; ``K ** -0.5`` when absent.
        initial_state: ``(B, H, K, V)``; zeros when absent. It enters the first segment.
        seq_idx: segment of each token, ``(B, L)`` integers. Where it changes the state starts from
            zero; a negative one marks padding: state unchanged, output 0.
        reverse: read time backwards, token by token; a token's corrections keep their order. Equals
            flipping the inputs' tokens, and the output back.
        backend: ``"auto"``, or one of :func:`tristate.kernels.backend.available_backends`. Where
            nothing faster runs ``"auto"`` computes by chunks
            (:mod:`tristate.kernels.delta.chunked`), not by the reference's loop.

    Returns:
        The output, ``(B, L, H, V)`` in the dtype of ``v``, and the last state ``(B, H, K, V)``, in
        float32 at least, through which gradients flow. On a CPU, forward and backward together
        allocate at most 3 times the inputs in float32, whatever the length.

    Raises:
        ValueError: shapes, dtypes or devices disagree, or the backend can't run this.

    Source: the papers that the reference names; flash-linear-attention's functions of these names,
    https://github.com/fla-org/flash-linear-attention.
    """
    _check(q, k, v, beta, g, initial_state, seq_idx)
    factor = q.shape[3] ** -0.5 if scale is None else float(scale)
    inputs = (q, k, v, beta, g, initial_state)
    # float32 is not enough for an input in float64, whichever it is.
    exact = any(x is not None and x.dtype == torch.float64 for x in inputs)
    offered = ("reference",) if exact else ("reference", "cpu", "triton")
    chosen = choose("gated_delta_rule", v, backend, offered)
    if chosen != "reference":
        # A program that leaves seldom computes gradients.
        keep = (
            torch.is_grad_enabled()
            and not torch.compiler.is_exporting()
            and any(x is not None and x.requires_grad for x in inputs)
        )
        forward = ops.triton_forward if chosen == "triton" else ops.run
        return forward(*inputs, seq_idx, factor, reverse, keep)[:2]
    plain = chunked if backend == "auto" and is_free() else reference
    return plain.gated_delta_rule(*inputs, seq_idx, factor, reverse)


def _check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    g: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
) -> None:
    if q.dim() != 4 or 0 in q.shape[1:]:
        raise ValueError(f"q must be (B, L, H, K), none but B empty, got {tuple(q.shape)}")
    batch, length, heads, d_key = q.shape
    if k.dim() != 4 or k.shape[1] < 1 or k.shape[1] % length:
        raise ValueError(f"k must be (B, n L, H, K) with L = {length}, got {tuple(k.shape)}")
    steps = k.shape[1]
    expect_shape("k", k, (batch, steps, heads, d_key), "(B, n L, H, K)")
    if v.dim() != 4 or v.shape[3] < 1:
        raise ValueError(f"v must be (B, n L, H, V), got {tuple(v.shape)}")
    d_value = v.shape[3]
    expect_shape("v", v, (batch, steps, heads, d_value), "(B, n L, H, V)")
    by_step = (batch, steps, heads)
    if beta.dim() == 4:
        expect_shape("beta", beta, (*by_step, d_value), "(B, n L, H, V)")
    else:
        expect_shape("beta", beta, by_step, "(B, n L, H) or (B, n L, H, V)")
    if g is not None and g.dim() == 4:
        expect_shape("g", g, (batch, length, heads, d_key), "(B, L, H, K)")
    else:
        expect_shape("g", g, (batch, length, heads), "(B, L, H) or (B, L, H, K)")
    expect_shape("initial_state", initial_state, (batch, heads, d_key, d_value), "(B, H, K, V)")
    expect_segments(seq_idx, batch, length)
    tensors = {"q": q, "k": k, "v": v, "beta": beta, "g": g, "initial_state": initial_state}
    expect_floating(tensors)
    expect_one_device({**tensors, "seq_idx": seq_idx})
