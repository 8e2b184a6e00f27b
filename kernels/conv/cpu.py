"""The causal convolution on a CPU: from tensors to the kernels on rows, and back."""

from torch import Tensor

from tristate.kernels.cpu.memory import address, empty, scratch, span
from tristate.kernels.cpu.runtime import Kernel, threads
from tristate.kernels.layout import empty_like_rows

_forward = Kernel("tristate.kernels.conv.cpu_kernels", "forward")
_backward = Kernel("tristate.kernels.conv.cpu_kernels", "backward")

LANES = 16
# Below this many elements a second thread costs more than it brings.
SMALL = 1 << 14


def forward(
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
    values, weight = x.float(), weight.float()
    bias = None if bias is None else bias.float().contiguous()
    states = None if initial_states is None else initial_states.float()
    seq_idx = None if seq_idx is None else seq_idx.int().contiguous()
    out = empty_like_rows(values)
    last = empty(batch, dim, width - 1)
    n_tasks = _n_tasks(batch, dim, length)
    step, n_bytes = _room(12, 2, dim, length, values, out)
    memory, *where = scratch(n_tasks, n_bytes)
    _forward(
        n_tasks,
        n_tasks,
        *_storage(values),
        *_storage(out),
        address(seq_idx),
        *_storage(states),
        last.data_ptr(),
        *_storage(weight),
        address(bias),
        *where,
        batch,
        dim,
        length,
        step,
        width,
        silu,
        reverse,
    )
    del memory
    return out.to(x.dtype), last


def backward(
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
    values, grad, grad_last, taps = x.float(), grad_out.float(), grad_state.float(), weight.float()
    biases = None if bias is None else bias.float().contiguous()
    states = None if initial_states is None else initial_states.float()
    seq_idx = None if seq_idx is None else seq_idx.int().contiguous()
    dx = empty_like_rows(values)
    dstates = empty(batch, dim, width - 1)
    n_tasks = _n_tasks(batch, dim, length)
    # Each task sums the parameters' gradients for itself.
    dweight, dbias = empty(n_tasks, dim, width), empty(n_tasks, dim)
    step, n_bytes = _room(21, 3, dim, length, values, grad, dx)
    memory, *where = scratch(n_tasks, n_bytes)
    _backward(
        n_tasks,
        n_tasks,
        *_storage(grad),
        *_storage(grad_last),
        *_storage(values),
        *_storage(dx),
        address(seq_idx),
        *_storage(states),
        dstates.data_ptr(),
        *_storage(taps),
        address(biases),
        dweight.data_ptr(),
        dbias.data_ptr(),
        *where,
        batch,
        dim,
        length,
        step,
        width,
        silu,
        reverse,
    )
    del memory
    return (
        dx.to(x.dtype),
        _total(dweight).to(weight.dtype),
        _total(dbias).to(weight.dtype if bias is None else bias.dtype),
        dstates if initial_states is None else dstates.to(initial_states.dtype),
    )


def _storage(x: Tensor | None) -> tuple[int, ...]:
    """Address and strides, in bytes; zeros without a tensor of three axes."""
    return (0,) * 4 if x is None else span(x, -1)


def _total(parts: Tensor) -> Tensor:
    """The sum over the tasks."""
    return parts[0] if parts.shape[0] == 1 else parts.sum(0)


def _n_tasks(batch: int, dim: int, length: int) -> int:
    """One for each thread: as many sequences, or blocks of channels where those are more."""
    if batch * dim * length < SMALL:
        return 1
    return threads(max(batch, -(-dim // LANES)))


def _room(n_rows: int, n_lines: int, dim: int, length: int, *tensors: Tensor) -> tuple[int, int]:
    """Bytes from row to row of a task's scratch memory, and how many it has.

    Lines, into which channels are gathered, are only needed where storage isn't rows already.
    """
    padded = -(-dim // LANES) * LANES
    whole = dim == padded and all(x.stride(1) == 1 for x in tensors)
    return 4 * padded, 4 * (n_rows * padded + (0 if whole else n_lines * length * LANES))
