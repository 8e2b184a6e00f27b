"""The linear scan in plain PyTorch: what every backend must compute.

In the order in which time is read::

    h[t] = a[t] h[t-1] + b[t]

Where ``seq_idx`` changes from one real position to the next, ``h[t-1]`` is 0; at padding
(``seq_idx < 0``) the state passes unchanged and what is returned for the position is 0.

With ``g`` the gradient of what is returned and ``dh`` that of the state, in reversed order::

    dh[t] = g[t] + conj(a[t+1]) dh[t+1]      db[t] = dh[t]      da[t] = dh[t] conj(h[t-1])

Source: Martin & Cundy 2018, https://arxiv.org/abs/1709.04057, eq. 1.
"""

from collections.abc import Iterator

import torch
from torch import Tensor


def linear_scan(
    a: Tensor,
    b: Tensor,
    initial_state: Tensor | None = None,
    seq_idx: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """All states ``(B, L, D)`` and the last one ``(B, D)``, in the widest dtype of the inputs.

    ``a`` is ``(B, L, D)`` or ``(D,)``; at least float32.
    """
    scalar = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    h = b.new_zeros(b.shape[0], b.shape[2], dtype=scalar)
    if initial_state is not None:
        h = h + initial_state.to(scalar)
    a_steps = _steps(a.to(scalar), b.shape[1])
    b_steps = b.to(scalar).unbind(1)
    states = [h] * b.shape[1]
    for t, fresh, real in _positions(b, seq_idx, reverse):
        before = h if fresh is None else torch.where(fresh, 0, h)
        after = a_steps[t] * before + b_steps[t]
        h = after if real is None else torch.where(real, after, h)
        states[t] = h if real is None else torch.where(real, h, 0)
    return torch.stack(states, 1), h


def gradients(
    grad_h: Tensor,
    grad_last: Tensor,
    a: Tensor,
    h: Tensor,
    initial_state: Tensor | None = None,
    seq_idx: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of ``a``, ``b`` and the initial state ``(B, D)``; ``h`` is what was returned."""
    order = list(_positions(h, seq_idx, reverse))
    a_steps, g_steps, states = _steps(a, h.shape[1]), grad_h.unbind(1), h.unbind(1)
    state = torch.zeros_like(states[0]) if initial_state is None else initial_state
    before = [state] * len(order)
    for t, fresh, real in order:
        before[t] = state if fresh is None else torch.where(fresh, 0, state)
        state = states[t] if real is None else torch.where(real, states[t], state)
    dh = grad_last
    das, dbs = [dh] * len(order), [dh] * len(order)
    for t, fresh, real in reversed(order):
        total = g_steps[t] + dh
        dbs[t] = total if real is None else torch.where(real, total, 0)
        das[t] = dbs[t] * before[t].conj()
        on = a_steps[t].conj() * total
        on = on if fresh is None else torch.where(fresh, 0, on)
        dh = on if real is None else torch.where(real, on, dh)
    da = torch.stack(das, 1)
    return da if a.dim() == 3 else da.sum((0, 1)), torch.stack(dbs, 1), dh


def _steps(a: Tensor, length: int) -> list[Tensor]:
    return [a] * length if a.dim() == 1 else list(a.unbind(1))


def _positions(
    x: Tensor, seq_idx: Tensor | None, reverse: bool
) -> Iterator[tuple[int, Tensor | None, Tensor | None]]:
    """Each position as it is read, whether a later segment starts there, and whether it is real.

    The last two are ``(B, 1)``, or None where there are no segments.
    """
    length = x.shape[1]
    order = reversed(range(length)) if reverse else range(length)
    if seq_idx is None:
        for t in order:
            yield t, None, None
        return
    # Of the last real position; -1 before the first.
    segment = torch.full_like(seq_idx[:, :1], -1)
    for t in order:
        now = seq_idx[:, t : t + 1]
        real = now >= 0
        yield t, (segment >= 0) & (now != segment) & real, real
        segment = torch.where(real, now, segment)
