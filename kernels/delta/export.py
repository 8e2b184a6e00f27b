"""The gated delta rule's op in PyTorch's own operators, for programs that leave this package."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._higher_order_ops.scan import scan_op


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
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """What the op computes, as one loop over any length: PyTorch's higher-order op ``scan``."""
    batch, length, heads, d_key = q.shape
    n = k.shape[1] // length
    state = v.new_zeros(batch, heads, d_key, v.shape[3], dtype=torch.float32)
    if initial_state is not None:
        state = state + initial_state
    # By token, columns (of keys) (L, B, H, K, 1) and rows (of values) (L, B, n, H, 1, V).
    rows = [(scale * q.float()).movedim(1, 0)[..., None]]
    steps = [
        k[..., None],
        v[..., None, :],
        (beta if beta.dim() == 4 else beta[..., None])[..., None, :],
    ]
    rows += [x.float().unflatten(1, (length, n)).movedim(1, 0) for x in steps]
    if g is not None:
        decay = g.float().exp()
        rows.append((decay if g.dim() == 4 else decay[..., None]).movedim(1, 0)[..., None])
    if seq_idx is not None:
        rows.append(seq_idx.T.to(torch.float64))
    if reverse:
        rows = [row.flip(0) for row in rows]
    # What is carried must be floating point, or the loop has no gradient.
    carried = [state]
    if seq_idx is not None:
        carried.append(torch.full_like(seq_idx[:, 0], -1, dtype=torch.float64))

    def step(*operands: Tensor) -> list[Tensor]:
        here = iter(operands)
        before = next(here)
        segment = next(here) if seq_idx is not None else None
        read, keys, values, rates = (next(here) for _ in range(4))
        decay = next(here) if g is not None else None
        now = next(here) if seq_idx is not None else None
        after = before
        if segment is not None and now is not None:
            fresh = (segment >= 0) & (now != segment)
            after = torch.where(fresh[:, None, None, None], 0, after)
        if decay is not None:
            after = decay * after
        for j in range(n):
            key, value, rate = keys[:, j], values[:, j], rates[:, j]
            found = (key * after).sum(2, keepdim=True)
            after = after + key * (rate * (value - found))
        out = (read * after).sum(2)
        if segment is None or now is None:
            return [after, out]
        real = now >= 0
        after = torch.where(real[:, None, None, None], after, before)
        out = torch.where(real[:, None, None], out, 0)
        return [after, torch.where(real, now, segment), out]

    results = scan_op(step, carried, rows, ())
    last, out = results[0], results[-1]
    out = (out.flip(0) if reverse else out).movedim(0, 1)
    # The loop keeps what its own gradient needs: nothing reads the errors.
    errors = v.new_zeros(v.shape if keep else (0,), dtype=torch.float32)
    return out.to(v.dtype), last, errors


def decompositions() -> dict[Any, Callable[..., Any]]:
    """The table for :meth:`torch.export.ExportedProgram.run_decompositions`."""
    return {torch.ops.tristate.gated_delta_rule.default: gated_delta_rule}
