"""The gated delta rule on a CPU: from tensors to the compiled kernels."""

from typing import NamedTuple

import torch
from torch import Tensor

from tristate.kernels.cpu.memory import LINE, address, empty, scratch, segments, zeros
from tristate.kernels.cpu.runtime import Kernel, threads

TILE, KEPT = 16, 8
"""Tokens of a tile, and tiles between the states that the backward keeps for a while."""

_LANES = 16
_KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}

_forward = Kernel("tristate.kernels.delta.cpu_forward", "forward")
_values = Kernel("tristate.kernels.delta.cpu_values", "backward")
_keys = Kernel("tristate.kernels.delta.cpu_keys", "backward")


class _Inputs(NamedTuple):
    """The inputs as the kernels read them: sequences of one dtype, channels side by side."""

    q: Tensor
    k: Tensor
    v: Tensor
    beta: Tensor  # (B, n L, H, 1 or V), float32
    g: Tensor | None  # (B, L, H, 1 or K), float32
    initial_state: Tensor | None
    seq_idx: Tensor | None

    @property
    def n(self) -> int:
        """Steps of a token."""
        return self.k.shape[1] // self.q.shape[1]


def _readable(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    g: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
) -> _Inputs:
    if not q.dtype == k.dtype == v.dtype:
        q, k, v = q.float(), k.float(), v.float()
    return _Inputs(
        _side_by_side(q),
        _side_by_side(k),
        _side_by_side(v),
        _by_channel(beta),
        None if g is None else _by_channel(g),
        None if initial_state is None else initial_state.float().contiguous(),
        None if seq_idx is None else seq_idx.to(torch.int32).contiguous(),
    )


def _side_by_side(x: Tensor) -> Tensor:
    return x if x.stride(3) == 1 or x.shape[3] == 1 else x.contiguous()


def _by_channel(x: Tensor) -> Tensor:
    x = x.float()
    return _side_by_side(x) if x.dim() == 4 else x[..., None]


