"""Hands the state on from piece to piece of sequences that several programs share."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from tristate.kernels.triton.launch import launch

_BLOCK = 128


@triton.jit
def carry(
    decays, ends, initial, entering, n_chunks, n_states, n_each,
    BACK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """``entering[k + 1] = decays[k] entering[k] + ends[k]``, from the last chunk where ``BACK``.

    A decay is that of ``n_each`` states side by side.

    COST: reads 2 and writes 1 number a state and chunk, or less where states share a decay: moves
    what it must.
    """
    batch = tl.program_id(1).to(tl.int64)
    state = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = state < n_states
    h = tl.zeros([BLOCK], tl.float32)
    if initial is not None:
        h = tl.load(initial + batch * n_states + state, mask=inside, other=0)
    for i in range(n_chunks):
        k = n_chunks - 1 - i if BACK else i
        here = (batch * n_chunks + k) * n_states + state
        tl.store(entering + here, h, mask=inside)
        h *= tl.load(decays + here // n_each, mask=inside, other=0)
        h += tl.load(ends + here, mask=inside, other=0)


@triton.jit
def complex_carry(
    decays, ends, initial, entering, n_chunks, n_states, BACK: tl.constexpr, BLOCK: tl.constexpr
):
    """:func:`carry` of complex numbers, as pairs.

    COST: reads 2 and writes 1 complex number a state and chunk; moves what it must.
    """
    batch = tl.program_id(1).to(tl.int64)
    state = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = state < n_states
    re, im = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    if initial is not None:
        first = 2 * (batch * n_states + state)
        re = tl.load(initial + first, mask=inside, other=0)
        im = tl.load(initial + first + 1, mask=inside, other=0)
    for i in range(n_chunks):
        k = n_chunks - 1 - i if BACK else i
        here = 2 * ((batch * n_chunks + k) * n_states + state)
        tl.store(entering + here, re, mask=inside)
        tl.store(entering + here + 1, im, mask=inside)
        x = tl.load(decays + here, mask=inside, other=0)
        y = tl.load(decays + here + 1, mask=inside, other=0)
        if BACK:
            y = -y
        re, im = (
            x * re - y * im + tl.load(ends + here, mask=inside, other=0),
            x * im + y * re + tl.load(ends + here + 1, mask=inside, other=0),
        )


def hand_on(decays: Tensor, ends: Tensor, initial: Tensor | None, back: bool = False) -> Tensor:
    """The state that enters each chunk, ``(B, chunks, ...)`` like what each does to it.

    Args:
        decays: by which number a chunk multiplies the state, dense, float32 or complex64; of real
            ones, last axes may lack: one is then that of all states there.
        ends: with which state it ends if it starts from zero.
        initial: what enters the first, ``(B, ...)``; zeros when absent.
        back: the last chunk is the first, and complex decays are conjugated.
    """
    entering = torch.empty_like(ends)
    if initial is not None:
        initial = initial.to(ends.dtype).resolve_conj().contiguous()
    batch, n_chunks = ends.shape[:2]
    n_states = ends[0, 0].numel()
    tensors: dict[str, Any] = {
        "decays": decays,
        "ends": ends,
        "initial": initial,
        "entering": entering,
    }
    if ends.is_complex():
        tensors = {k: None if x is None else torch.view_as_real(x) for k, x in tensors.items()}
    shared = {} if ends.is_complex() else {"n_each": n_states // max(1, decays[0, 0].numel())}
    launch(
        complex_carry if ends.is_complex() else carry,
        (-(-n_states // _BLOCK), batch),
        **tensors,
        **shared,
        n_chunks=n_chunks,
        n_states=n_states,
        BACK=back,
        BLOCK=_BLOCK,
    )
    return entering
