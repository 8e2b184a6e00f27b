"""The causal convolution on a GPU: from tensors to the kernels, and back."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from tristate.kernels.conv import triton_kernels
from tristate.kernels.layout import empty_like_rows
from tristate.kernels.triton.launch import launch, strides
from tristate.kernels.triton.plan import Tiles, halves, narrowed, power_of_two
from tristate.kernels.triton.tune import tuned

_STEPS, _TILES = 32, 8


def _forward_plans(x: Tensor, *_: object) -> tuple[Tiles, ...]:
    return halves(narrowed(Tiles(_STEPS, 64, warps=4), x.shape[1]), "channels")


def _backward_plans(
    grad_out: Tensor, grad_state: Tensor, x: Tensor, *_: object
) -> tuple[Tiles, ...]:
    return halves(narrowed(Tiles(_STEPS, 32, warps=8), x.shape[1]), "channels")


@tuned("causal_conv1d", _forward_plans)
def forward(
    tile: Tiles,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    seq_idx: Tensor | None,
    initial_states: Tensor | None,
    silu: bool,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    """Output in the layout and dtype of ``x``, and last state in float32."""
    batch, dim, length = x.shape
    width = weight.shape[1]
    places = None if seq_idx is None else _places(seq_idx, width, reverse)
    states = None if initial_states is None else _dense(initial_states)
    out = empty_like_rows(x)
    n_blocks, n_tiles = -(-dim // tile.channels), -(-length // tile.steps)
    launch(
        triton_kernels.forward,
        (batch * n_blocks * n_tiles,),
        x=x,
        weight=_dense(weight),
        bias=None if bias is None else _dense(bias),
        table=None if places is None else places[:width, :, width - 1 :].contiguous(),
        states=states,
        out=out,
        n_channels=dim,
        length=length,
        n_blocks=n_blocks,
        n_tiles=n_tiles,
        **strides("x", x, "bdt"),
        **strides("out", out, "bdt"),
        SILU=silu,
        REVERSE=reverse,
        WIDTH=width,
        BLOCK_D=tile.channels,
        BLOCK_T=tile.steps,
        num_warps=tile.warps,
    )
    before = x.new_zeros(batch, dim, width - 1, dtype=torch.float32) if states is None else states
    values = x.flip(2) if reverse else x
    if seq_idx is None:
        last = torch.cat([before, values[:, :, -(width - 1) :].float()], 2)[:, :, 1 - width :]
        return out, last.contiguous()
    return out, _last_state(values, before, _newest(seq_idx, width, reverse))


@tuned("causal_conv1d_backward", _backward_plans)
def backward(
    tile: Tiles,
    grad_out: Tensor,
    grad_state: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    seq_idx: Tensor | None,
    initial_states: Tensor | None,
    silu: bool,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of ``x`` (in its layout), ``weight``, ``bias`` and the initial state."""
    batch, dim, length = x.shape
    width = weight.shape[1]
    n_blocks = -(-dim // tile.channels)
    n_tiles = -(-(length + width - 1) // tile.steps)
    n_chunks = -(-n_tiles // _TILES)
    dx = empty_like_rows(x)
    dstates = x.new_empty(batch, dim, width - 1, dtype=torch.float32)
    dweight = x.new_empty(batch, n_chunks, dim, width, dtype=torch.float32)
    dbias = x.new_empty(batch, n_chunks, dim, dtype=torch.float32)
    launch(
        triton_kernels.backward,
        (batch * n_blocks, n_chunks),
        grad_out=grad_out,
        grad_state=_dense(grad_state),
        x=x,
        weight=_dense(weight),
        bias=None if bias is None else _dense(bias),
        table=None if seq_idx is None else _places(seq_idx, width, reverse),
        slots=None if seq_idx is None else _slots(seq_idx, width, reverse),
        states=None if initial_states is None else _dense(initial_states),
        dx=dx,
        dstates=dstates,
        dweight=dweight,
        dbias=dbias,
        n_channels=dim,
        length=length,
        n_blocks=n_blocks,
        n_tiles=-(-n_tiles // n_chunks),
        **strides("grad", grad_out, "bdt"),
        **strides("x", x, "bdt"),
        **strides("dx", dx, "bdt"),
        SILU=silu,
        REVERSE=reverse,
        WIDTH=width,
        BLOCK_D=tile.channels,
        BLOCK_T=tile.steps,
        num_warps=tile.warps,
    )
    return (
        dx,
        dweight.sum((0, 1)).to(weight.dtype),
        dbias.sum((0, 1)).to(weight.dtype if bias is None else bias.dtype),
        dstates if initial_states is None else dstates.to(initial_states.dtype),
    )


def causal_conv1d_update(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    silu: bool,
    cache_seqlens: Tensor | None,
) -> Tensor:
    """What the reference of this name computes; ``conv_state`` is written in place."""
    batch, dim, n_steps = x.shape
    n_slots = conv_state.shape[2]
    out = torch.empty_like(x)
    block_d = min(256, power_of_two(dim))
    launch(
        triton_kernels.update,
        (batch, -(-dim // block_d)),
        x=x,
        state=conv_state,
        weight=weight,
        bias=bias,
        seen=cache_seqlens,
        out=out,
        n_channels=dim,
        n_steps=n_steps,
        n_slots=n_slots,
        **strides("x", x, "bdt"),
        state_b=conv_state.stride(0),
        state_d=conv_state.stride(1),
        state_s=conv_state.stride(2),
        weight_d=weight.stride(0),
        weight_k=weight.stride(1),
        **strides("out", out, "bdt"),
        SILU=silu,
        WIDTH=weight.shape[1],
        BLOCK_D=block_d,
        BLOCK_S=power_of_two(n_slots),
    )
    return out


def _dense(x: Tensor) -> Tensor:
    return x.float().contiguous()


def _stream(seq_idx: Tensor, width: int, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Initial state and real positions side by side, in the order in which they are read.

    Returns:
        The position of each, ``(B, W - 1 + L)``, with padding at the end; the segment of each; and
        how many are real, ``(B, 1)``.
    """
    segment = seq_idx.flip(1) if reverse else seq_idx
    real = segment >= 0
    n_real = real.sum(1, keepdim=True)
    order = real.logical_not().to(torch.uint8).argsort(dim=1, stable=True)
    packed = segment.gather(1, order)
    changes = (packed[:, 1:] != packed[:, :-1]).long().cumsum(1)
    # The state belongs to the first segment, whose number is 0.
    number = pad(changes, (width, 0))
    state = torch.arange(1 - width, 0, device=seq_idx.device).expand(seq_idx.shape[0], -1)
    return torch.cat([state, order], 1), number, n_real


def _places(seq_idx: Tensor, width: int, reverse: bool) -> Tensor:
    """The positions up to ``W - 1`` before and behind each, ``(2 W - 1, B, W - 1 + L)`` int32.

    Of those before the first the state's; below them where there is none, and around padding.
    """
    place, number, n_real = _stream(seq_idx, width, reverse)
    n_rows = place.shape[1]
    rank = torch.arange(n_rows, device=place.device)
    is_real = rank < n_real + (width - 1)
    found = []
    for offset in range(1 - width, width):
        other = (rank + offset).clamp(0, n_rows - 1)
        inside = (rank + offset == other) & is_real & is_real[:, other]
        same = inside & (number[:, other] == number)
        found.append(torch.where(same, place[:, other], -width))
    by_rank = torch.stack(found)
    # Back to where each position is.
    row = (place + (width - 1)).expand_as(by_rank)
    return torch.empty_like(by_rank).scatter(2, row, by_rank).int()


def _newest(seq_idx: Tensor, width: int, reverse: bool) -> Tensor:
    """The positions whose inputs make the last state, ``(B, W - 1)``, the newest last."""
    place, number, n_real = _stream(seq_idx, width, reverse)
    rank = n_real + torch.arange(width - 1, device=place.device)
    newest = number.gather(1, rank[:, -1:])
    return torch.where(number.gather(1, rank) == newest, place.gather(1, rank), -width)


def _last_state(values: Tensor, before: Tensor, newest: Tensor) -> Tensor:
    width = before.shape[2] + 1
    shape = before.shape
    inputs = values.gather(2, newest.clamp(min=0)[:, None].expand(shape)).float()
    kept = before.gather(2, (newest + (width - 1)).clamp(0, width - 2)[:, None].expand(shape))
    newest = newest[:, None]
    return torch.where(newest >= 0, inputs, torch.where(newest > -width, kept, 0))


def _slots(seq_idx: Tensor, width: int, reverse: bool) -> Tensor:
    """Where each position's input stands in the last state, ``(B, W - 1 + L)`` int32, or -1."""
    newest = _newest(seq_idx, width, reverse)
    batch, length = seq_idx.shape
    # One row more, for those that stand nowhere.
    slots = torch.full((batch, length + width), -1, device=seq_idx.device)
    row = torch.where(newest > -width, newest + (width - 1), length + width - 1)
    slot = torch.arange(width - 1, device=seq_idx.device).expand(batch, -1)
    return slots.scatter(1, row, slot)[:, :-1].int().contiguous()
