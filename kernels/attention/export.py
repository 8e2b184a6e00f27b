"""Linear attention's op in PyTorch's own operators, for programs that leave this package."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._higher_order_ops.scan import scan_op


def linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    a: Tensor | None,
    b: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    scale: float,
    reverse: bool,
    before: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """What the op computes, as one loop over any length: PyTorch's higher-order op ``scan``."""
    batch, _, heads, d_key = q.shape
    state = v.new_zeros(batch, heads, d_key, v.shape[3], dtype=torch.float32)
    if initial_state is not None:
        state = state + initial_state
    # By token: columns (of keys) (L, B, H, K, 1), rows (of values) (L, B, H, 1, V).
    columns, ranked = [scale * q.float(), k.float()], a is not None
    if a is not None and b is not None:
        columns += [a.float(), b.float()]
    rows = [x.movedim(1, 0)[..., None] for x in columns]
    rows.append(v.float().movedim(1, 0)[..., None, :])
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
        kept = next(here)
        segment = next(here) if seq_idx is not None else None
        read, key = next(here), next(here)
        find, move = (next(here), next(here)) if ranked else (None, None)
        value = next(here)
        decay = next(here) if g is not None else None
        now = next(here) if seq_idx is not None else None
        old = kept
        if segment is not None and now is not None:
            fresh = (segment >= 0) & (now != segment)
            old = torch.where(fresh[:, None, None, None], 0, old)
        new = key * value + (old if decay is None else decay * old)
        if find is not None and move is not None:
            new = new + move * (find * old).sum(2, keepdim=True)
        out = (read * (old if before else new)).sum(2)
        if segment is None or now is None:
            return [new, out]
        real = now >= 0
        new = torch.where(real[:, None, None, None], new, kept)
        out = torch.where(real[:, None, None], out, 0)
        return [new, torch.where(real, now, segment), out]

    results = scan_op(step, carried, rows, ())
    last, out = results[0], results[-1]
    out = (out.flip(0) if reverse else out).movedim(0, 1)
    # The loop keeps what its own gradient needs: nothing reads what was found.
    found = v.new_zeros(v.shape if keep and ranked else (0,), dtype=torch.float32)
    return out.to(v.dtype), last, found


def decompositions() -> dict[Any, Callable[..., Any]]:
    """The table for :meth:`torch.export.ExportedProgram.run_decompositions`."""
    ops = torch.ops.tristate
    return dict.fromkeys(
        (ops.linear_attention.default, ops.linear_attention_triton.default), linear_attention
    )
