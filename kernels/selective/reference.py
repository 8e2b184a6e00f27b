"""The selective scan in plain PyTorch: what every backend must compute.

Per channel ``d`` with states ``n``, in the order in which time is read::

    dt[t] = softplus(delta[t] + delta_bias)            (softplus and bias are optional)
    h[t]  = exp(dt[t] A) h[t-1] + dt[t] u[t] B[t]      (N states)
    y[t]  = C[t] . h[t] + D u[t]                       (2 Re(C[t] . h[t]) where A is complex)
    out[t] = y[t] silu(z[t])

A complex ``A`` stands for one of each conjugate pair of a real system: hence twice the real part.
Where ``seq_idx`` changes from one real position to the next, ``h[t-1]`` is 0; at padding
(``seq_idx < 0``) the state passes unchanged and the output is 0.

Source: Gu & Dao 2023, https://arxiv.org/abs/2312.00752, algorithm 2; axes and the complex case as
in https://github.com/state-spaces/mamba (``selective_scan_ref``).
"""

import torch
from torch import Tensor
from torch.nn.functional import silu, softplus


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    initial_state: Tensor | None = None,
    seq_idx: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """Output ``(B, D, L)`` in the dtype of ``u``, and the last state ``(B, D, N)``.

    Computes in float64 if an input is, else in float32. The arguments are those of
    :func:`tristate.kernels.selective.selective_scan`, with ``B`` and ``C`` complex as they are seen
    there: interleaved where they vary in time.
    """
    exact = torch.promote_types(widest(u, delta, A, B, C, initial_state), torch.float32)
    scalar = exact.to_complex() if A.is_complex() else exact
    batch, dim, length = u.shape
    A = A.to(scalar)
    dt = delta.to(exact)
    if delta_bias is not None:
        dt = dt + delta_bias.to(exact)[:, None]
    if delta_softplus:
        dt = softplus(dt)
    x = u.to(exact)

    h = dt.new_zeros(batch, dim, A.shape[1], dtype=scalar)
    if initial_state is not None:
        h = h + initial_state.to(scalar)
    B_steps, C_steps = (_steps(weight, dim, length, scalar) for weight in (B, C))
    dt_steps, x_steps = dt.unbind(2), x.unbind(2)
    ys: list[Tensor] = [x[:, :, 0]] * length
    # Of the last real position; -1 before the first.
    segment = torch.full((batch,), -1, device=u.device)
    for t in reversed(range(length)) if reverse else range(length):
        decay = torch.exp(dt_steps[t][:, :, None] * A)
        injected = (dt_steps[t] * x_steps[t])[:, :, None] * B_steps[t]
        if seq_idx is None:
            h = decay * h + injected
        else:
            now = seq_idx[:, t]
            real, fresh = now >= 0, (segment >= 0) & (now != segment)
            after = decay * torch.where(fresh[:, None, None], 0, h) + injected
            h = torch.where(real[:, None, None], after, h)
            segment = torch.where(real, now, segment)
        y = (C_steps[t] * h).sum(2)
        ys[t] = 2 * y.real if A.is_complex() else y

    out = torch.stack(ys, 2)
    if D is not None:
        out = out + x * D.to(exact)[:, None]
    if z is not None:
        out = out * silu(z.to(exact))
    if seq_idx is not None:
        out = torch.where((seq_idx >= 0)[:, None], out, 0)
    return out.to(u.dtype), h


def widest(*tensors: Tensor | None) -> torch.dtype:
    """The real dtype in which all of the tensors can be expressed."""
    wide = torch.bfloat16
    for tensor in tensors:
        if tensor is not None:
            wide = torch.promote_types(wide, tensor.dtype.to_real())
    return wide


def _steps(weight: Tensor, dim: int, length: int, scalar: torch.dtype) -> list[Tensor]:
    """``B`` or ``C`` at each step, ``(B or 1, D, N)`` each."""
    if weight.dim() == 2:
        return [weight.to(scalar)[None]] * length
    weight = weight if weight.dim() == 4 else weight[:, None]  # (B, G, N, L)
    if scalar.is_complex and not weight.is_complex():
        pairs = weight.to(scalar.to_real()).unflatten(3, (length, 2))
        weight = torch.view_as_complex(pairs.contiguous())
    weight = weight.to(scalar).repeat_interleave(dim // weight.shape[1], 1)
    return list(weight.unbind(3))


def selective_state_update(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
) -> Tensor:
    """One step for ``state (B, H, P, N)``, which is written in place; ``(B, H, P)`` is returned.

    ``x``, ``dt``, ``z`` are ``(B, H, P)``, ``A (H, P, N)``, ``B`` and ``C (B, G, N)``, ``D`` and
    ``dt_bias (H, P)``.
    """
    exact = torch.promote_types(state.dtype, torch.float32)
    dt_exact, x_exact = dt.to(exact), x.to(exact)
    if dt_bias is not None:
        dt_exact = dt_exact + dt_bias.to(exact)
    if dt_softplus:
        dt_exact = softplus(dt_exact)
    per_group = state.shape[1] // B.shape[1]
    if per_group > 1:
        B, C = B.repeat_interleave(per_group, 1), C.repeat_interleave(per_group, 1)
    B, C = B.to(exact)[:, :, None], C.to(exact)[:, :, None]  # (B, H, 1, N)
    decay = torch.exp(dt_exact[..., None] * A.to(exact))
    new = torch.addcmul((dt_exact * x_exact)[..., None] * B, state.to(exact), decay)
    state.copy_(new)
    out = (new * C).sum(-1)
    if D is not None:
        out = out + x_exact * D.to(exact)
    if z is not None:
        out = out * silu(z.to(exact))
    return out.to(x.dtype)