def _span(x: Tensor | None, length: int, reverse: bool) -> tuple[int, int, int, int, int]:
    """Address of the token that is read first; strides of batch, head, token and step, in bytes."""
    if x is None:
        return 0, 0, 0, 0, 0
    size = x.element_size()
    step_b, step, step_h, _ = (size * s for s in x.stride())
    token = step * (x.shape[1] // length)
    start = x.data_ptr()
    if reverse:
        start, token = start + token * (length - 1), -token
    return start, step_b, step_h, token, step


class _Work(NamedTuple):
    """How a kernel's work is shared out, and how large it is."""

    n_tasks: int
    kind: int
    batch: int
    heads: int
    n_splits: int
    length: int
    n: int
    d_key: int
    d_value: int

    @property
    def n_tiles(self) -> int:
        return -(-self.length // TILE)


def _work(x: _Inputs, n_channels: int) -> _Work:
    """A task takes heads, or parts of them: blocks of these channels."""
    batch, length, heads, d_key = x.q.shape
    d_value = x.v.shape[3]
    n_items, n_blocks = batch * heads, -(-n_channels // _LANES)
    # Waking a thread costs as much as some 50,000 numbers of a state.
    n_tasks = threads(min(n_items * n_blocks, 1 + x.k.numel() * d_value // 50_000))
    even = n_items % n_tasks == 0 or n_items >= 4 * n_tasks
    n_splits = 1 if even else min(n_tasks, n_blocks)
    n_tasks = min(n_tasks, n_items * n_splits)
    kind = _KINDS[x.q.dtype]
    return _Work(n_tasks, kind, batch, heads, n_splits, length, x.n, d_key, d_value)


def _rows(n: int) -> int:
    """Vectors of a line of ``n`` channels."""
    return -(-n // _LANES)


def _key_rows(work: _Work) -> int:
    """Vectors of a tile's positions and lines of keys."""
    return 16 + 2 * (TILE * (work.n + 1) + 1) * _rows(work.d_key)


def forward(
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
    """Output, last state, and with ``keep`` each step's ``v - k^T S`` before its correction."""
    x = _readable(q, k, v, beta, g, initial_state, seq_idx)
    work = _work(x, v.shape[3])
    batch, length, heads, d_key = q.shape
    d_value = v.shape[3]
    # Padding is passed over.
    new = empty if seq_idx is None else zeros
    out = new(batch, length, heads, d_value, dtype=x.v.dtype)
    errors = new(v.shape if keep else 0)
    last = empty(batch, heads, d_key, d_value)
    factor = torch.tensor([scale], dtype=torch.float32, device="cpu")
    n_rows = _key_rows(work) + TILE * (2 * work.n + 1) + (d_key + 1) * _rows(d_value)
    memory, *where = scratch(work.n_tasks, LINE * n_rows)
    _forward(
        work.n_tasks,
        *work,
        *_span(x.q, length, reverse),
        *_span(x.k, length, reverse),
        *_span(x.v, length, reverse),
        *_span(x.beta, length, reverse),
        int(beta.dim() == 4),
        *_span(x.g, length, reverse),
        int(g is not None and g.dim() == 4),
        factor.data_ptr(),
        *_span(out, length, reverse),
        *_span(errors if keep else None, length, reverse),
        address(x.initial_state),
        last.data_ptr(),
        *segments(x.seq_idx, reverse),
        *where,
    )
    del memory
    return out.to(v.dtype), last, errors


def backward(
    grad_out: Tensor,
    grad_last: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    g: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    errors: Tensor,
    scale: float,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of ``q, k, v, beta, g, initial_state``, in their dtypes; empty if absent."""
    x = _readable(q, k, v, beta, g, initial_state, seq_idx)
    length, n = q.shape[1], x.n
    batch, _, heads, d_key = q.shape
    d_value = v.shape[3]
    new = empty if seq_idx is None else zeros  # padding is passed over
    grad_out = _side_by_side(grad_out.to(x.q.dtype))
    grad_last = None if grad_last is None else grad_last.float().contiguous()
    by_value, by_key = beta.dim() == 4, g is not None and g.dim() == 4
    factor = torch.tensor([scale], dtype=torch.float32, device="cpu")
    common = (
        *_span(x.q, length, reverse),
        *_span(x.k, length, reverse),
        *_span(grad_out, length, reverse),
        *_span(x.beta, length, reverse),
        int(by_value),
        *_span(x.g, length, reverse),
        int(by_key),
        factor.data_ptr(),
        *_span(errors, length, reverse),
    )

    work = _work(x, d_value)
    dv = new(v.shape)
    dbeta = new((1 if by_value else work.n_splits, *x.beta.shape))
    dinitial = empty(batch, heads, d_key, d_value)
    n_rows = _key_rows(work) + TILE * (3 * n + 1) + (d_key + 1) * _rows(d_value)
    memory, *where = scratch(work.n_tasks, LINE * (n_rows + work.n_tiles // _LANES))
    _values(
        work.n_tasks,
        *work,
        *common,
        *_span(dv, length, reverse),
        *_span(dbeta[0], length, reverse),
        4 * x.beta.numel(),
        address(grad_last),
        dinitial.data_ptr(),
        *segments(x.seq_idx, reverse),
        *where,
    )

    work = _work(x, d_key)
    dq, dk = (new(t.shape) for t in (q, k))
    dg = None
    if x.g is not None:
        dg = new((1 if by_key else work.n_splits, *x.g.shape))
    n_rows = _key_rows(work) + TILE * (2 * n + 1) * _rows(d_value) + TILE * (2 * n + 2)
    n_kept = -(-work.n_tiles // KEPT) if g is not None else 0
    n_rows += ((d_value + 1) * (1 + n_kept) + 1) * _rows(d_key)
    memory, *where = scratch(work.n_tasks, LINE * (n_rows + work.n_tiles // _LANES))
    _keys(
        work.n_tasks,
        *work,
        *common,
        *_span(dv, length, reverse),
        *_span(dq, length, reverse),
        *_span(dk, length, reverse),
        *_span(None if dg is None else dg[0], length, reverse),
        0 if x.g is None else 4 * x.g.numel(),
        address(x.initial_state),
        address(grad_last),
        *segments(x.seq_idx, reverse),
        *where,
    )
    del memory
    return (
        dq.to(q.dtype),
        dk.to(k.dtype),
        dv.to(v.dtype),
        dbeta.sum(0).view(beta.shape).to(beta.dtype),
        q.new_empty(0) if g is None or dg is None else dg.sum(0).view(g.shape).to(g.dtype),
        q.new_empty(0) if initial_state is None else dinitial.to(initial_state.dtype),
    )
