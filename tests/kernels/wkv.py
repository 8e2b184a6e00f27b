"""Problems for RWKV-4's attention, and what its states stand for."""

from functools import partial

import torch

from tests.kernels.laws import stored


def problem(length, *, batch=2, dim=35, layout="channel-last", initial=True):
    """Inputs in float32, and cotangents of the output and of what the last state stands for."""
    generator = torch.Generator().manual_seed(1000 * length + dim)
    randn = partial(torch.randn, generator=generator)
    state = torch.stack([randn(batch, dim), 0.5 + randn(batch, dim).exp(), randn(batch, dim)], 1)
    tensors = {
        "k": stored(2 * randn(batch, dim, length), layout).mT,
        "v": stored(randn(batch, dim, length), layout).mT,
        "w": -randn(dim).sub(1).exp(),
        "u": randn(dim),
        "initial_state": state if initial else None,
    }
    return tensors, {"out": randn(batch, length, dim), "last": randn(batch, 2, dim)}


def meant(scan):
    """``scan`` with its last state replaced by what it stands for, whatever the unit."""

    def call(**inputs):
        out, state = scan(**inputs)
        num, den, unit = state.unbind(1)
        # Where nothing has been summed up there is nothing to compare.
        full = den > 0
        size = torch.where(full, den, 1).log() + torch.where(full, unit, 0)
        return out, torch.stack([num / torch.where(full, den, 1), size], 1)

    return call
