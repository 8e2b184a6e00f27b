"""The selective scan on a CPU for complex ``A``, a tile of time at once in PyTorch.

Decays and inputs of a tile are made together, the recurrence is a loop over its positions. The
states before each tile are kept; the backward runs a tile again from there. What is made of shape
``(tile, B, D, N)`` grows with the tile's length, not with the sequence's.

Gradients are of PyTorch's convention: for ``y = f(x)`` holomorphic, that of ``x`` is that of ``y``
times the conjugate of ``f'(x)``.
"""

from typing import NamedTuple

import torch
from torch import Tensor, sigmoid
from torch.nn.functional import silu, softplus

from tristate.kernels.cpu.memory import empty, zeros
from tristate.kernels.layout import empty_like_rows
from tristate.kernels.selective.ops import TILE, checkpoint_shape, empty_like_weight


class _Inputs(NamedTuple):
    """The inputs, parameters and sequences."""

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    delta_bias: Tensor | None
    initial_state: Tensor | None
    seq_idx: Tensor | None


class _Tile(NamedTuple):
    """One tile, ``(T, B, D)`` or ``(T, B, D, N)``, in the order in which it is read."""

    u: Tensor
    raw: Tensor  # step sizes before softplus
    dt: Tensor
    decay: Tensor  # 0 where a segment starts, 1 at padding
    enters: Tensor  # dt * u, 0 at padding
    B: Tensor
    C: Tensor
    real: Tensor  # (T, B, 1), 1 or 0
    flows: Tensor  # 0 where the decay doesn't depend on dt and A


def forward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    delta_softplus: bool,
    reverse: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Output in the layout of ``u``, last state, and with ``keep`` the states before each tile."""
    x = _Inputs(u, delta, A, B, C, D, z, delta_bias, initial_state, seq_idx)
    out = empty_like_rows(u)
    state = A.new_zeros(u.shape[0], u.shape[1], A.shape[1], dtype=torch.complex64)
    if initial_state is not None:
        state = state + initial_state
    checkpoints = state.new_empty(checkpoint_shape(u, A, B, C) if keep else (0,))
    fresh = _fresh(x, reverse)
    for k, piece in enumerate(_pieces(u.shape[2], reverse)):
        if keep:
            checkpoints[:, k, 0] = state.transpose(1, 2)
        tile = _prepare(x, piece, fresh, delta_softplus, reverse)
        states = _states(tile, state)
        state = states[-1]
        y = _output(x, tile, states)
        if z is not None:
            y = y * silu(_read(z, piece, reverse))
        _write(out, piece, y * tile.real, reverse)
    return out, state.clone(), checkpoints


def backward(
    grad_out: Tensor,
    grad_last: Tensor | None,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    checkpoints: Tensor,
    delta_softplus: bool,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the first nine inputs; empty where an optional one is absent."""
    x = _Inputs(u, delta, A, B, C, D, z, delta_bias, initial_state, seq_idx)
    du, ddelta = empty_like_rows(u), empty_like_rows(delta)
    dz = u.new_empty(0) if z is None else empty_like_rows(z)
    dB, dC = (empty_like_weight(w).zero_() for w in (B, C))
    dA = zeros(A.shape, dtype=torch.complex64)
    dD, dbias = zeros(2, A.shape[0])
    dh = checkpoints.new_zeros(u.shape[0], u.shape[1], A.shape[1])
    if grad_last is not None:
        dh = dh + grad_last
    fresh = _fresh(x, reverse)
    for k, piece in reversed([*enumerate(_pieces(u.shape[2], reverse))]):
        tile = _prepare(x, piece, fresh, delta_softplus, reverse)
        before = checkpoints[:, k, 0].transpose(1, 2)
        states = _states(tile, before)
        grad = _read(grad_out, piece, reverse) * tile.real
        if z is not None:
            gate = _read(z, piece, reverse)
            s = sigmoid(gate)
            slope = s * (1 + gate * (1 - s))
            _write(dz, piece, grad * _output(x, tile, states) * slope, reverse)
            grad = grad * gate * s

        leaving = 2 * grad[..., None]  # of each state's real part
        dstates = torch.empty_like(states)
        for t in reversed(range(states.shape[0])):
            dh = dh + leaving[t] * tile.C[t].conj_physical()
            dstates[t] = dh
            dh = dh * tile.decay[t].conj_physical()
        shifted = torch.cat([before[None], states[:-1]])
        through = dstates * (tile.decay * shifted).conj_physical() * tile.flows[..., None]
        dx = (dstates * tile.B.conj_physical()).sum(3).real * tile.real  # of dt * u
        ddt = (through * A.conj_physical()).sum(3).real + dx * tile.u
        if delta_softplus:
            ddt = ddt * sigmoid(tile.raw)
        dA += (through * tile.dt[..., None]).sum((0, 1))
        dD += (grad * tile.u).sum((0, 1))
        dbias += ddt.sum((0, 1))
        _write(ddelta, piece, ddt, reverse)
        _write(du, piece, dx * tile.dt + (0 if D is None else grad * D.float()), reverse)
        _add_weight(dB, piece, dstates * tile.enters[..., None], reverse)
        _add_weight(dC, piece, leaving * states.conj_physical(), reverse)
    return (
        du,
        ddelta,
        dA.to(A.dtype),
        dB,
        dC,
        u.new_empty(0) if D is None else dD.to(D.dtype, copy=True),
        dz,
        u.new_empty(0) if delta_bias is None else dbias.to(delta_bias.dtype, copy=True),
        u.new_empty(0) if initial_state is None else dh.to(initial_state.dtype),
    )


