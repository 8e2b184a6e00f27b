"""The scan of Mamba-2 in plain PyTorch: what every backend must compute.

Per head with ``P`` channels and ``N`` states of each, in the order in which time is read::

    step[t] = clamp(softplus(dt[t] + dt_bias), dt_limit)     (softplus and bias are optional)
    h[t]    = exp(step[t] A) h[t-1] + step[t] x[t] B[t]^T    ((P, N); A is a number)
    y[t]    = h[t] C[t] + D x[t]
    out[t]  = y[t] silu(z[t])

Where ``seq_idx`` changes from one real position to the next, ``h[t-1]`` is 0; at padding
(``seq_idx < 0``) the state passes unchanged and the output is 0.

Source: Dao & Gu 2024, https://arxiv.org/abs/2405.21060, equation 16 with the parts around it, as in
https://github.com/state-spaces/mamba (``ssd_chunk_scan_combined_ref``).
"""

import torch
from torch import Tensor
from torch.nn.functional import silu, softplus


def ssd_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    initial_states: Tensor | None = None,
    seq_idx: Tensor | None = None,
    dt_softplus: bool = False,
    dt_min: float = 0.0,
    dt_max: float = float("inf"),
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """Output ``(B, L, H, P)`` in the dtype of ``x``, and the last states ``(B, H, P, N)``.

    Computes in float64 if an input is, else in float32. The arguments are those of
    :func:`tristate.kernels.ssd.ssd_scan`.
    """
    exact = torch.float32
    for tensor in (x, dt, A, B, C, initial_states):
        if tensor is not None:
            exact = torch.promote_types(exact, tensor.dtype)
    batch, length, n_heads, width = x.shape
    step = dt.to(exact)
    if dt_bias is not None:
        step = step + dt_bias.to(exact)
    if dt_softplus:
        step = softplus(step)
    step = step.clamp(dt_min, dt_max)
    decays = torch.exp(step * A.to(exact)).unbind(1)  # (B, H) each
    values = x.to(exact)
    entering = (step[..., None] * values).unbind(1)
    per_group = n_heads // B.shape[2]
    B_steps = B.to(exact).repeat_interleave(per_group, 2).unbind(1)  # (B, H, N) each
    C_steps = C.to(exact).repeat_interleave(per_group, 2).unbind(1)

    h = values.new_zeros(batch, n_heads, width, B.shape[3])
    if initial_states is not None:
        h = h + initial_states.to(exact)
    ys: list[Tensor] = [entering[0]] * length
    # Of the last real position; -1 before the first.
    segment = torch.full((batch,), -1, device=x.device)
    for t in reversed(range(length)) if reverse else range(length):
        injected = entering[t][..., None] * B_steps[t][:, :, None]
        decay = decays[t][..., None, None]
        if seq_idx is None:
            h = decay * h + injected
        else:
            now = seq_idx[:, t]
            real, fresh = now >= 0, (segment >= 0) & (now != segment)
            after = decay * torch.where(fresh[:, None, None, None], 0, h) + injected
            h = torch.where(real[:, None, None, None], after, h)
            segment = torch.where(real, now, segment)
        ys[t] = (h * C_steps[t][:, :, None]).sum(3)

    out = torch.stack(ys, 1)
    if D is not None:
        out = out + values * (D if D.dim() == 2 else D[:, None]).to(exact)
    if z is not None:
        out = out * silu(z.to(exact))
    if seq_idx is not None:
        out = torch.where((seq_idx >= 0)[:, :, None, None], out, 0)
    return out.to(x.dtype), h
