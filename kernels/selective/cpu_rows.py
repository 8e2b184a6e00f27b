"""The selective scan on a CPU: from tensors to what the compiled kernels are told, a row a scan."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tristate.kernels.cpu import memory
from tristate.kernels.cpu.memory import LINE, address, empty, segments, span, zeros
from tristate.kernels.cpu.runtime import threads
from tristate.kernels.selective.ops import (
    LANES,
    SHORT_TILE,
    TILE,
    empty_like_weight,
    states_innermost,
)

SLAB, SLAB_BACK = 12, 6
"""Blocks of 16 channels that the kernels for one state take through a tile together, and back."""

_KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}


class Sizes(NamedTuple):
    """What both kernels are told about the work."""

    n_tasks: int
    kind: int
    batch: int
    n_splits: int
    n_groups: int
    group_size: int
    length: int
    n_states: int

    @property
    def n_blocks(self) -> int:
        """Blocks of 16 channels."""
        return self.n_groups * -(-self.group_size // LANES)

    @property
    def n_tiles(self) -> int:
        """Tiles of time."""
        return -(-self.length // TILE)


class Route(NamedTuple):
    """The order in which positions are read; with a height, down the columns of so many rows."""

    reverse: bool
    height: int = 0


class Inputs(NamedTuple):
    """The inputs as the kernels read them: parameters plain float32, sequences of one dtype."""

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


class Gradients(NamedTuple):
    """Where gradients go: of parameters by each task, of ``B`` and ``C`` by each split.

    Those of ``u``, ``delta`` and ``z`` are added to what lies there where ``adds`` says so.
    """

    u: Tensor
    delta: Tensor
    z: Tensor | None
    A: Tensor
    B: Tensor  # (splits, B, G, N, L)
    C: Tensor
    B_constant: Tensor
    C_constant: Tensor
    D: Tensor
    delta_bias: Tensor
    adds: tuple[bool, bool, bool]


def sizes(u: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Sizes:
    """How the work of one scan is shared out."""
    batch, dim, length = u.shape
    n_states = A.shape[1]
    # A constant weight has a value for each channel: it suits any number of groups.
    n_groups = max(_groups(B), _groups(C))
    n_blocks = n_groups * -(-(dim // n_groups) // LANES)
    # Waking a thread costs as much as some 50,000 states.
    n_tasks = threads(min(batch * n_blocks, 1 + u.numel() * n_states // 50_000))
    # Whole sequences where they share out evenly, else a part of the channels of each.
    even = batch % n_tasks == 0 or batch >= 4 * n_tasks
    n_splits = 1 if even else min(n_tasks, n_blocks)
    n_tasks = min(n_tasks, batch * n_splits)
    kind = _KINDS[u.dtype]
    return Sizes(n_tasks, kind, batch, n_splits, n_groups, dim // n_groups, length, n_states)


def has_one_state(x: Inputs, *written: Tensor | None) -> bool:
    """Whether :mod:`tristate.kernels.selective.cpu_one_state` can do it."""
    n_groups = max(_groups(x.B), _groups(x.C))
    return (
        x.A.shape[1] == 1
        and x.B.dim() > 2
        and x.C.dim() > 2
        and x.seq_idx is None
        and x.u.shape[1] // n_groups % LANES == 0
        and all(t is None or t.stride(1) == 1 for t in (x.u, x.delta, x.z, *written))
    )


def forward_row(
    x: Inputs,
    work: Sizes,
    route: Route,
    out: Tensor,
    last: Tensor | None,
    checkpoints: Tensor | None,
    delta_softplus: bool,
    scratch: Sequence[int],
    *,
    adds: bool = False,
) -> tuple[int, ...]:
    """The forward kernel's arguments; with ``adds`` it starts from what lies in ``out``."""
    reverse = route.reverse
    return (
        *work,
        route.height,
        *_span(x.u, reverse),
        *_span(x.delta, reverse),
        *_span(x.z, reverse),
        *_span(out, reverse),
        _KINDS[out.dtype],
        int(adds),
        x.A.data_ptr(),
        *_weight_span(x.B, reverse),
        *_weight_span(x.C, reverse),
        _constant(x.B),
        _constant(x.C),
        address(x.D),
        address(x.delta_bias),
        int(delta_softplus),
        address(x.initial_state),
        address(last),
        *segments(x.seq_idx, reverse),
        address(checkpoints),
        *scratch,
    )


def backward_row(
    x: Inputs,
    work: Sizes,
    route: Route,
    grad_out: Tensor,
    grad_last: Tensor | None,
    grads: Gradients,
    grad_initial: Tensor | None,
    checkpoints: Tensor,
    delta_softplus: bool,
    scratch: Sequence[int],
) -> tuple[int, ...]:
    """The backward kernel's arguments."""
    reverse = route.reverse
    written: list[int] = []
    for x_grad, adds in zip((grads.u, grads.delta, grads.z), grads.adds, strict=True):
        kind = 0 if x_grad is None else _KINDS[x_grad.dtype]
        written += [*_span(x_grad, reverse), kind, int(adds)]
    return (
        *work,
        route.height,
        *_span(x.u, reverse),
        *_span(x.delta, reverse),
        *_span(x.z, reverse),
        *_span(grad_out, reverse),
        *written,
        x.A.data_ptr(),
        *_weight_span(x.B, reverse),
        *_weight_span(x.C, reverse),
        *_weight_span(grads.B[0], reverse),
        *_weight_span(grads.C[0], reverse),
        _constant(x.B),
        _constant(x.C),
        4 * work.batch * work.n_groups * work.n_states * work.length,
        address(x.D),
        address(x.delta_bias),
        int(delta_softplus),
        address(grad_initial),
        address(grad_last),
        *segments(x.seq_idx, reverse),
        checkpoints.data_ptr(),
        grads.A.data_ptr(),
        grads.B_constant.data_ptr(),
        grads.C_constant.data_ptr(),
        grads.D.data_ptr(),
        grads.delta_bias.data_ptr(),
        *scratch,
    )


