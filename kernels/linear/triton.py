"""The linear scan on a GPU: from tensors to the kernels, and back."""

from typing import Any

import torch
from torch import Tensor

from tristate.kernels.linear import triton_complex, triton_real
from tristate.kernels.linear.ops import empty_like
from tristate.kernels.triton.carry import hand_on
from tristate.kernels.triton.launch import launch
from tristate.kernels.triton.plan import Tiles, halves, narrowed, share_out
from tristate.kernels.triton.segments import earlier, marks
from tristate.kernels.triton.tune import tuned

_STEPS = 32


def _forward_plans(a: Tensor, b: Tensor, *_: object) -> tuple[Tiles, ...]:
    return _plans(32 if b.is_complex() else 64, b)


def _backward_plans(
    grad_h: Tensor, grad_last: Tensor, a: Tensor, h: Tensor, *_: object
) -> tuple[Tiles, ...]:
    return _plans(32, h)


def _plans(channels: int, x: Tensor) -> tuple[Tiles, ...]:
    tile = Tiles(_STEPS, channels, warps=channels // 8)
    return halves(narrowed(tile, x.shape[2]), "channels")


@tuned("linear_scan", _forward_plans)
def forward(
    tile: Tiles,
    a: Tensor,
    b: Tensor,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    """All states in the layout of ``b``, and the last one."""
    a, b = _plain(a), _plain(b)
    h = empty_like(b)
    grid, sizes = _work(tile, b)
    leaving = b.new_empty(b.shape[0], grid[1], b.shape[2])
    kernel = (triton_complex if b.is_complex() else triton_real).forward
    given = {
        "a": _pairs(a),
        "b": _pairs(b),
        "marks": marks(seq_idx, reverse),
        "leaving": _pairs(leaving),
        **sizes,
        **_strides("a", a),
        **_strides("b", b),
        **_strides("h", h),
        "REVERSE": reverse,
        "VARIES": a.dim() == 3,
    }
    entering = None if initial_state is None else _plain(initial_state)
    if grid[1] > 1:
        decays = torch.empty_like(leaving)
        launch(kernel, grid, **given, h=None, decays=_pairs(decays), entering=None)
        entering = hand_on(decays, leaving, entering)
    launch(
        kernel,
        grid,
        **given,
        h=_pairs(h),
        decays=None,
        entering=None if entering is None else _pairs(entering.contiguous()),
    )
    return h, leaving[:, -1].clone()


@tuned("linear_scan_backward", _backward_plans)
def backward(
    tile: Tiles,
    grad_h: Tensor,
    grad_last: Tensor,
    a: Tensor,
    h: Tensor,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of ``a``, ``b`` (in the layout of ``h``) and the initial state."""
    a, h, grad_h = _plain(a), _plain(h), _plain(grad_h)
    incoming = _plain(grad_last)
    db = empty_like(h)
    grid, sizes = _work(tile, h)
    outgoing = h.new_empty(h.shape[0], grid[1], h.shape[2])
    varies = a.dim() == 3
    da = empty_like(a) if varies else torch.empty_like(outgoing)
    kernel = (triton_complex if h.is_complex() else triton_real).backward
    given = {
        "grad": _pairs(grad_h),
        "a": _pairs(a),
        "h": _pairs(h),
        "marks": marks(seq_idx, reverse),
        "earlier": earlier(seq_idx, reverse),
        "initial": None if initial_state is None else _pairs(_plain(initial_state).contiguous()),
        "da": _pairs(da),
        "outgoing": _pairs(outgoing),
        **sizes,
        **_strides("grad", grad_h),
        **_strides("a", a),
        **_strides("h", h),
        **_strides("da", da if varies else a),
        **_strides("db", db),
        "REVERSE": reverse,
        "VARIES": varies,
    }
    if grid[1] > 1:
        decays = torch.empty_like(outgoing)
        launch(kernel, grid, **given, db=None, decays=_pairs(decays), incoming=None)
        incoming = hand_on(decays, outgoing, incoming, back=True)
    given |= {"db": _pairs(db), "decays": None, "incoming": _pairs(incoming.contiguous())}
    launch(kernel, grid, **given)
    return da if varies else da.sum((0, 1)), db, outgoing[:, 0].clone()


def _work(tile: Tiles, x: Tensor) -> tuple[tuple[int, int], dict[str, int]]:
    """The grid, and the sizes that both kernels take."""
    batch, length, dim = x.shape
    n_blocks = -(-dim // tile.channels)
    n_chunks, n_tiles = share_out(x, batch * n_blocks, -(-length // tile.steps))
    return (batch * n_blocks, n_chunks), {
        "length": length,
        "n_channels": dim,
        "n_blocks": n_blocks,
        "n_tiles": n_tiles,
        "BLOCK_D": tile.channels,
        "BLOCK_T": tile.steps,
        "num_warps": tile.warps,
    }


def _plain(x: Tensor) -> Tensor:
    """Without lazy conjugation and sign, which addresses don't tell."""
    return x.resolve_conj().resolve_neg()


def _pairs(x: Tensor) -> Tensor:
    """The memory of complex numbers as real ones."""
    return torch.view_as_real(x) if x.is_complex() else x


def _strides(name: str, x: Tensor) -> dict[str, Any]:
    """In numbers; of a constant decay, along the channels alone."""
    strides = (0, 0, x.stride(0)) if x.dim() == 1 else x.stride()
    return {f"{name}_{axis}": stride for axis, stride in zip("btd", strides, strict=True)}
