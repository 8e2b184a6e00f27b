"""Counts what interpreted Triton kernels move, from and to behind the caches, and multiply."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from torch import Tensor


class Traffic:
    """Bytes read and written, and operations of products of tiles: a multiply-add is two.

    What a program reads twice counts once, what it writes over counts once, and what it has written
    itself it reads for nothing: these stay in the caches.
    """

    def __init__(self) -> None:
        self.read = 0
        self.written = 0
        self.operations = 0
        self._known: set[int] = set()
        self._changed: set[int] = set()
        self._program: tuple[int, ...] = ()

    def load(self, program: tuple[int, ...], addresses: np.ndarray, size: int) -> None:
        """A program's load of numbers of ``size`` bytes."""
        self.read += size * len(self._new(program, addresses, self._known))

    def store(self, program: tuple[int, ...], addresses: np.ndarray, size: int) -> None:
        """A program's store of numbers of ``size`` bytes."""
        new = self._new(program, addresses, self._changed)
        self._known |= new
        self.written += size * len(new)

    def _new(self, program: tuple[int, ...], addresses: np.ndarray, known: set[int]) -> set[int]:
        """Which of the addresses aren't known yet, and are from now on."""
        if program != self._program:
            self._program = program
            self._known.clear()
            self._changed.clear()
        new = set(addresses.ravel().tolist()) - known
        known |= new
        return new


def size(*tensors: Tensor | None) -> int:
    """Bytes of the tensors that there are."""
    return sum(x.numel() * x.element_size() for x in tensors if x is not None)


@contextmanager
def counted() -> Iterator[Traffic]:
    """Count what kernels load, store and multiply that are launched inside the block."""
    from triton.runtime.interpreter import InterpreterBuilder, _get_np_dtype

    traffic, launches = Traffic(), [0]
    load, store = InterpreterBuilder.create_masked_load, InterpreterBuilder.create_masked_store
    start, dot = InterpreterBuilder.set_grid_dim, InterpreterBuilder.create_dot

    def counted_load(self, ptrs, mask, *rest):
        size = _get_np_dtype(ptrs.get_element_ty()).itemsize
        at = np.broadcast_arrays(ptrs.data, mask.data)
        traffic.load((launches[0], *self.grid_idx), at[0][at[1].astype(bool)], size)
        return load(self, ptrs, mask, *rest)

    def counted_store(self, ptrs, value, mask, *rest):
        size = _get_np_dtype(ptrs.get_element_ty()).itemsize
        at = np.broadcast_arrays(ptrs.data, mask.data)
        traffic.store((launches[0], *self.grid_idx), at[0][at[1].astype(bool)], size)
        return store(self, ptrs, value, mask, *rest)

    def counted_dot(self, a, b, *rest):
        traffic.operations += 2 * a.data.size * b.data.shape[-1]
        return dot(self, a, b, *rest)

    def counted_start(self, *sizes):
        launches[0] += 1
        return start(self, *sizes)

    InterpreterBuilder.create_masked_load = counted_load
    InterpreterBuilder.create_masked_store = counted_store
    InterpreterBuilder.set_grid_dim = counted_start
    InterpreterBuilder.create_dot = counted_dot
    try:
        yield traffic
    finally:
        InterpreterBuilder.create_masked_load = load
        InterpreterBuilder.create_masked_store = store
        InterpreterBuilder.set_grid_dim = start
        InterpreterBuilder.create_dot = dot