def forward_scratch(work: Sizes) -> tuple[Tensor, int, int]:
    """Working memory of the forward kernel, as :func:`tristate.kernels.cpu.memory.scratch` says."""
    n_states, n_blocks = work.n_states, work.n_blocks
    rows = 5 * (TILE + 3) + 4 * TILE * n_states // LANES + (4 * n_states + 4) * n_blocks + 8
    if n_states == 1:
        rows += 3 * SHORT_TILE * SLAB
    return memory.scratch(work.n_tasks, LINE * rows)


def backward_scratch(work: Sizes) -> tuple[Tensor, int, int]:
    """The same for the backward kernel."""
    n_states, n_blocks = work.n_states, work.n_blocks
    rows = 12 * (TILE + 3) + 2 * n_states * (TILE + 3) + 4 * TILE * n_states // LANES
    rows += (7 * n_states + 4) * n_blocks + work.n_tiles // LANES + 16
    if n_states == 1:
        rows += 6 * SHORT_TILE * SLAB_BACK
    return memory.scratch(work.n_tasks, LINE * rows)


def room(
    x: Inputs,
    work: Sizes,
    du: Tensor,
    ddelta: Tensor,
    dz: Tensor | None,
    adds: tuple[bool, bool, bool] = (False, False, False),
) -> Gradients:
    """Room for gradients: the given tensors, and new ones for those that tasks or splits share."""
    n_tasks, n_states = work.n_tasks, work.n_states
    dim = x.A.shape[0]
    padded = x.seq_idx is not None
    # The kernel for constant weights writes both.
    fixed = (n_tasks, dim, n_states if x.B.dim() == 2 or x.C.dim() == 2 else 0)
    return Gradients(
        du,
        ddelta,
        dz,
        empty(n_tasks, dim, n_states),
        _weight_parts(x.B, work, padded),
        _weight_parts(x.C, work, padded),
        empty(fixed),
        empty(fixed),
        empty(n_tasks, dim),
        empty(n_tasks, dim),
        adds,
    )


def of_parameters(x: Inputs, grads: Gradients) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of ``A, B, C, D, delta_bias``, summed over tasks and splits, in float32."""
    parts = (grads.A, grads.B_constant, grads.C_constant, grads.D, grads.delta_bias)
    dA, dB, dC, dD, dbias = (g.sum(0) if g.shape[0] > 1 else g[0] for g in parts)
    dB = dB if x.B.dim() == 2 else _like_weight(grads.B, x.B)
    dC = dC if x.C.dim() == 2 else _like_weight(grads.C, x.C)
    return dA, dB, dC, dD, dbias


def _weight_parts(weight: Tensor, work: Sizes, padded: bool) -> Tensor:
    if weight.dim() == 2:
        return weight.new_empty(1, 0, 0)
    # Each split writes its channels' groups only, and nothing is written at padding.
    new = zeros if padded or work.n_splits > 1 else empty
    outer = (work.n_splits, work.batch, work.n_groups)
    if states_innermost(weight):
        return new(*outer, work.length, work.n_states).transpose(3, 4)
    return new(*outer, work.n_states, work.length)


def _like_weight(parts: Tensor, weight: Tensor) -> Tensor:
    """The sum over splits, in the shape and layout of B or C."""
    if parts.shape[0] == 1 and parts.shape[2] == _groups(weight):
        return parts[0] if weight.dim() == 4 else parts[0, :, 0]
    grad = parts.sum(0)  # (B, G, N, L)
    if _groups(weight) != grad.shape[1]:
        grad = grad.sum(1, keepdim=True)
    return empty_like_weight(weight).copy_(grad if weight.dim() == 4 else grad[:, 0])


def plain(x: Tensor) -> Tensor:
    """As parameters are read: float32, dense."""
    return x.float().contiguous()


def _groups(weight: Tensor) -> int:
    return weight.shape[1] if weight.dim() == 4 else 1


def _span(x: Tensor | None, reverse: bool) -> tuple[int, ...]:
    return (0,) * 4 if x is None else span(x, 2, reverse)


def _weight_span(weight: Tensor, reverse: bool) -> tuple[int, ...]:
    """The span of ``(B, N, L)`` or ``(B, G, N, L)``, with a group's stride; zeros if constant."""
    if weight.dim() == 2:
        return (0,) * 5
    start, *outer, step_n, step_t = span(weight, -1, reverse)
    # One group is read by every block of channels.
    return start, *(outer if len(outer) == 2 else (*outer, 0)), step_n, step_t


def _constant(weight: Tensor) -> int:
    return weight.data_ptr() if weight.dim() == 2 else 0
