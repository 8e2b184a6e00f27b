"""The linear scan on a CPU: from tensors to the compiled kernels."""

from torch import Tensor

from tristate.kernels.cpu.memory import LINE, address, scratch, segments, span
from tristate.kernels.cpu.runtime import Kernel, threads
from tristate.kernels.linear.ops import empty_like

_forward = Kernel("tristate.kernels.linear.cpu_kernels", "forward")
_backward = Kernel("tristate.kernels.linear.cpu_kernels", "backward")

_LANES, _TILE = 16, 64
# Below this many numbers a second thread costs more than it brings.
_SMALL = 1 << 15
# An output of so many bytes is gone from the second cache before anybody reads it. Written past the
# caches it is not fetched first: a third of the traffic where the decay is constant.
_STREAM = 1 << 23


def forward(
    a: Tensor,
    b: Tensor,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    """All states in the layout of ``b``, and the last one."""
    a, b, initial_state = _plain(a), _plain(b), _dense(initial_state)
    h, last = empty_like(b), b.new_empty(b.shape[0], b.shape[2])
    n_tasks, sizes, n_lanes = _sizes(b)
    seq_idx = None if seq_idx is None else seq_idx.int()
    places = h.data_ptr(), *(step * h.element_size() for step in h.stride()[:2])
    streams = h.nbytes >= _STREAM and all(place % LINE == 0 for place in places)
    memory, start, n_bytes = _scratch(n_tasks, 3, n_lanes, 3 * _TILE + 8)
    _forward(
        n_tasks,
        n_tasks,
        *sizes,
        *_span(a, reverse),
        *_span(b, reverse),
        *_span(h, reverse),
        address(initial_state),
        last.data_ptr(),
        *segments(seq_idx, reverse),
        int(streams),
        start,
        n_bytes,
    )
    del memory
    return h, last


def backward(
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
    initial_state, dlast = _dense(initial_state), _plain(grad_last).contiguous()
    batch, length, dim = h.shape
    db, dinitial = empty_like(h), h.new_empty(batch, dim)
    # A constant decay's gradient is summed over time by the kernel, over sequences here.
    da = empty_like(a) if a.dim() == 3 else h.new_empty(batch, dim)
    n_tasks, sizes, n_lanes = _sizes(h)
    seq_idx = None if seq_idx is None else seq_idx.int()
    n_tiles = -(-length // _TILE)
    n_rows = 5 * _TILE + 8 + -(-n_tiles // _LANES)
    memory, start, n_bytes = _scratch(n_tasks, 6, n_lanes, n_rows)
    _backward(
        n_tasks,
        n_tasks,
        *sizes,
        int(a.dim() == 1),
        *_span(a, reverse),
        *_span(h, reverse),
        *_span(grad_h, reverse),
        *(_span(da, reverse) if a.dim() == 3 else (da.data_ptr(), 0, da.element_size(), 0)),
        *_span(db, reverse),
        address(initial_state),
        dlast.data_ptr(),
        dinitial.data_ptr(),
        *segments(seq_idx, reverse),
        start,
        n_bytes,
    )
    del memory
    return da if a.dim() == 3 else da.sum(0), db, dinitial


def _plain(x: Tensor) -> Tensor:
    """The tensor with its numbers as they are in memory."""
    return x.resolve_conj().resolve_neg()


def _dense(x: Tensor | None) -> Tensor | None:
    return None if x is None else _plain(x).contiguous()


def _sizes(b: Tensor) -> tuple[int, tuple[int, ...], int]:
    """How many tasks, what both kernels are told about the work, and the lanes of a row."""
    batch, length, dim = b.shape
    pairs = b.is_complex()
    n_lanes = 2 * dim if pairs else dim
    n_blocks = -(-n_lanes // _LANES)
    n_tasks = threads(max(1, min(batch * n_blocks, b.numel() // _SMALL)))
    # Whole sequences where they share out evenly, else a part of the channels of each.
    n_splits = 1 if batch % n_tasks == 0 else min(n_tasks, n_blocks)
    return n_tasks, (batch, n_splits, length, n_lanes, int(pairs)), n_lanes


def _span(x: Tensor, reverse: bool) -> tuple[int, ...]:
    """Address of the first position that is read, and strides of ``(B, D, L)``, in bytes.

    Of a tensor ``(D,)`` those of batch and time are 0.
    """
    if x.dim() == 1:
        return x.data_ptr(), 0, x.stride(0) * x.element_size(), 0
    return span(x.mT, 2, reverse)


def _scratch(n_tasks: int, n_whole: int, n_lanes: int, n_rows: int) -> tuple[Tensor, int, int]:
    """Working memory of whole rows and of rows of 16 lanes."""
    return scratch(n_tasks, LINE * (n_whole * -(-n_lanes // _LANES) + n_rows))
