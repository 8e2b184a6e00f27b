"""Calls of the ops of sequence mixers, watched as they happen: values, matrix, skip and gate."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import wraps
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tristate.core.explain.ops import OPS, LinearOp


class Beside(NamedTuple):
    """What an op adds and multiplies beside its map of the values; shaped as its output.

    ``output = (map of the values + state + skip) * gate``.
    """

    state: Tensor | None  # what the state before the first position gives
    skip: Tensor | None  # the values themselves, weighed
    gate: Tensor | None


class Call:
    """One call of an op, with everything that it was given.

    Its output is ``sum_s M[t, s] v[s]`` for values ``v`` and a matrix ``M`` of each channel, the
    hidden attention, beside what :class:`Beside` holds; exactly, since the op is linear in ``v``.
    The matrix of a selective scan is Ali et al.'s: ``M[t, s] = C[t] (product of the decays from s
    to t) dt[s] B[s]``, but it comes from impulses through the op, whichever op it is.

    Args:
        op: which.
        function: the op itself.
        arguments: by name.

    Attributes:
        values: what the map is applied to: one tensor, or two for the two directions of time.

    Source: Ali, Zimerman & Wolf 2024, https://arxiv.org/abs/2403.01590, section 3.
    """

    def __init__(
        self, op: LinearOp, function: Callable[..., Any], arguments: dict[str, Any]
    ) -> None:
        self.op, self.function, self.arguments = op, function, arguments
        given = arguments[op.values]
        self.values: tuple[Tensor, ...] = given if isinstance(given, tuple) else (given,)

    @property
    def invariant(self) -> bool:
        """Whether the map is a convolution, the same at all positions."""
        return self.op.invariant(self.arguments)

    @property
    def length(self) -> int:
        """Positions of the values."""
        return self.op.laid(self.values[0]).shape[-1]

    def result(self) -> Any:
        """What the op returns: an output, or a tuple that begins with it."""
        return self.function(**self.arguments)

    def output(self, values: Sequence[Tensor] | None = None, *without: str | None) -> Tensor:
        """What leaves the op.

        Args:
            values: instead of its own.
            *without: names of arguments that are left out.
        """
        given = {name: x for name, x in self.arguments.items() if name not in without}
        if values is not None:
            pair = isinstance(given[self.op.values], tuple)
            given[self.op.values] = tuple(values) if pair else values[0]
        found = self.function(**given)
        return found[0] if isinstance(found, tuple) else found

    def mapped(self, values: Sequence[Tensor]) -> Tensor:
        """The map alone, of ``values``: without gate, skip and what a state adds."""
        found = self._ungated(values)
        still = self._still()
        return found if still is None else found - still

    def beside(self) -> Beside:
        """What stands beside the map."""
        op, gate = self.op, None
        if op.gate is not None and self.arguments.get(op.gate) is not None:
            gate = F.silu(self.arguments[op.gate])
        skip = None
        if op.skip is not None and self.arguments.get(op.skip) is not None:
            skip = self.output(None, op.gate) - self._ungated(self.values)
        return Beside(self._still(), skip, gate)

    def _ungated(self, values: Sequence[Tensor]) -> Tensor:
        return self.output(values, self.op.gate, self.op.skip)

    def _still(self) -> Tensor | None:
        """What the op gives of its state without any values; None where it has no state."""
        if self.op.state is None or self.arguments.get(self.op.state) is None:
            return None
        return self._ungated([torch.zeros_like(v) for v in self.values])

    def matrix(self, part: int = 0, columns: Sequence[int] | None = None) -> Tensor:
        """The map as a matrix of each channel or head, ``(B, *channels, L_out, L)``.

        One run of the op for each column: ``L`` times the op's own time, and memory for the matrix.

        Args:
            part: which of the values, where there are two.
            columns: only these, in this order.
        """
        still, found = self._still(), []
        for column in columns if columns is not None else range(self.length):
            response = self._ungated(self._impulse(part, column))
            response = response if still is None else response - still
            # A copy: a view of one channel would keep the others.
            found.append(self.op.laid(response).clone())
        return torch.stack(found, -1)

    def _impulse(self, part: int, position: int) -> list[Tensor]:
        """Values that are 1 in all channels at one position and 0 elsewhere."""
        values = [torch.zeros_like(v) for v in self.values]
        first = self.op.axis % values[part].dim()
        grid = values[part].shape[first : first + self.op.n_axes]
        index: list[Any] = [slice(None)] * first
        values[part][(*index, *_unravelled(position, grid))] = 1
        return values

    def apply(self, matrices: Sequence[Tensor]) -> Tensor:
        """What leaves the op, made of :meth:`matrix` for each part: see :class:`Beside`."""
        pairs = zip(matrices, self.values, strict=True)
        y = sum(self._product(matrix, v) for matrix, v in pairs)
        state, skip, gate = self.beside()
        for term in (state, skip):
            y = y if term is None else y + term
        return y if gate is None else y * gate  # pyright: ignore[reportReturnType]

    def _product(self, matrix: Tensor, v: Tensor) -> Tensor:
        """``matrix (B, *channels, L_out, L)`` times ``v``, in the layout of the output."""
        first = self.op.axis
        if self.op.heads:
            v = v.movedim(first, -2)
            if v.dim() == 4:
                # Several heads may share one of the values'.
                v = v.repeat_interleave(matrix.shape[1] // v.shape[1], 1)
            return (matrix @ v).movedim(-2, first)
        grid = v.shape[first % v.dim() :][: self.op.n_axes]
        v = self.op.laid(v)
        while v.dim() < matrix.dim() - 1:
            v = v[:, None]
        y = (matrix @ v[..., None])[..., 0]
        return y.unflatten(-1, grid) if self.op.n_axes > 1 else y.movedim(-1, first)


def _unravelled(position: int, grid: Sequence[int]) -> tuple[int, ...]:
    index = []
    for size in reversed(grid):
        position, at = divmod(position, size)
        index.append(at)
    return tuple(reversed(index))


@contextmanager
def watching(handle: Callable[[Call], Any]) -> Iterator[None]:
    """Hand every call of an op in :data:`OPS` to ``handle``, which returns what the caller gets.

    Of ops within ops the outermost is handed over, once. As torch.fx does to leave functions whole,
    the name of an op is rebound in every module that holds it; so not for several threads at once.
    """
    busy = False

    def watched(op: LinearOp, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            nonlocal busy
            if busy:
                return function(*args, **kwargs)
            busy = True
            try:
                return handle(Call(op, function, op.bind(function, args, kwargs)))
            finally:
                busy = False

        return wrapper

    resolved = [(op, *op.resolve()) for op in OPS]
    with ExitStack() as stack:
        wrappers = {}
        for op, holder, name, function in resolved:
            if isinstance(holder, ModuleType):
                wrappers[id(function)] = watched(op, function)
            else:
                _rebind(stack, holder, name, watched(op, function))
        for module, name in _bindings(set(wrappers)):
            _rebind(stack, module, name, wrappers[id(vars(module)[name])])
        yield


def _rebind(stack: ExitStack, holder: Any, name: str, value: Any) -> None:
    """Set an attribute until the stack unwinds."""
    stack.callback(setattr, holder, name, vars(holder)[name])
    setattr(holder, name, value)


def _bindings(functions: set[int]) -> list[tuple[ModuleType, str]]:
    """Every name in a loaded module that stands for one of the functions, given by ``id``."""
    modules = [m for m in list(sys.modules.values()) if isinstance(m, ModuleType)]
    return [
        (module, name)
        for module in modules
        # The compiled parts of PyTorch keep their own.
        if not module.__name__.startswith("torch._")
        for name, value in list(vars(module).items())
        if id(value) in functions
    ]


@contextmanager
def recorded() -> Iterator[list[Call]]:
    """The calls of ops inside the block, in order; the list fills as they happen."""
    calls: list[Call] = []

    def keep(call: Call) -> Any:
        calls.append(call)
        return call.result()

    with watching(keep):
        yield calls
