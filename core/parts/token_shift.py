"""RWKV's token shift: each position also sees the input of the one before it."""

import torch
from torch import Tensor

from tristate.kernels.conv import causal_conv1d


def token_shift(
    x: Tensor, before: Tensor | None = None, *, seq_idx: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The input one position earlier, 0 at the first one of a sequence.

    Args:
        x: inputs, ``(B, L, D)``.
        before: the input before the first, ``(B, D)``; 0 when absent.
        seq_idx: which sequence each position belongs to, ``(B, L)``; negative marks padding, which
            is as if it weren't there: 0 in the result.

    Returns:
        The earlier inputs ``(B, L, D)`` in the dtype of ``x``, and the last real one ``(B, D)``.
    """
    # Two taps of which the newer is 0: a convolution keeps sequences apart and passes over padding.
    taps = torch.tensor([1.0, 0.0], device=x.device, dtype=x.dtype).expand(x.shape[2], 2)
    shifted, last = causal_conv1d(
        x.transpose(1, 2),
        taps,
        initial_states=None if before is None else before[..., None],
        return_final_states=True,
        seq_idx=seq_idx,
    )
    return shifted.transpose(1, 2), last[..., 0]