def _prepare(
    x: _Inputs, piece: slice, fresh: tuple[Tensor, Tensor], with_softplus: bool, reverse: bool
) -> _Tile:
    u, dt = _read(x.u, piece, reverse), _read(x.delta, piece, reverse)
    if x.delta_bias is not None:
        dt = dt + x.delta_bias.float()
    raw, dt = dt, softplus(dt) if with_softplus else dt
    starts, real = (_read(flag[:, None], piece, reverse) for flag in fresh)  # (T, B, 1)
    decay = torch.exp(dt[..., None] * x.A.to(torch.complex64))
    decay = torch.where(real[..., None] > 0, decay * (1 - starts[..., None]), 1)
    n_channels = u.shape[2]
    return _Tile(
        u,
        raw,
        dt,
        decay,
        dt * u * real,
        _read_weight(x.B, piece, n_channels, reverse),
        _read_weight(x.C, piece, n_channels, reverse),
        real,
        (real * (1 - starts)).expand_as(u),
    )


def _states(tile: _Tile, state: Tensor) -> Tensor:
    """The state after each position, ``(T, B, D, N)``."""
    states = tile.enters[..., None] * tile.B
    for t in range(states.shape[0]):
        state = torch.addcmul(states[t], tile.decay[t], state)
        states[t] = state
    return states


def _output(x: _Inputs, tile: _Tile, states: Tensor) -> Tensor:
    """``(T, B, D)``, before the gate."""
    y = 2 * (states * tile.C).sum(3).real
    return y if x.D is None else y + tile.u * x.D.float()


def _pieces(length: int, reverse: bool) -> list[slice]:
    """The tiles in the order in which they are read."""
    if reverse:
        return [slice(max(end - TILE, 0), end) for end in range(length, 0, -TILE)]
    return [slice(first, min(first + TILE, length)) for first in range(0, length, TILE)]


def _fresh(x: _Inputs, reverse: bool) -> tuple[Tensor, Tensor]:
    """Where segments start but for the first, and which positions are real; ``(B, L)``, 1 or 0."""
    batch, _, length = x.u.shape
    if x.seq_idx is None:
        return zeros(batch, length), empty(batch, length).fill_(1)
    seq = x.seq_idx.flip(1) if reverse else x.seq_idx
    real = seq >= 0
    last = torch.where(real, torch.arange(length, device="cpu"), -1).cummax(1).values
    before = torch.cat([last.new_full((batch, 1), -1), last[:, :-1]], 1)
    starts = real & (before >= 0) & (seq.gather(1, before.clamp(min=0)) != seq)
    flags = starts.float(), real.float()
    return (flags[0].flip(1), flags[1].flip(1)) if reverse else flags


def _read(x: Tensor, piece: slice, reverse: bool) -> Tensor:
    rows = x[:, :, piece].movedim(2, 0).float()
    return rows.flip(0) if reverse else rows


def _write(target: Tensor, piece: slice, rows: Tensor, reverse: bool) -> None:
    target[:, :, piece] = (rows.flip(0) if reverse else rows).movedim(0, 2)


def _read_weight(weight: Tensor, piece: slice, n_channels: int, reverse: bool) -> Tensor:
    """B or C at a tile's positions, ``(T, B, D, N)``."""
    if weight.dim() == 2:
        length = piece.stop - piece.start
        return weight.to(torch.complex64).expand(length, 1, *weight.shape)
    pairs = weight if weight.dim() == 4 else weight[:, None]
    pairs = pairs[..., 2 * piece.start : 2 * piece.stop].float().unflatten(3, (-1, 2))
    rows = torch.view_as_complex(pairs.contiguous()).movedim(3, 0)  # (T, B, G, N)
    rows = rows.flip(0) if reverse else rows
    return rows.repeat_interleave(n_channels // rows.shape[2], 2)


def _add_weight(total: Tensor, piece: slice, rows: Tensor, reverse: bool) -> None:
    """Add the gradients at a tile's positions ``(T, B, D, N)`` to those of B or C."""
    if total.dim() == 2:
        total += rows.sum((0, 1))
        return
    n_groups = total.shape[1] if total.dim() == 4 else 1
    rows = (rows.flip(0) if reverse else rows).unflatten(2, (n_groups, -1)).sum(3)
    pairs = torch.view_as_real(rows.movedim(0, 3)).flatten(3)  # (B, G, N, 2 T)
    part = total[..., 2 * piece.start : 2 * piece.stop]
    part += pairs if total.dim() == 4 else pairs[:, 0]
