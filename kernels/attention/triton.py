"""Linear attention on a GPU: from tensors to the kernels, and back."""

from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from tristate.kernels.attention import triton_backward, triton_forward
from tristate.kernels.delta.ops import triton_kept_shape, triton_part
from tristate.kernels.triton.carry import hand_on
from tristate.kernels.triton.launch import launch, strides
from tristate.kernels.triton.matrix_carry import hand_matrix_on
from tristate.kernels.triton.plan import Tiles, narrower, power_of_two, share_out
from tristate.kernels.triton.segments import numbers
from tristate.kernels.triton.tune import tuned

STEPS, PIECE = 16, 32
"""Tokens of a tile, and channels of a piece of a state."""

_PLACES = (
    "at_found", "at_d_found", "at_d_keys", "at_d_moves", "at_flows", "at_late", "tables", "at_ends",
)  # fmt: skip


@dataclass(frozen=True)
class _Work:
    """What the kernels have in common.

    Attributes:
        grid: programs: blocks of value channels of all heads, and chunks of time.
        parts: of a chunk: stretches of tokens between kept states.
        part: tokens of one.
        n_blocks: of a head's value channels.
        arguments: of all kernels.
    """

    grid: tuple[int, int]
    parts: int
    part: int
    n_blocks: int
    arguments: dict[str, Any]


def _forward_plans(q: Tensor, k: Tensor, v: Tensor, *_: object) -> tuple[Tiles, ...]:
    return _plans(v, PIECE, warps=4)


