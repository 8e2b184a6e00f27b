"""Linear attention with decay: a matrix state that keys write to and queries read from."""

import torch
from torch import Tensor

from tristate.kernels.attention import chunked, ops, reference
from tristate.kernels.backend import choose, is_free
from tristate.kernels.checks import (
    expect_floating,
    expect_one_device,
    expect_segments,
    expect_shape,
)

__all__ = ["linear_attention"]


def linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    g: Tensor | None = None,
    a: Tensor | None = None,
    b: Tensor | None = None,
    u: Tensor | None = None,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    seq_idx: Tensor | None = None,
    reverse: bool = False,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """A matrix state ``S (K, V)`` that decays, and to which each token adds ``k v^T``.

    ``S = exp(g) S + b (a^T S)^T + k v^T``, ``o = scale q^T S``; see
    :mod:`tristate.kernels.attention.reference`. With a ``g`` constant in time this is retention,
    with one by head simple GLA, by key channel gated linear attention; with ``u`` RWKV-6; with
    ``a`` and ``b`` the generalised delta rule: RWKV-7, and without ``g`` the identity plus rank
    one. Where ``b`` is ``-beta k`` see :func:`tristate.kernels.delta.gated_delta_rule`, which also
    knows products and is faster. O(L H K V) time; state O(H K V).

    Args:
        q: queries, ``(B, L, H, K)``.
        k: keys, ``(B, L, H, K)``.
        v: values, ``(B, L, H, V)``.
        g: logarithm of the decay, ``(B, L, H)``, or by key channel ``(B, L, H, K)``; at most 0 for
            a stable recurrence; none when absent.
        a: key under which the state before the token (not yet decayed) is read, ``(B, L, H, K)``.
        b: key under which what was read is added to the state, ``(B, L, H, K)``; with ``a``.
        u: bonus of the present token, ``(H, K)``: a token reads the state before it, to which its
            own key and value are added with this weight, ``o = scale q^T (S_before + u k v^T)``.
        scale: of the output; ``K ** -0.5`` when absent.
        initial_state: ``(B, H, K, V)``; zeros when absent. It enters the first segment.
        seq_idx: segment of each token, ``(B, L)`` integers. Where it changes the state starts from
            zero; a negative one marks padding: state unchanged, output 0.
        reverse: read time backwards. Equals flipping the inputs, and the output back.
        backend: ``"auto"``, or one of :func:`tristate.kernels.backend.available_backends`. Where
            nothing faster runs ``"auto"`` computes by chunks
            (:mod:`tristate.kernels.attention.chunked`), not by the reference's loop.

    Returns:
        The output, ``(B, L, H, V)`` in the dtype of ``v``, and the last state ``(B, H, K, V)``, in
        float32 at least, through which gradients flow. No ``(B, L, K, V)`` tensor is ever made.

    Raises:
        ValueError: shapes, dtypes or devices disagree, ``a`` comes without ``b``, or the backend
            can't run this.

    Source: Sun et al. 2023, https://arxiv.org/abs/2307.08621 (retention); Yang et al. 2023,
    https://arxiv.org/abs/2312.06635 (GLA); Peng et al. 2024, https://arxiv.org/abs/2404.05892
    (RWKV-6) and 2025, https://arxiv.org/abs/2503.14456 (RWKV-7); axes as in
    https://github.com/fla-org/flash-linear-attention.
    """
    _check(q, k, v, g, a, b, u, initial_state, seq_idx)
    factor = q.shape[3] ** -0.5 if scale is None else float(scale)
    inputs = (q, k, v, g, a, b, initial_state)
    # float32 is not enough for an input in float64, whichever it is.
    exact = any(x is not None and x.dtype == torch.float64 for x in (*inputs, u))
    offered = ("reference",) if exact else ("reference", "cpu", "triton")
    chosen = choose("linear_attention", v, backend, offered)
    if chosen != "reference":
        # A program that leaves seldom computes gradients.
        keep = (
            torch.is_grad_enabled()
            and not torch.compiler.is_exporting()
            and any(x is not None and x.requires_grad for x in inputs)
        )
        op = ops.triton_forward if chosen == "triton" else ops.run
        out, last = op(*inputs, seq_idx, factor, reverse, u is not None, keep)[:2]
    else:
        plain = chunked if backend == "auto" and is_free() else reference
        out, last = plain.linear_attention(*inputs, seq_idx, factor, reverse, u is not None)
    return out if u is None else out + _bonus(q, k, v, u, seq_idx, factor), last


def _bonus(
    q: Tensor, k: Tensor, v: Tensor, u: Tensor, seq_idx: Tensor | None, scale: float
) -> Tensor:
    """``scale (q^T diag(u) k) v``, 0 at padding."""
    weight = scale * (q * k * u).sum(3, keepdim=True)
    if seq_idx is not None:
        weight = torch.where((seq_idx >= 0)[:, :, None, None], weight, 0)
    return (weight * v).to(v.dtype)


def _check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    a: Tensor | None,
    b: Tensor | None,
    u: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
) -> None:
    if q.dim() != 4 or 0 in q.shape[1:]:
        raise ValueError(f"q must be (B, L, H, K), none but B empty, got {tuple(q.shape)}")
    batch, length, heads, d_key = q.shape
    if v.dim() != 4 or v.shape[3] < 1:
        raise ValueError(f"v must be (B, L, H, V), got {tuple(v.shape)}")
    d_value = v.shape[3]
    expect_shape("v", v, (batch, length, heads, d_value), "(B, L, H, V)")
    if (a is None) != (b is None):
        raise ValueError("a and b come together: what is found under a is added under b")
    for name, x in {"k": k, "a": a, "b": b}.items():
        expect_shape(name, x, (batch, length, heads, d_key), "(B, L, H, K)")
    if g is not None and g.dim() == 4:
        expect_shape("g", g, (batch, length, heads, d_key), "(B, L, H, K)")
    else:
        expect_shape("g", g, (batch, length, heads), "(B, L, H) or (B, L, H, K)")
    expect_shape("u", u, (heads, d_key), "(H, K)")
    expect_shape("initial_state", initial_state, (batch, heads, d_key, d_value), "(B, H, K, V)")
    expect_segments(seq_idx, batch, length)
    tensors = {"q": q, "k": k, "v": v, "g": g, "a": a, "b": b, "u": u}
    tensors["initial_state"] = initial_state
    expect_floating(tensors)
    expect_one_device({**tensors, "seq_idx": seq_idx})
