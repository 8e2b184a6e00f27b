"""The linear scan against an associative scan in PyTorch and a loop over time."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from tristate.kernels.linear import linear_scan, reference
from tristate.recipes.bench.cases import Case

# Name: batch, channels, length, complex, a decay that is constant in time; and whether it is quick.
SIZES = {
    "S5, 256 states": ((8, 256, 1024, True, True), True),
    "RG-LRU": ((4, 512, 1024, False, False), True),
    "audio, 256 states": ((1, 256, 16000, True, True), False),
}


def cases(quick: bool) -> Iterator[Case]:
    """One case a size; as floor, a copy of its inputs and outputs."""
    for name, ((batch, dim, length, complex_, constant), small) in SIZES.items():
        if quick and not small:
            continue
        dtype = torch.complex64 if complex_ else torch.float32
        b = torch.randn(batch, length, dim, dtype=dtype)
        decay = torch.rand((dim,) if constant else b.shape) ** 0.01
        if complex_:
            decay = torch.polar(decay, 3 * torch.rand(decay.shape))
        peers: dict[str, Callable[..., Tensor]] = {"PyTorch, associative scan": associative_scan}
        # Autograd through a loop takes time that grows with the square of the length.
        if length <= 1024:
            peers["PyTorch, step by step"] = _step_by_step
        shape = {"B": batch, "L": length, "D": dim}
        yield Case(f"linear_scan, {name}", shape, {"b": b, "a": decay}, _ours, peers)


def _ours(**inputs: Any) -> Tensor:
    return linear_scan(**inputs, backend="cpu")[0]


def _step_by_step(**inputs: Any) -> Tensor:
    return reference.linear_scan(**inputs)[0]


def associative_scan(b: Tensor, a: Tensor) -> Tensor:
    """All states by halving: pairs of steps are one step of half as many (Blelloch 1990).

    The work is twice that of the loop, in some ten operators for each halving.
    """
    return _halved(a.expand_as(b), b)[1]


def _halved(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    length = b.shape[1]
    if length == 1:
        return a, b
    even, odd = slice(0, length - 1, 2), slice(1, None, 2)
    joined = a[:, odd] * a[:, even], torch.addcmul(b[:, odd], a[:, odd], b[:, even])
    # What every second position has seen, then what those between have.
    seen = _halved(*joined)
    rest = slice(2, None, 2)
    before = [x[:, : (length - 1) // 2] for x in seen]
    between = a[:, rest] * before[0], torch.addcmul(b[:, rest], a[:, rest], before[1])
    return tuple(
        _woven(torch.cat([whole[:, :1], x], 1), y)
        for whole, x, y in zip((a, b), between, seen, strict=True)
    )  # pyright: ignore[reportReturnType]


def _woven(evens: Tensor, odds: Tensor) -> Tensor:
    """The positions of two tensors in turn."""
    length = evens.shape[1] + odds.shape[1]
    whole = evens.new_empty(evens.shape[0], length, *evens.shape[2:])
    whole[:, ::2], whole[:, 1::2] = evens, odds
    return whole
