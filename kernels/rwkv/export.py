"""RWKV-4's op in PyTorch's own operators, for programs that leave this package."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._higher_order_ops.scan import scan_op

from tristate.kernels.rwkv.ops import TILE
from tristate.kernels.rwkv.reference import LEAST


def wkv(
    k: Tensor,
    v: Tensor,
    w: Tensor,
    u: Tensor,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    reverse: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """What the op computes, as one loop over any length: PyTorch's higher-order op ``scan``."""
    batch, length, dim = k.shape
    sums = k.new_zeros(batch, dim, dtype=torch.float32)
    least = torch.full_like(sums, LEAST)
    # What is carried is not to share memory.
    carried = [sums, torch.zeros_like(sums), least.clone()]
    if initial_state is not None:
        carried = [x.clone() for x in initial_state.float().unbind(1)]
    rows = [x.float().movedim(1, 0) for x in (k, v)]
    if seq_idx is not None:
        rows.append(seq_idx.T.to(torch.float64))
        # What is carried must be floating point, or the loop has no gradient.
        carried.append(torch.full_like(seq_idx[:, 0], -1, dtype=torch.float64))
    if reverse:
        rows = [row.flip(0) for row in rows]
    constants = [w.float().expand(batch, dim).clone(), u.float().expand(batch, dim).clone(), least]

    def step(*operands: Tensor) -> list[Tensor]:
        here = iter(operands)
        before = next(here), next(here), next(here)
        segment = next(here) if seq_idx is not None else None
        key, value = next(here), next(here)
        now = next(here) if seq_idx is not None else None
        decay, bonus, nothing = next(here), next(here), next(here)
        num, den, unit = before
        if segment is not None and now is not None:
            fresh = ((segment >= 0) & (now != segment))[:, None]
            num, den = torch.where(fresh, 0, num), torch.where(fresh, 0, den)
            unit = torch.where(fresh, nothing, unit)
        top = torch.maximum(unit, bonus + key)
        old, new = (unit - top).exp(), (bonus + key - top).exp()
        out = (old * num + new * value) / (old * den + new)
        top = torch.maximum(unit + decay, key)
        old, new = (unit + decay - top).exp(), (key - top).exp()
        after = old * num + new * value, old * den + new, top
        if segment is None or now is None:
            return [*after, out]
        real = (now >= 0)[:, None]
        after = [torch.where(real, x, y) for x, y in zip(after, before, strict=True)]
        return [*after, torch.where(now >= 0, now, segment), torch.where(real, out, 0)]

    results = scan_op(step, carried, rows, tuple(constants))
    last, out = torch.stack(list(results[:3]), 1), results[-1]
    out = (out.flip(0) if reverse else out).movedim(0, 1)
    # The loop keeps what its own gradient needs: nothing reads the states.
    n_tiles = (length + TILE - 1) // TILE
    kept = v.new_zeros((batch, n_tiles, 3, dim) if keep else (0,), dtype=torch.float32)
    return out.to(v.dtype), last, kept


def decompositions() -> dict[Any, Callable[..., Any]]:
    """The table for :meth:`torch.export.ExportedProgram.run_decompositions`."""
    ops = torch.ops.tristate
    return dict.fromkeys((ops.wkv.default, ops.wkv_triton.default), wkv)
