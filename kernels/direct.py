"""The short way past PyTorch's dispatcher, which takes longer than a small op."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

_functorch: Any = torch._C._functorch  # pyright: ignore[reportAttributeAccessIssue]
_PLAIN = {Tensor, torch.nn.Parameter, type(None)}


def unobserved(tensors: Iterable[Tensor | None]) -> bool:
    """Whether an op's kernels may be called as they are, in plain eager mode.

    Whatever looks at ops must see the op itself: compilers, exporters, tensor subclasses, dispatch
    modes, function transforms.
    """
    return not (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack() > 0
        or _functorch.maybe_current_level() is not None
        or any(type(x) not in _PLAIN for x in tensors)
    )
