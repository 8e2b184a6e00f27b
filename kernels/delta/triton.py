"""The gated delta rule on a GPU: from tensors to the kernels, and back."""

from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from tristate.kernels.delta import triton_backward, triton_forward
from tristate.kernels.delta.ops import triton_kept_shape, triton_part
from tristate.kernels.triton.launch import launch, strides
from tristate.kernels.triton.matrix_carry import hand_matrix_on
from tristate.kernels.triton.plan import Tiles, narrower, power_of_two, share_out
from tristate.kernels.triton.segments import numbers
from tristate.kernels.triton.tune import tuned

STEPS, PIECE = 16, 32
"""Steps of a tile, and channels of a piece of a state."""

_PLACES = "at_errors", "at_d_errors", "at_d_writes", "at_flows", "tables", "at_ends"


@dataclass(frozen=True)
class _Work:
    """What the kernels have in common.

    Attributes:
        grid: programs: blocks of value channels of all heads, and chunks of time.
        parts: of a chunk: stretches of steps between kept states.
        n_blocks: of a head's value channels.
        part: steps of one.
        arguments: of all kernels.
    """

    grid: tuple[int, int]
    parts: int
    n_blocks: int
    part: int
    arguments: dict[str, Any]

    def over(self, n_columns: int) -> tuple[tuple[int, int], dict[str, Any]]:
        """Grid and sizes for states of another number of columns."""
        n_blocks = -(-n_columns // self.arguments["BLOCK_V"])
        sizes = {"d_value": n_columns, "n_blocks": n_blocks}
        return (self.grid[0] // self.n_blocks * n_blocks, self.grid[1]), sizes


def _forward_plans(q: Tensor, k: Tensor, v: Tensor, *_: object) -> tuple[Tiles, ...]:
    return _plans(v)


def _backward_plans(
    grad_out: Tensor, grad_last: Tensor | None, q: Tensor, k: Tensor, v: Tensor, *_: object
) -> tuple[Tiles, ...]:
    return _plans(v)


def _plans(v: Tensor) -> tuple[Tiles, ...]:
    return narrower(Tiles(STEPS, max(16, min(PIECE, power_of_two(v.shape[3]))), warps=4))


def _work(
    tile: Tiles,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    g: Tensor | None,
    seq_idx: Tensor | None,
    scale: float,
    reverse: bool,
    n_blocks: int,
) -> _Work:
    batch, length, n_heads, d_key = q.shape
    n, d_value = k.shape[1] // length, v.shape[3]
    by_key, by_value = g is not None and g.dim() == 4, beta.dim() == 4
    part = triton_part(k)
    # What is split is worked on three times. Rates by value would split a matrix for each value.
    programs = 3 * batch * n_heads * n_blocks
    n_parts_all = -(-k.shape[1] // part)
    n_chunks, n_parts = (1, n_parts_all) if by_value else share_out(q, programs, n_parts_all)
    if seq_idx is not None:
        seq_idx = seq_idx.repeat_interleave(n, 1)
    segments = numbers(seq_idx, reverse, n_parts * part)
    if q.dtype != k.dtype:
        q, k = q.float(), k.float()
    rates = beta if by_value else beta[..., None]
    decays = g if g is None or by_key else g[..., None]
    arguments = {
        "q": q,
        "k": k,
        "v": v,
        "beta": beta,
        "g": g,
        "segments": segments,
        "length": length,
        "n": n,
        "n_places": 0 if segments is None else segments.shape[1],
        "n_heads": n_heads,
        "d_key": d_key,
        "d_value": d_value,
        "scale": scale,
        **strides("q", q, "bthc"),
        **strides("k", k, "bthc"),
        **strides("v", v, "bthc"),
        **strides("beta", rates, "bthc"),
        **strides("g", decays, "bthc"),
        "REVERSE": reverse,
        "BY_KEY": by_key,
        "BY_VALUE": by_value,
        "KEPT": part // tile.steps,
        "BLOCK_K": max(16, min(PIECE, power_of_two(d_key))),
        "BLOCK_V": tile.channels,
        "BLOCK_T": tile.steps,
        "N_LEVELS": tile.steps.bit_length() - 1,
        "num_warps": tile.warps,
    }
    return _Work((batch * n_heads * n_blocks, n_chunks), n_parts, n_blocks, part, arguments)


def _sweep(work: _Work, **given: Any) -> None:
    """Run the forward kernel for what isn't None among ``v``, ``out``, ``kept``, ``entering``."""
    out = given["out"]
    sizes = {"n_blocks": work.n_blocks, "n_tiles": work.parts * work.arguments["KEPT"]}
    launch(
        triton_forward.forward,
        given.pop("grid", work.grid),
        **{**work.arguments, **sizes, **given},
        **strides("out", out, "bthc"),
    )


def _maps(work: _Work, like: Tensor) -> Tensor:
    """By which matrix each chunk multiplies the state, ``(B, chunks, H, K, K)``."""
    batch, n_chunks, n_heads, d_key, _ = like.shape
    maps = like.new_empty(batch, n_chunks, n_heads, d_key, d_key)
    grid, sizes = work.over(d_key)
    nothing = {"v": None, "out": None, "kept": None, "entering": None}
    _sweep(work, **nothing, **sizes, grid=grid, leaving=maps)
    return maps


@tuned("gated_delta_rule", _forward_plans)
def forward(
    tile: Tiles,
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
    """Output, last state, and with ``keep`` the states before each part."""
    n_blocks = -(-v.shape[3] // tile.channels)
    work = _work(tile, q, k, v, beta, g, seq_idx, scale, reverse, n_blocks)
    batch, length, n_heads, d_key = q.shape
    d_value = v.shape[3]
    out = v.new_empty(batch, length, n_heads, d_value)
    leaving = v.new_empty(batch, work.grid[1], n_heads, d_key, d_value, dtype=torch.float32)
    kept = v.new_empty(triton_kept_shape(k, v) if keep else (0,), dtype=torch.float32)
    entering = initial_state
    if work.grid[1] > 1:
        _sweep(work, out=None, kept=None, entering=None, leaving=leaving)
        entering = hand_matrix_on(_maps(work, leaving), leaving, entering)
    _sweep(
        work,
        out=out,
        kept=kept if keep else None,
        entering=None if entering is None else entering.float().contiguous(),
        leaving=leaving,
    )
    return out, leaving[:, -1].contiguous(), kept


@tuned("gated_delta_rule_backward", _backward_plans)
def backward(
    tile: Tiles,
    grad_out: Tensor,
    grad_last: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    g: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    kept: Tensor,
    scale: float,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of ``q, k, v, beta, g, initial_state``, in their dtypes; empty if absent."""
    work = _work(tile, q, k, v, beta, g, seq_idx, scale, reverse, n_blocks=1)
    batch, _, n_heads, d_key = q.shape
    d_value = v.shape[3]
    # A program's own: the state, what steps correct and its gradient, what comes to keys from what
    # they wrote, what flows to decays, tables of how steps meet, and products of the state and its
    # gradient.
    n_gates = d_key if work.arguments["BY_KEY"] else 1
    rows = d_value, d_value, d_key, n_gates
    rooms = *(work.part * n for n in rows), 2 * tile.steps**2, n_gates
    *places, own_size = accumulate((d_key * d_value, *rooms))
    dq, dk, dv, dbeta = (x.new_empty(x.shape) for x in (q, k, v, beta))
    dg = None if g is None else g.new_empty(g.shape)
    outgoing = kept.new_empty(batch, work.grid[1], n_heads, d_key, d_value)
    given = {
        **work.arguments,
        "grad_out": grad_out,
        "kept": kept,
        "dk": dk,
        "dg": dg,
        "outgoing": outgoing,
        "own": kept.new_empty(work.grid[0] * work.grid[1], own_size),
        **dict(zip(_PLACES, places, strict=True)),
        "own_size": own_size,
        "n_parts": work.parts,
        **strides("grad", grad_out, "bthc"),
    }
    incoming = grad_last
    if work.grid[1] > 1:
        nothing = dict.fromkeys(("dq", "dv", "dbeta", "incoming"))
        launch(triton_backward.backward, work.grid, **given, **nothing)
        incoming = hand_matrix_on(_maps(work, outgoing), outgoing, incoming, back=True)
    launch(
        triton_backward.backward,
        work.grid,
        **given,
        dq=dq,
        dv=dv,
        dbeta=dbeta,
        incoming=None if incoming is None else incoming.float().contiguous(),
    )
    none = q.new_empty(0)
    return (
        dq,
        dk,
        dv,
        dbeta,
        none if dg is None else dg,
        none.clone()
        if initial_state is None
        else outgoing[:, 0].contiguous().to(initial_state.dtype),
    )
