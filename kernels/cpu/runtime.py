"""Compiles kernels, keeps them on disk, and runs them on as many threads as PyTorch uses.

A kernel is a function ``f(task, *integers)`` of one piece of the work, written with
:mod:`tristate.kernels.cpu.vector`. It becomes machine code once, without the Python interpreter in
it, and its tasks are claimed one by one by the threads of the team.

The team is PyTorch's own: its OpenMP library is asked for it, so that the threads that just ran a
matrix product are awake and none fights another pool for a core. Where PyTorch has none, ordinary
threads do. A forked child has no team (its parent's threads are not there), and works alone.
"""

import ctypes
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import torch

_Entry = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_forked = False


def _in_child() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


class Kernel:
    """A function ``f(task, *integers)`` that is compiled when it is first called.

    Args:
        module: where it is defined; imported when first called, as numba is with it.
        name: its name there.
    """

    def __init__(self, module: str, name: str) -> None:
        self._source = (module, name)
        self._lock = threading.Lock()
        self._entry: Any = None  # a C function, once compiled
        self._address = 0

    def __call__(self, n_tasks: int, *arguments: int) -> None:
        """Run tasks ``0`` to ``n_tasks - 1``; what is at the addresses must outlive the call."""
        self.rows(n_tasks, arguments)

    def rows(self, n_tasks: int, *rows: Sequence[int]) -> None:
        """Run the tasks with each row of arguments.

        A task goes through the rows in order before its thread claims another: what it leaves in
        its share of the memory, it finds there in the next row.
        """
        entry = self._entry or self._compile(len(rows[0]))
        # The next task, how many there are, and what they are given.
        words = (0, n_tasks, len(rows), *chain.from_iterable(rows))
        block = (ctypes.c_int64 * len(words))(*words)
        n_threads = threads(n_tasks)
        if n_threads == 1:
            entry(ctypes.addressof(block))
        else:
            _team()(entry, self._address, ctypes.addressof(block), n_threads)

    def _compile(self, n_arguments: int) -> Any:
        with self._lock:
            if self._entry is None:
                from tristate.kernels.cpu import compiler

                self._address = compiler.entry_point(*self._source, n_arguments)
                self._entry = _Entry(self._address)
            return self._entry


def threads(n_tasks: int) -> int:
    """How many threads run ``n_tasks``: PyTorch's number, at most one for each task."""
    return 1 if _forked else min(torch.get_num_threads(), n_tasks)


@cache
def _team() -> Callable[[Any, int, int, int], None]:
    """A function that calls an entry point with an argument on each of some threads."""
    folder = Path(torch.__file__).parent
    places = [*folder.glob("lib/libgomp*"), *folder.parent.glob("torch.libs/libgomp*")]
    if not places:
        return _team_of_python
    parallel = ctypes.CDLL(str(places[0])).GOMP_parallel
    parallel.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
    parallel.restype = None

    def run(entry: Any, address: int, block: int, n_threads: int) -> None:
        parallel(address, block, n_threads, 0)

    return run


def _team_of_python(entry: Any, address: int, block: int, n_threads: int) -> None:
    others = [_pool(n_threads - 1).submit(entry, block) for _ in range(n_threads - 1)]
    entry(block)
    for other in others:
        other.result()


@cache
def _pool(n_threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n_threads, thread_name_prefix="tristate")
