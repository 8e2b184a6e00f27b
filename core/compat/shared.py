"""What the two mixers share: the states they keep between calls, and how a decay is stored."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tristate.core.mixer import at_least_float32


def cached_states(mixer: Any, inference_params: Any, batch_size: int) -> tuple[Tensor, Tensor]:
    """The mixer's two states in ``inference_params.key_value_memory_dict``, made where missing.

    Raises:
        ValueError: the mixer has no ``layer_idx`` to keep them under.
    """
    if mixer.layer_idx is None:
        raise ValueError("a mixer needs a layer_idx to keep its states in inference_params")
    memory = inference_params.key_value_memory_dict
    if mixer.layer_idx not in memory:
        memory[mixer.layer_idx] = mixer.allocate_inference_cache(batch_size, max_seqlen=0)
    return memory[mixer.layer_idx]


def keep_last(state: Tensor, x: Tensor) -> None:
    """Write the last of ``x (B, D, L)`` into ``state (B, D, W)``, zeros where there are less."""
    state.copy_(F.pad(x, (state.shape[2] - x.shape[2], 0)))


def decay(A_log: Tensor) -> Tensor:
    """``A = -exp(A_log)``, in float32 at least."""
    return -torch.exp(at_least_float32(A_log))
