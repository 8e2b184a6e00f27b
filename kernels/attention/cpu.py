"""Linear attention on a CPU: from tensors to the compiled kernels."""

from typing import NamedTuple

import torch
from torch import Tensor

from tristate.kernels.cpu.memory import LINE, address, empty, scratch, segments, span, zeros
from tristate.kernels.cpu.runtime import Kernel, threads
from tristate.kernels.delta.cpu import KEPT, TILE

_LANES = 16
_KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}

_forward = Kernel("tristate.kernels.attention.cpu_forward", "forward")
_values = Kernel("tristate.kernels.attention.cpu_values", "backward")
_keys = Kernel("tristate.kernels.attention.cpu_keys", "backward")


class _Inputs(NamedTuple):
    """The inputs as the kernels read them: sequences of one dtype, channels side by side."""

    q: Tensor
    k: Tensor
    v: Tensor
    g: Tensor | None  # (B, L, H, 1 or K), float32
    a: Tensor | None
    b: Tensor | None
    initial_state: Tensor | None
    seq_idx: Tensor | None


def _readable(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    a: Tensor | None,
    b: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
) -> _Inputs:
    dtypes = {x.dtype for x in (q, k, v, a, b) if x is not None}
    dtype = dtypes.pop() if len(dtypes) == 1 else torch.float32

    def sequence(x: Tensor) -> Tensor:
        return _side_by_side(x.to(dtype))

    decay = None
    if g is not None:
        decay = _side_by_side(g.float()) if g.dim() == 4 else g.float()[..., None]
    return _Inputs(
        sequence(q),
        sequence(k),
        sequence(v),
        decay,
        None if a is None else sequence(a),
        None if b is None else sequence(b),
        None if initial_state is None else initial_state.float().contiguous(),
        None if seq_idx is None else seq_idx.to(torch.int32).contiguous(),
    )


def _side_by_side(x: Tensor) -> Tensor:
    return x if x.stride(3) == 1 or x.shape[3] == 1 else x.contiguous()


def _span(x: Tensor | None, reverse: bool) -> tuple[int, ...]:
    return (0,) * 5 if x is None else span(x, 1, reverse)


