"""Calls that find none of their inputs in a cache."""

from collections.abc import Callable, Mapping
from itertools import cycle

import torch
from torch import Tensor

CACHE_BYTES = 256 << 20
"""No GPU's last cache is larger (MI300's is as large)."""

MOST_COPIES = 64


def n_copies(inputs: Mapping[str, Tensor]) -> int:
    """Copies of the inputs such that those beside one of them fill any cache; two at least."""
    n_bytes = sum(x.numel() * x.element_size() for x in inputs.values())
    return min(MOST_COPIES, 1 + max(1, -(-CACHE_BYTES // max(1, n_bytes))))


def rotating(
    op: Callable[..., Tensor | tuple[Tensor, ...]], inputs: Mapping[str, Tensor], backward: bool
) -> Callable[[], object]:
    """A call of ``op`` on the next of several copies of its inputs, each time it is called.

    Args:
        op: a function of the inputs.
        inputs: by name.
        backward: find the gradients of all inputs as well, with output gradients of their own.
    """
    # A copy keeps the strides, which clone alone would pack.
    copies = [
        {
            name: torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device).copy_(x)
            for name, x in inputs.items()
        }
        for _ in range(n_copies(inputs))
    ]
    if not backward:
        turns = cycle(copies)

        def forward() -> object:
            with torch.no_grad():
                return op(**next(turns))

        return forward
    for copy in copies:
        for x in copy.values():
            x.requires_grad_(x.is_floating_point() or x.is_complex())
    with torch.no_grad():
        out = op(**copies[0])
    outputs = out if isinstance(out, tuple) else (out,)
    pairs = cycle([(copy, [torch.ones_like(x) for x in outputs]) for copy in copies])

    def both() -> object:
        copy, gradients = next(pairs)
        out = op(**copy)
        leaves = [x for x in copy.values() if x.requires_grad]
        return torch.autograd.grad(out if isinstance(out, tuple) else [out], leaves, gradients)

    return both
