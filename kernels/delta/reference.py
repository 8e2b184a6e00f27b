"""The gated delta rule in plain PyTorch: what every backend must compute.

A head's state is a matrix ``S (K, V)`` that maps keys to values. At each token it decays, and then,
``n`` times (once but for a product), what it holds under a key is corrected towards a value::

    S = exp(g) S                          (by head, or by key channel: by row of S)
    S = S + k (beta (v - k^T S))^T        (n times, each with its own k, v and beta)
    o = scale q^T S

One correction multiplies ``S`` by ``I - beta k k^T``: for ``|k| = 1`` it erases the part ``beta``
of what lies under ``k``, and reflects it (a Householder step) where ``beta = 2``. Where ``seq_idx``
changes from one real position to the next, ``S`` is 0 before the token; at padding (``seq_idx <
0``) it passes unchanged and the output is 0.

Source: Yang et al. 2024, https://arxiv.org/abs/2406.06484 (delta rule) and
https://arxiv.org/abs/2412.06464 (gated); Siems et al. 2025, https://arxiv.org/abs/2502.10297
(products); axes and names as in https://github.com/fla-org/flash-linear-attention.
"""

import torch
from torch import Tensor


def gated_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    g: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    scale: float,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    """Output ``(B, L, H, V)`` in the dtype of ``v``, and the last state ``(B, H, K, V)``.

    Computes in float64 if an input is, else in float32. The arguments are those of
    :func:`tristate.kernels.delta.gated_delta_rule`.
    """
    exact = exact_dtype(q, k, v, beta, g, initial_state)
    batch, length, heads, d_key = q.shape
    n = k.shape[1] // length
    reads = (scale * q.to(exact))[..., None, :].unbind(1)  # (B, H, 1, K) each
    keys, values = (x.to(exact)[..., None, :].unflatten(1, (length, n)).unbind(1) for x in (k, v))
    rates = beta.to(exact).reshape(batch, length, n, heads, 1, -1).unbind(1)
    decays = None
    if g is not None:
        decays = g.to(exact).exp().reshape(batch, length, heads, -1, 1).unbind(1)

    state = v.new_zeros(batch, heads, d_key, v.shape[3], dtype=exact)
    if initial_state is not None:
        state = state + initial_state.to(exact)
    outs: list[Tensor] = [state[:, :, 0]] * length
    # Of the last real position; -1 before the first.
    segment = torch.full((batch,), -1, device=v.device)
    for t in reversed(range(length)) if reverse else range(length):
        now = None if seq_idx is None else seq_idx[:, t]
        after = state
        if now is not None:
            fresh = (segment >= 0) & (now >= 0) & (now != segment)
            after = torch.where(fresh[:, None, None, None], 0, state)
        if decays is not None:
            after = decays[t] * after
        for j in range(n):
            key, value, rate = keys[t][:, j], values[t][:, j], rates[t][:, j]
            after = after + key.mT @ (rate * (value - key @ after))
        outs[t] = (reads[t] @ after)[:, :, 0]
        if now is not None:
            real = now >= 0
            after = torch.where(real[:, None, None, None], after, state)
            outs[t] = torch.where(real[:, None, None], outs[t], 0)
            segment = torch.where(real, now, segment)
        state = after
    return torch.stack(outs, 1).to(v.dtype), state


def exact_dtype(*tensors: Tensor | None) -> torch.dtype:
    """float64 where one of the tensors is, else float32."""
    exact = torch.float32
    for tensor in tensors:
        if tensor is not None:
            exact = torch.promote_types(exact, tensor.dtype)
    return exact