class _Work(NamedTuple):
    """How a kernel's work is shared out, and how large it is."""

    n_tasks: int
    kind: int
    batch: int
    heads: int
    n_splits: int
    length: int
    d_key: int
    d_value: int
    rank: int
    before: int

    @property
    def n_tiles(self) -> int:
        return -(-self.length // TILE)

    def scratch(self, *, value_lines: int, rows: int, n_bytes: int = 0) -> tuple[Tensor, int, int]:
        """Working memory for so many lines of a tile, rows of lanes, and bytes, of each task."""
        n_rows = 24 + 5 * TILE * _rows(self.d_key)
        n_rows += TILE * value_lines * _rows(self.d_value) + rows
        return scratch(self.n_tasks, LINE * n_rows + n_bytes)


def _work(x: _Inputs, n_channels: int, before: bool) -> _Work:
    """A task takes heads, or parts of them: blocks of these channels."""
    batch, length, heads, d_key = x.q.shape
    d_value = x.v.shape[3]
    n_items, n_blocks = batch * heads, _rows(n_channels)
    # Waking a thread costs as much as some 50,000 numbers of a state.
    n_tasks = threads(min(n_items * n_blocks, 1 + x.k.numel() * d_value // 50_000))
    even = n_items % n_tasks == 0 or n_items >= 4 * n_tasks
    n_splits = 1 if even else min(n_tasks, n_blocks)
    n_tasks = min(n_tasks, n_items * n_splits)
    rank = 1 if x.a is None else 2
    kind = _KINDS[x.q.dtype]
    sizes = (length, d_key, d_value)
    return _Work(n_tasks, kind, batch, heads, n_splits, *sizes, rank, int(before))


def _rows(n: int) -> int:
    """Vectors of a line of ``n`` channels."""
    return -(-n // _LANES)


def _key_side(x: _Inputs, factor: Tensor, reverse: bool) -> tuple[int, ...]:
    """The arguments that every kernel begins with."""
    return (
        *_span(x.q, reverse),
        *_span(x.k, reverse),
        *_span(x.g, reverse),
        int(x.g is not None and x.g.shape[3] == x.q.shape[3]),
        *_span(x.a, reverse),
        *_span(x.b, reverse),
        factor.data_ptr(),
    )


def forward(
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
    """Output, last state, and with ``keep`` and an ``a`` what each token found, ``a^T S``."""
    x = _readable(q, k, v, g, a, b, initial_state, seq_idx)
    work = _work(x, v.shape[3], before)
    batch, _, heads, d_key = q.shape
    d_value = v.shape[3]
    # Padding is passed over.
    new = empty if seq_idx is None else zeros
    out = new(v.shape, dtype=x.v.dtype)
    found = new(v.shape if keep and a is not None else 0)
    last = empty(batch, heads, d_key, d_value)
    factor = torch.tensor([scale], dtype=torch.float32, device="cpu")
    n_rows = 3 * TILE + (d_key + 1) * _rows(d_value)
    memory, *where = work.scratch(value_lines=0, rows=n_rows)
    _forward(
        work.n_tasks,
        *work,
        *_key_side(x, factor, reverse),
        *_span(x.v, reverse),
        *_span(out, reverse),
        *_span(found if found.numel() else None, reverse),
        address(x.initial_state),
        last.data_ptr(),
        *segments(x.seq_idx, reverse),
        *where,
    )
    del memory
    return out.to(v.dtype), last, found


def backward(
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
    found: Tensor,
    scale: float,
    reverse: bool,
    before: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of ``q, k, v, g, a, b, initial_state``, in their dtypes; empty if absent."""
    x = _readable(q, k, v, g, a, b, initial_state, seq_idx)
    batch, _, heads, d_key = q.shape
    d_value = v.shape[3]
    new = empty if seq_idx is None else zeros  # padding is passed over
    grad_out = _side_by_side(grad_out.to(x.q.dtype))
    grad_last = None if grad_last is None else grad_last.float().contiguous()
    factor = torch.tensor([scale], dtype=torch.float32, device="cpu")
    common = (*_key_side(x, factor, reverse), *_span(grad_out, reverse))

    work = _work(x, d_value, before)
    dv = new(v.shape)
    dp = None if a is None else new(v.shape)
    dinitial = empty(batch, heads, d_key, d_value)
    memory, *where = work.scratch(
        value_lines=0,
        rows=3 * TILE + (d_key + 1) * _rows(d_value),
        n_bytes=4 * work.n_tiles,
    )
    _values(
        work.n_tasks,
        *work,
        *common,
        *_span(dv, reverse),
        *_span(dp, reverse),
        address(grad_last),
        dinitial.data_ptr(),
        *segments(x.seq_idx, reverse),
        *where,
    )

    work = _work(x, d_key, before)
    dq, dk = (new(q.shape) for _ in range(2))
    da, db = (None if a is None else new(q.shape) for _ in range(2))
    dg = None
    by_key = g is not None and g.dim() == 4
    if x.g is not None:
        dg = new((1 if by_key else work.n_splits, *x.g.shape))
    n_kept = 0 if g is None else -(-work.n_tiles // KEPT)
    memory, *where = work.scratch(
        value_lines=4,
        rows=5 * TILE + ((d_value + 1) * (1 + n_kept) + 1) * _rows(d_key),
        n_bytes=4 * work.n_tiles,
    )
    _keys(
        work.n_tasks,
        *work,
        *common,
        *_span(x.v, reverse),
        *_span(None if a is None else found, reverse),
        *_span(dp, reverse),
        *_span(dq, reverse),
        *_span(dk, reverse),
        *_span(da, reverse),
        *_span(db, reverse),
        *_span(None if dg is None else dg[0], reverse),
        0 if x.g is None else 4 * x.g.numel(),
        address(x.initial_state),
        address(grad_last),
        *segments(x.seq_idx, reverse),
        *where,
    )
    del memory

    def like(grad: Tensor | None, given: Tensor | None) -> Tensor:
        return q.new_empty(0) if grad is None or given is None else grad.to(given.dtype)

    decay = None if dg is None or g is None else dg.sum(0).view(g.shape)
    start = None if initial_state is None else dinitial
    return (
        like(dq, q),
        like(dk, k),
        like(dv, v),
        like(decay, g),
        like(da, a),
        like(db, b),
        like(start, initial_state),
    )
