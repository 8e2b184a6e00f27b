"""Checks that the public ops share: each says what came and what was wanted."""

from collections.abc import Mapping

import torch
from torch import Tensor


def expect_shape(name: str, tensor: Tensor | None, shape: tuple[int, ...], axes: str) -> None:
    """Refuse a tensor whose shape isn't ``shape``; ``axes`` names it, as in ``"(B, D, L)"``."""
    if tensor is not None and tensor.shape != shape:
        raise ValueError(f"{name} must be {axes} = {shape}, got {tuple(tensor.shape)}")


def expect_floating(tensors: Mapping[str, Tensor | None]) -> None:
    """Refuse tensors of integers, and complex ones."""
    for name, tensor in tensors.items():
        if tensor is not None and not tensor.is_floating_point():
            raise ValueError(f"{name} must be floating point, got {tensor.dtype}")


def expect_one_device(tensors: Mapping[str, Tensor | None]) -> None:
    """Refuse tensors that don't all lie on the device of the first."""
    wanted: torch.device | None = None
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        wanted = wanted or tensor.device
        if tensor.device != wanted:
            first = next(iter(tensors))
            raise ValueError(f"{name} is on {tensor.device}, but {first} is on {wanted}")


def expect_segments(seq_idx: Tensor | None, batch: int, length: int) -> None:
    """Refuse a ``seq_idx`` that isn't ``(B, L)`` integers."""
    if seq_idx is None:
        return
    expect_shape("seq_idx", seq_idx, (batch, length), "(B, L)")
    if seq_idx.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"seq_idx must be int32 or int64, got {seq_idx.dtype}")
