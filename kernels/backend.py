"""Which implementation of an op runs: ``reference``, ``cpu`` or ``triton``.

``"auto"`` takes the fast one for the device where the tensor lies and the reference where there is
none. A backend that was asked for by name runs or raises. With ``TRITON_INTERPRET=1`` in the
environment ``triton`` runs on CPU tensors too, slowly, to be tested.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from tristate.kernels.registry import nearest
from tristate.kernels.triton.interpreter import interprets, is_installed

NAMES = ("reference", "cpu", "triton")

# The fast backend of each kind of device.
_FAST = {"cpu": "cpu", "cuda": "triton", "xpu": "triton"}

_forced: str | None = None


# Whether this processor has the fused multiply-add vectors that the kernels are made of: on plain
# x86-64 every fma becomes a library call, slower than the reference. Asked once, here: it can't be
# asked while torch.compile traces.
_CPU_IS_FAST = torch.backends.cpu.get_cpu_capability() != "DEFAULT"
_TRITON_IS_HERE = is_installed()


def available_backends() -> tuple[str, ...]:
    """Names of the backends that this machine can run."""
    names = ["reference"]
    if _CPU_IS_FAST:
        names.append("cpu")
    has_gpu = torch.cuda.is_available() or torch.xpu.is_available()
    if _TRITON_IS_HERE and (has_gpu or interprets()):
        names.append("triton")
    return tuple(names)


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Run every op with ``backend="auto"`` inside the block by the backend ``name``.

    Raises:
        ValueError: there is no such backend, or this machine can't run it.
    """
    global _forced
    if name not in NAMES:
        raise ValueError(f"no backend {name!r}; {nearest(name, NAMES)}")
    if name not in available_backends():
        raise ValueError(_absent(name))
    before, _forced = _forced, name
    try:
        yield
    finally:
        _forced = before


def is_free() -> bool:
    """Whether no :func:`use_backend` is in force, so that ``"auto"`` may take what suits it."""
    return _forced is None


def takes_triton(tensor: Tensor) -> bool:
    """Whether a step that only Triton makes faster is left to it: as ``"auto"`` chooses."""
    return (_forced or _FAST.get(tensor.device.type)) == "triton" and _TRITON_IS_HERE


def _absent(name: str) -> str:
    """Why this machine doesn't run a backend."""
    if name == "triton":
        why = "there is no GPU" if _TRITON_IS_HERE else "the package triton isn't installed"
    else:
        why = "its processor has no fused multiply-add vectors"
    here = ", ".join(available_backends())
    return f"the {name} backend can't run on this machine: {why}; here: {here}"


def _interpreted(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and interprets()


def choose(op: str, tensor: Tensor, requested: str, offered: Sequence[str]) -> str:
    """The backend that runs ``op`` on ``tensor``.

    Args:
        op: name of the op, for errors.
        tensor: the main input; its device and dtype decide.
        requested: ``"auto"`` or a name.
        offered: backends that implement the op for these arguments.

    Raises:
        ValueError: the requested one is unknown, does not implement the op for these arguments, or
            can't run on the tensor's device.
    """
    name = requested if requested != "auto" else _forced
    if name is None:
        name = _FAST.get(tensor.device.type, "reference")
        # Double precision is asked for where exactness matters: only the reference keeps it.
        runs = name in offered and tensor.dtype != torch.float64
        if name == "triton" and runs and not _TRITON_IS_HERE:
            warnings.warn(
                f"on a GPU {op} is left to PyTorch's operators, many times slower, as the package "
                "triton isn't installed",
                stacklevel=3,
            )
            runs = False
        return name if runs and (name != "cpu" or _CPU_IS_FAST) else "reference"
    if name not in NAMES:
        raise ValueError(f"unknown backend {name!r}; {nearest(name, ('auto', *NAMES))}")
    if name not in offered:
        raise ValueError(
            f"{op} has no {name} backend for these arguments; choose from {', '.join(offered)}"
        )
    if name not in available_backends():
        raise ValueError(_absent(name))
    if name == "cpu" and tensor.device.type != "cpu":
        raise ValueError(f"{op}: the cpu backend takes CPU tensors, got one on {tensor.device}")
    if name == "triton" and not (_FAST.get(tensor.device.type) == "triton" or _interpreted(tensor)):
        raise ValueError(f"{op}: the triton backend takes GPU tensors, got one on {tensor.device}")
    if name != "reference" and tensor.dtype == torch.float64:
        raise ValueError(
            f"{op}: the {name} backend computes in float32, got float64: use reference"
        )
    return name
