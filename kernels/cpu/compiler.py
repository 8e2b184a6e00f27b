"""Turns a kernel into an entry point that any thread can call, and keeps the machine code on disk.

numba notices a change in one file only. Kernels are spread over several, so the folder of their
machine code is named by a hash of all of them; numba adds the processor's name and features.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

import llvmlite
import numba
from llvmlite import ir
from numba import types
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator
from numba.core.ccallback import CFunc
from numba.core.sigutils import normalize_signature
from numba.extending import intrinsic

from tristate.kernels import cache
from tristate.kernels.cpu.vector import jit, load_word


def entry_point(module: str, name: str, n_arguments: int) -> int:
    """The address of a C function ``void(void *block)`` that runs tasks until none is left.

    Args:
        module: where the kernel is defined.
        name: its name there; a ``jit`` function of the task and ``n_arguments`` integers.
        n_arguments: how many words of a row it is given.

    Words 0 and 1 of the block are the next task and how many there are, word 2 is the number of
    rows of arguments, which follow.
    """
    kernel = getattr(import_module(module), name)
    unpack = _unpack(n_arguments)

    row_bytes = 8 * n_arguments

    def work(block):
        n_rows = load_word(block + 16)
        task = _claim(block)
        while task < load_word(block + 8):
            for row in range(n_rows):
                kernel(task, *unpack(block + 24 + row * row_bytes))
            task = _claim(block)

    # The machine code's name on disk: several folders have a file "cpu_forward".
    work.__qualname__ = work.__name__ = f"{module}.{name}"
    # numba says "cfunc", but compiles nothing until asked, so that a cache can be put in place.
    compiled: Any = CFunc(
        work,
        normalize_signature(types.void(types.int64)),
        locals={},
        options={"error_model": "numpy"},
    )
    compiled._cache = _Cache(work)
    compiled.compile()
    # Without a reference the machine code would be freed.
    _alive.append(compiled)
    return compiled.address


_alive: list[Any] = []
# To a type checker an intrinsic still takes the context that numba fills in.
_intrinsic: Any = intrinsic


@_intrinsic
def _claim(context: Any, block: Any):
    """The next task, which no other thread gets."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        pointer = builder.inttoptr(values[0], ir.PointerType())
        return builder.atomic_rmw("add", pointer, ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(types.int64), generate


def _unpack(count: int) -> Any:
    """A function that reads that many words from an address."""

    @_intrinsic
    def words(context: Any, address: Any):
        result = types.UniTuple(types.int64, count)

        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            word = ir.IntType(64)
            found = []
            for i in range(count):
                place = builder.add(values[0], ir.Constant(word, 8 * i))
                pointer = builder.inttoptr(place, ir.PointerType())
                found.append(builder.load(pointer, typ=word, align=8))
            return context.make_tuple(builder, signature.return_type, found)

        return result(types.int64), generate

    @jit
    def unpack(address):
        return words(address)

    return unpack


class _Locator(_CacheLocator):
    """Machine code lies in :func:`cache_folder`; the folder's name is its version."""

    def __init__(self, function: Any) -> None:
        self._function = function

    def get_cache_path(self) -> Any:
        return str(cache_folder())

    def get_source_stamp(self) -> Any:
        return _stamp()

    def get_disambiguator(self) -> Any:
        return ""

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> "_Locator":
        return cls(py_func)


class _Files(CompileResultCacheImpl):
    _locator_classes = [_Locator]


class _Cache(FunctionCache):
    _impl_class = _Files

    def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        # numba would add the kernel that the function closes over, as it is in this process.
        return sig, codegen.magic_tuple(), self._py_func.__qualname__


def cache_folder() -> Path:
    """Where machine code is kept."""
    return cache.folder("kernels", _stamp())


def _stamp() -> str:
    """Of everything that the machine code depends on but the processor."""
    return cache.sources(numba.__version__, llvmlite.__version__, without="triton")
