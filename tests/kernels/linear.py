"""Problems for the linear scan: decays of every kind that it takes, and cotangents."""

from functools import partial

import torch
from torch import Tensor

KINDS = {
    "real": {},
    "real, constant": {"constant": True},
    "complex": {"complex_": True},
    "complex, constant": {"complex_": True, "constant": True},
}


def stored(x: Tensor, layout: str) -> Tensor:
    """The values of ``x (B, L, D)`` in another order of storage; ``"slice"`` leaves gaps."""
    if layout == "time-last":
        return x.mT.contiguous().mT
    return torch.cat([x, x], 2)[:, :, : x.shape[2]] if layout == "slice" else x.contiguous()


def problem(
    length: int,
    *,
    layout: str = "channel-last",
    batch: int = 2,
    dim: int = 17,  # a block of 16 and a rest, real or complex
    complex_: bool = False,
    constant: bool = False,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Inputs in float32 or complex64, and cotangents of all states and the last one."""
    generator = torch.Generator().manual_seed(1000 * length + 10 * dim)
    randn = partial(torch.randn, generator=generator)

    def numbers(*shape: int) -> Tensor:
        return torch.complex(randn(*shape), randn(*shape)) if complex_ else randn(*shape)

    shape = (batch, length, dim)
    decay = numbers(*((dim,) if constant else shape))
    # Of modulus up to 1, most of them close to it.
    decay = decay / decay.abs() * torch.rand(decay.shape, generator=generator) ** 0.1
    tensors = {
        "a": decay if constant else stored(decay, layout),
        "b": stored(numbers(*shape), layout),
        "initial_state": numbers(batch, dim),
    }
    cotangents = {"h": stored(numbers(*shape), layout), "last": numbers(batch, dim)}
    return tensors, cotangents
