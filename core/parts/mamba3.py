"""The recurrence of Mamba-3: trapezoidal steps, and states that are turned as they decay.

Per head, with ``trap = sigmoid(trap)``, ``angle[t] = angle[t-1] + pi tanh(turn[t]) dt[t]`` and
queries and keys turned by it::

    S[t] = exp(adt[t]) (S[t-1] + (1 - trap[t]) dt[t] v[t-1] k[t-1]^T) + trap[t] dt[t] v[t] k[t]^T
    y[t] = S[t] q[t] + D v[t]

What step ``t + 1`` adds of position ``t`` can as well be added at step ``t``, which makes it the
scan of Mamba-2, and be taken off that step's output again:
``(1 - trap[t+1]) dt[t+1] (k[t] . q[t]) v[t]``.

Source: Lahoti et al. 2026, https://arxiv.org/abs/2603.15569; conventions after
https://github.com/state-spaces/mamba (``tests/ops/triton/test_mamba3_siso.py``).
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tristate.core.parts.segments import Segments, segments
from tristate.kernels.ssd import ssd_scan

# Steps are divided by: so small a one leaves a state as it is, in float32 too.
LEAST_STEP = 1e-12


class Mamba3State(NamedTuple):
    """What the recurrence remembers; without the rank axis for a single input and output."""

    angle: Tensor  # (B, H, A), radians in [0, 2 pi)
    scan: Tensor  # (B, H, P, N)
    keys: Tensor  # (B, H, N), the last one, turned
    values: Tensor  # (B, H, P), the last one


def mamba3_scan(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    adt: Tensor,
    dt: Tensor,
    trap: Tensor,
    turns: Tensor,
    *,
    D: Tensor | None = None,
    z: Tensor | None = None,
    state: Mamba3State | None = None,
    seq_idx: Tensor | None = None,
) -> tuple[Tensor, Mamba3State]:
    """The recurrence over ``(B, L, H, ...)``; time O(L H P N), memory O(L H (P + N)).

    Args:
        q: queries (``C``), ``(B, L, H, N)``.
        k: keys (``B``), like ``q``.
        v: values, ``(B, L, H, P)``.
        adt: logarithm of the decays, ``(B, L, H)``, below 0.
        dt: step sizes, ``(B, L, H)``.
        trap: weight of the step's end against its beginning, before the sigmoid, ``(B, L, H)``.
        turns: angular velocities before ``pi tanh``, ``(B, L, H, A)`` for the first ``A`` pairs
            ``(2 i, 2 i + 1)`` of the channels of queries and keys.
        D: weight of the value in the output, ``(H,)``.
        z: gate, like ``v``.
        state: before the first position; zeros when absent.
        seq_idx: segment of each position, ``(B, L)`` integers; see :class:`tristate.core.mixer`.

    Returns:
        ``(B, L, H, P)`` in the dtype of ``v``, and the state after the last real position.
    """
    wide = torch.promote_types(v.dtype, torch.float32)
    q, k, adt, dt, turns = (x.to(wide) for x in (q, k, adt, dt, turns))
    values, weight = v.to(wide), torch.sigmoid(trap.to(wide))
    if state is None:
        state = _zeros(q, values, turns.shape[3])
    at = None if seq_idx is None else segments(seq_idx)
    angles = _angles(math.pi * turns.tanh() * dt[..., None], state.angle, at)
    q, k = _turned(q, angles), _turned(k, angles)

    # What a step gives of the position before it, seen from that position; 0 for the last one.
    early = (1 - weight) * dt
    late = _of_next(early, at)
    step = (-adt).clamp(min=LEAST_STEP)
    # The first step's share of the last position of what came before.
    first = _first_real(early, at)[..., None, None]
    scan = state.scan + first * state.values[..., None] * state.keys[:, :, None]
    y, scan = ssd_scan(
        values * ((weight * dt + late) / step)[..., None],
        step,
        -torch.ones_like(adt[0, 0]),
        k,
        q,
        initial_states=scan,
        seq_idx=seq_idx,
        return_final_states=True,
    )
    y = y - (late * (q * k).sum(-1))[..., None] * values
    if D is not None:
        y = y + D.to(wide)[:, None] * values
    if z is not None:
        y = y * F.silu(z.to(wide))
    if at is None:
        last = Mamba3State(angles[:, -1], scan, k[:, -1], values[:, -1])
        return y.to(v.dtype), last
    y = torch.where(at.real[..., None, None], y, 0)
    pairs = ((angles, state.angle), (k, state.keys), (values, state.values))
    angle, keys, last_values = (_last_real(x, old, at) for x, old in pairs)
    return y.to(v.dtype), Mamba3State(angle, scan, keys, last_values)


def _zeros(q: Tensor, v: Tensor, n_angles: int) -> Mamba3State:
    batch, _, heads, d_state = q.shape
    return Mamba3State(
        q.new_zeros(batch, heads, n_angles),
        q.new_zeros(batch, heads, v.shape[3], d_state),
        q.new_zeros(batch, heads, d_state),
        v.new_zeros(batch, heads, v.shape[3]),
    )


def _angles(turns: Tensor, before: Tensor, at: Segments | None) -> Tensor:
    """``turns (B, L, H, A)`` summed up over time from ``before (B, H, A)``, in ``[0, 2 pi)``."""
    # Many small numbers: a sum in float32 would drift by thousandths in some ten thousand steps.
    if at is None:
        sums = turns.double().cumsum(1) + before[:, None]
    else:
        sums = torch.where(at.real[..., None, None], turns, 0).double().cumsum(1)
        runs = at.changed.cumsum(1)
        # The sum in front of the position that began the sequence; nothing for the first one.
        places = torch.arange(runs.shape[1], device=runs.device)
        begin = torch.where(at.changed, places, 0).cummax(1).values
        begin = (begin - 1).clamp(min=0)[..., None, None].expand_as(sums)
        later = (runs > 0)[..., None, None]
        sums = sums - torch.where(later, sums.gather(1, begin), 0)
        sums = sums + torch.where(later, 0, before[:, None])
    return torch.remainder(sums, 2 * math.pi).to(turns.dtype)


def _turned(x: Tensor, angles: Tensor) -> Tensor:
    """``x (B, L, H, N)`` with its first pairs of channels turned by ``angles (B, L, H, A)``."""
    width = 2 * angles.shape[3]
    pairs, rest = x[..., :width].unflatten(-1, (-1, 2)), x[..., width:]
    a, b = pairs.unbind(-1)
    cos, sin = angles.cos(), angles.sin()
    turned = torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1)
    return torch.cat([turned.flatten(-2), rest], dim=-1)


def _of_next(x: Tensor, at: Segments | None) -> Tensor:
    """``x (B, L, H)`` at the next real position of the same sequence; 0 where there is none."""
    if at is None:
        # Cut last: with a free length, a compiler would ask whether one less than it is 1.
        return F.pad(x, (0, 0, 0, 1))[:, 1:]
    # Each real position hands its own to the real one before it.
    follows = at.real & ~at.first & ~at.changed
    source = torch.where(follows[..., None], x, 0)
    places = at.before.clamp(min=0)[..., None].expand_as(x)
    return torch.zeros_like(x).scatter_add(1, places, source)


def _first_real(x: Tensor, at: Segments | None) -> Tensor:
    """``x (B, L, H)`` at the first real position; 0 in rows without one."""
    return x[:, 0] if at is None else torch.where(at.first[..., None], x, 0).sum(1)


def _last_real(x: Tensor, old: Tensor, at: Segments) -> Tensor:
    """``x (B, L, H, ...)`` at the last real position; ``old`` in rows without one."""
    places = torch.arange(x.shape[1], device=x.device)
    last = torch.where(at.real, places, -1).amax(1)
    picked = x[torch.arange(len(x), device=x.device), last.clamp(min=0)]
    return torch.where((last >= 0)[:, None, None], picked, old)
