"""Mamba-2's scan in PyTorch's own operators, for programs that leave this package."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._higher_order_ops.scan import scan_op
from torch.nn.functional import silu, softplus

from tristate.kernels.ssd.ops import kept_shape


def ssd_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    initial_states: Tensor | None,
    seq_idx: Tensor | None,
    dt_softplus: bool,
    dt_min: float,
    dt_max: float,
    reverse: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What the op computes, as one loop over any length: PyTorch's higher-order op ``scan``."""
    batch, _, n_heads, width = x.shape
    n_groups, n_states = B.shape[2:]
    values, step = x.float(), dt.float()
    if dt_bias is not None:
        step = step + dt_bias.float()
    if dt_softplus:
        step = softplus(step)
    step = step.clamp(dt_min, dt_max)
    state = values.new_zeros(batch, n_heads, width, n_states)
    if initial_states is not None:
        state = state + initial_states.float()
    rows = [torch.exp(step * A.float()), step[..., None] * values]
    rows += [w.float().repeat_interleave(n_heads // n_groups, 2) for w in (B, C)]
    rows = [row.movedim(1, 0) for row in rows]  # (L, B, H, ...)
    # What is carried must be floating point, or the loop has no gradient.
    carried = [state]
    if seq_idx is not None:
        rows.append(seq_idx.T.to(torch.float64))
        carried.append(torch.full_like(seq_idx[:, 0], -1, dtype=torch.float64))
    if reverse:
        rows = [row.flip(0) for row in rows]

    def advance(*operands: Tensor) -> list[Tensor]:
        here = iter(operands)
        h = before = next(here)
        segment = next(here) if seq_idx is not None else None
        decay, entering, weight_in, weight_out, *now = here
        if segment is not None:
            fresh = (segment >= 0) & (now[0] != segment)
            before = torch.where(fresh[:, None, None, None], 0, h)
        injected = entering[..., None] * weight_in[:, :, None]
        after = decay[..., None, None] * before + injected
        y = (after * weight_out[:, :, None]).sum(3)
        if segment is None:
            return [after, y]
        real = now[0] >= 0
        after = torch.where(real[:, None, None, None], after, h)
        return [after, torch.where(real, now[0], segment), y]

    results = scan_op(advance, carried, rows, ())
    y = (results[-1].flip(0) if reverse else results[-1]).movedim(0, 1)
    if D is not None:
        y = y + values * (D if D.dim() == 2 else D[:, None]).float()
    out = y if z is None else y * silu(z.float())
    if seq_idx is not None:
        out = torch.where((seq_idx >= 0)[:, :, None, None], out, 0)
    # The loop keeps what its own gradient needs: nothing reads these.
    gate = values.new_zeros(x.shape if keep and z is not None else (0,))
    kept = values.new_zeros(kept_shape(x, B) if keep else (0,))
    return out.to(x.dtype), results[0], gate, kept


def decompositions() -> dict[Any, Callable[..., Any]]:
    """The table for :meth:`torch.export.ExportedProgram.run_decompositions`."""
    return {torch.ops.tristate.ssd_scan.default: ssd_scan}
