"""Linear attention on a GPU: from tensors to the kernels, and back."""

from dataclasses import dataclass
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

_STEPS = 16


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


def _forward_plans(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, a: Tensor | None, *_: object
) -> tuple[Tiles, ...]:
    return _plans(q, v, g, a)


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
    return _plans(q, v, g, a)


def _plans(q: Tensor, v: Tensor, g: Tensor | None, a: Tensor | None) -> tuple[Tiles, ...]:
    # Decays of each key, and what tokens find in the states before them, take registers.
    most = 64 if a is None and (g is None or g.dim() == 3) and _block_k(q) <= 64 else 32
    return narrower(Tiles(_STEPS, max(16, min(most, power_of_two(v.shape[3]))), warps=8))


def _block_k(q: Tensor) -> int:
    return max(16, power_of_two(q.shape[3]))


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
) -> _Work:
    batch, length, n_heads, d_key = q.shape
    d_value = v.shape[3]
    by_key = g is not None and g.dim() == 4
    n_blocks = -(-d_value // tile.channels)
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
        "n_blocks": n_blocks,
        # Known only when it runs: of what is counted the compiler would make one long program.
        "n_steps": tile.steps,
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
        "BLOCK_K": _block_k(q),
        "BLOCK_V": tile.channels,
        "BLOCK_T": tile.steps,
        "N_LEVELS": tile.steps.bit_length() - 1,
        "num_warps": tile.warps,
    }
    return _Work((batch * n_heads * n_blocks, n_chunks), n_parts, part, n_blocks, arguments)


def _sweep(work: _Work, grid: tuple[int, int] | None = None, **given: Any) -> None:
    """Run the forward kernel; what isn't given isn't there."""
    nothing = dict.fromkeys(("entering", "out", "decays", "kept"))
    launch(
        triton_forward.forward,
        grid or work.grid,
        **{**work.arguments, "n_tiles": work.parts * work.arguments["KEPT"], **nothing, **given},
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
    work = _work(tile, q, k, v, g, a, b, seq_idx, scale, reverse, before)
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
    work = _work(tile, q, k, v, g, a, b, seq_idx, scale, reverse, before)
    batch, _, n_heads, d_key = q.shape

    def shared(x: Tensor | None) -> Tensor | None:
        """Room for a gradient of which each block of value channels has a part."""
        dtype = x.dtype if x is not None and work.n_blocks == 1 else torch.float32
        return None if x is None else x.new_empty(work.n_blocks, *x.shape, dtype=dtype)

    dv = v.new_empty(v.shape)
    parts = {f"d{name}": shared(x) for name, x in zip("qkgab", (q, k, g, a, b), strict=True)}
    outgoing = kept.new_empty(batch, work.grid[1], n_heads, d_key, v.shape[3])
    room = work.grid[0] * work.grid[1], work.part, work.arguments["BLOCK_V"]
    given = {
        **work.arguments,
        **parts,
        "dv": dv,
        "grad": grad_out,
        "kept": kept,
        "known": kept.new_empty((0,) if a is None else room),
        "outgoing": outgoing,
        "n_parts": work.parts,
        **strides("grad", grad_out, "bthc"),
    }
    incoming = grad_last
    if work.grid[1] > 1:
        decays = _decays(work, outgoing)
        summary = {**given, "dq": None, "incoming": None, "decays": decays}
        launch(triton_backward.backward, work.grid, **summary)
        incoming = _handed_on(work, decays, outgoing, grad_last, back=True)
    incoming = None if incoming is None else incoming.float().contiguous()
    launch(triton_backward.backward, work.grid, **given, incoming=incoming, decays=None)

    def whole(name: str, x: Tensor | None) -> Tensor:
        """The sum of a gradient's parts."""
        found = parts[name]
        if x is None or found is None:
            return q.new_empty(0)
        return found[0] if len(found) == 1 else found.sum(0).to(x.dtype)

    return (
        whole("dq", q),
        whole("dk", k),
        dv,
        whole("dg", g),
        whole("da", a),
        whole("db", b),
        q.new_empty(0)
        if initial_state is None
        else outgoing[:, 0].contiguous().to(initial_state.dtype),
    )
