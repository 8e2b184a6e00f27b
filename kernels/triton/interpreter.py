"""Runs kernels without a GPU: Triton's interpreter, made fast enough for tests.

``TRITON_INTERPRET=1`` in the environment counts when Triton and a module of kernels are imported.
"""

import os
from functools import cache
from importlib.util import find_spec
from typing import Any


def interprets() -> bool:
    """Whether kernels imported now are interpreted, on CPU tensors too."""
    asked = os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "yes", "on")
    return asked and is_installed()


@cache
def is_installed() -> bool:
    """Whether Triton is there: it is made for Linux, and elsewhere PyTorch comes without it."""
    return find_spec("triton") is not None


@cache
def hasten() -> None:
    """Let scans combine whole slices, and calls not look through all of Triton's names again.

    The interpreter calls the function that combines two elements for every pair of numbers. It is
    a function of tiles like any other: slices give the same numbers in the same order.
    """
    from triton.runtime import interpreter

    prepare: Any = interpreter._patch_lang
    prepared = set()

    def scan(self: Any, inputs: tuple[Any, ...]) -> list[Any]:
        import numpy as np

        rows = [np.moveaxis(x.handle.data, self.axis, 0) for x in inputs]
        kinds = [x.dtype for x in inputs]
        found = [np.empty_like(row) for row in rows]
        combined: tuple[Any, ...] = ()
        for i in range(len(rows[0])):
            here = tuple(self.to_tensor(x[i], kind) for x, kind in zip(rows, kinds, strict=True))
            combined = self.combine_fn.fn(*combined, *here) if i else here
            for target, x in zip(found, combined, strict=True):
                target[i] = x.handle.data.reshape(target[i].shape)
        return [
            self.to_tensor(np.moveaxis(x, 0, self.axis), kind)
            for x, kind in zip(found, kinds, strict=True)
        ]

    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        # Inside a launch Triton's own names stand ready; what a function adds to them stays.
        if self.fn not in prepared:
            prepare(self.fn)
            prepared.add(self.fn)
        return self.rewrite()(*arguments, **named)

    patched: Any = interpreter
    patched.ScanOps.generic_scan = scan
    patched.InterpretedFunction.__call__ = call
