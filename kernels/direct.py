"""The short way past PyTorch's dispatcher, which takes longer than a small op."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

_functorch: Any = torch._C._functorch  # pyright: ignore[reportAttributeAccessIssue]
_below_autograd: Any = torch._C._AutoDispatchBelowAutograd
_without: Any = torch._C._ExcludeDispatchKeyGuard
_VIEWS = torch._C.DispatchKeySet(torch._C.DispatchKey.ADInplaceOrView)
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


def shortened(op: Any) -> Callable[..., Any]:
    """A function that does what ``op`` does, on the short way where nothing looks on.

    Args:
        op: what :func:`torch.library.custom_op` made, for CPU tensors, with its gradients
            registered before the function is first called.
    """

    class Direct(torch.autograd.Function):
        """The op's function and the gradients that are registered for it."""

        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Any:
            output = compute(inputs)
            op._setup_context_fn(ctx, inputs, output)
            return output

        @staticmethod
        def backward(ctx: Any, *grads: Tensor | None) -> Any:
            return op._backward_fn(ctx, *grads)

    def compute(inputs: tuple[Any, ...]) -> Any:
        # Nothing is noted of views: an output that is one, of memory that nobody else knows, can be
        # changed in place.
        with _below_autograd(), _without(_VIEWS):
            return op._init_fn(*inputs)

    def run(*inputs: Any) -> Any:
        if torch.compiler.is_compiling():
            return op(*inputs)
        tensors = [x for x in inputs if isinstance(x, Tensor)]
        if not unobserved(tensors):
            return op(*inputs)
        if torch.is_grad_enabled() and any(x.requires_grad for x in tensors):
            return Direct.apply(*inputs)
        return compute(inputs)

    return run