def _backward_plans(
    grad_out: Tensor,
    grad_last: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    a: Tensor | None,
    *_: object,
) -> tuple[Tiles, ...]:
    if a is None:
        return _plans(v, PIECE, warps=4)
    # With what tokens find in the states, more is at work than four warps have registers for.
    return _plans(v, PIECE // 2 if v.dtype == torch.float32 else PIECE, warps=8)


def _plans(v: Tensor, widest: int, warps: int) -> tuple[Tiles, ...]:
    return narrower(Tiles(STEPS, max(16, min(widest, power_of_two(v.shape[3]))), warps))


def _work(
    tile: Tiles,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    a: Tensor | None,
    b: Tensor | None,
    seq_idx: Tensor | None,
    scale: float,
    reverse: bool,
    before: bool,
    n_blocks: int,
) -> _Work:
    batch, length, n_heads, d_key = q.shape
    d_value = v.shape[3]
    by_key = g is not None and g.dim() == 4
    part = triton_part(k)
    # What is split is worked on twice, or three times.
    programs = (2 if a is None else 3) * batch * n_heads * n_blocks
    n_chunks, n_parts = share_out(q, programs, -(-length // part))
    segments = numbers(seq_idx, reverse, n_parts * part)
    arguments = {
        "q": q,
        "k": k,
        "v": v,
        "g": g,
        "a": a,
        "b": b,
        "segments": segments,
        "length": length,
        "n_places": 0 if segments is None else segments.shape[1],
        "n_heads": n_heads,
        "d_key": d_key,
        "d_value": d_value,
        "scale": scale,
        **strides("q", q, "bthc"),
        **strides("k", k, "bthc"),
        **strides("v", v, "bthc"),
        **strides("g", g if g is None or by_key else g[..., None], "bthc"),
        **strides("a", a, "bthc"),
        **strides("b", b, "bthc"),
        "REVERSE": reverse,
        "BEFORE": before,
        "BY_KEY": by_key,
        "KEPT": part // tile.steps,
        "BLOCK_K": max(16, min(PIECE, power_of_two(d_key))),
        "BLOCK_V": tile.channels,
        "BLOCK_T": tile.steps,
        "N_LEVELS": tile.steps.bit_length() - 1,
        "num_warps": tile.warps,
    }
    return _Work((batch * n_heads * n_blocks, n_chunks), n_parts, part, n_blocks, arguments)


def _sweep(work: _Work, grid: tuple[int, int] | None = None, **given: Any) -> None:
    """Run the forward kernel; what isn't given isn't there."""
    nothing = dict.fromkeys(("entering", "out", "decays", "kept"))
    sizes = {"n_blocks": work.n_blocks, "n_tiles": work.parts * work.arguments["KEPT"]}
    launch(
        triton_forward.forward, grid or work.grid, **{**work.arguments, **sizes, **nothing, **given}
    )


def _decays(work: _Work, ends: Tensor) -> Tensor | None:
    """Room for what each chunk multiplies the state by, unless that is a matrix."""
    if work.arguments["a"] is not None:
        return None
    return ends.new_empty(ends.shape[: 4 if work.arguments["BY_KEY"] else 3])


def _handed_on(
    work: _Work, decays: Tensor | None, ends: Tensor, initial: Tensor | None, back: bool = False
) -> Tensor:
    """The state that enters each chunk."""
    if decays is not None:
        return hand_on(decays, ends, initial, back)
    batch, n_chunks, n_heads, d_key, _ = ends.shape
    maps = ends.new_empty(batch, n_chunks, n_heads, d_key, d_key)
    n_blocks = -(-d_key // work.arguments["BLOCK_V"])
    sizes = {"d_value": d_key, "n_blocks": n_blocks}
    grid = batch * n_heads * n_blocks, n_chunks
    _sweep(work, grid, **{"v": None, "leaving": maps, **sizes})
    return hand_matrix_on(maps, ends, initial, back)


@tuned("linear_attention", _forward_plans)
def forward(
    tile: Tiles,
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
    """Output, last state, and with ``keep`` the states before each part."""
    n_blocks = -(-v.shape[3] // tile.channels)
    work = _work(tile, q, k, v, g, a, b, seq_idx, scale, reverse, before, n_blocks)
    batch, _, n_heads, d_key = q.shape
    out = v.new_empty(v.shape)
    leaving = v.new_empty(batch, work.grid[1], n_heads, d_key, v.shape[3], dtype=torch.float32)
    kept = v.new_empty(triton_kept_shape(k, v) if keep else (0,), dtype=torch.float32)
    entering = initial_state
    if work.grid[1] > 1:
        decays = _decays(work, leaving)
        _sweep(work, leaving=leaving, decays=decays)
        entering = _handed_on(work, decays, leaving, initial_state)
    _sweep(
        work,
        entering=None if entering is None else entering.float().contiguous(),
        out=out,
        kept=kept if keep else None,
        leaving=leaving,
    )
    return out, leaving[:, -1].contiguous(), kept


@tuned("linear_attention_backward", _backward_plans)
def backward(
    tile: Tiles,
    grad_out: Tensor,
    grad_last: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    a: Tensor | None,
    b: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    kept: Tensor,
    scale: float,
    reverse: bool,
    before: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of ``q, k, v, g, a, b, initial_state``, in their dtypes; empty if absent."""
    work = _work(tile, q, k, v, g, a, b, seq_idx, scale, reverse, before, n_blocks=1)
    batch, _, n_heads, d_key = q.shape
    d_value = v.shape[3]
    # A program's own: the state, what tokens found and its gradient, what comes to keys and moves
    # from the state behind, what flows to decays, of that what their own token reads after them,
    # tables of how tokens meet, and products of the state and its gradient.
    n_gates, one = d_key if work.arguments["BY_KEY"] else 1, int(a is not None)
    rows = one * d_value, one * d_value, d_key, one * d_key, n_gates, n_gates
    tables = (4 if one else 1) * tile.steps**2
    rooms = *(work.part * n for n in rows), tables, n_gates
    *places, own_size = accumulate((d_key * d_value, *rooms))
    empty = q.new_empty(0)
    found = {
        f"d{name}": None if x is None else x.new_empty(x.shape)
        for name, x in zip("qkvgab", (q, k, v, g, a, b), strict=True)
    }
    outgoing = kept.new_empty(batch, work.grid[1], n_heads, d_key, d_value)
    given = {
        **work.arguments,
        **found,
        "grad": grad_out,
        "kept": kept,
        "outgoing": outgoing,
        "own": kept.new_empty(work.grid[0] * work.grid[1], own_size),
        **dict(zip(_PLACES, places, strict=True)),
        "own_size": own_size,
        "n_parts": work.parts,
        **strides("grad", grad_out, "bthc"),
    }
    incoming = grad_last
    if work.grid[1] > 1:
        decays = _decays(work, outgoing)
        summary = {**given, "dq": None, "dv": None, "incoming": None, "decays": decays}
        launch(triton_backward.backward, work.grid, **summary)
        incoming = _handed_on(work, decays, outgoing, grad_last, back=True)
    incoming = None if incoming is None else incoming.float().contiguous()
    launch(triton_backward.backward, work.grid, **given, incoming=incoming, decays=None)
    dq, dk, dv, dg, da, db = (empty.clone() if x is None else x for x in found.values())
    dstate = empty if initial_state is None else outgoing[:, 0].to(initial_state.dtype).clone()
    return dq, dk, dv, dg, da, db, dstate
