"""Initial step sizes of the selective mixers."""

import math

import torch
from torch import Tensor


def draw_step_bias(
    count: int, least: float = 1e-3, largest: float = 0.1, floor: float = 1e-4
) -> Tensor:
    """Biases ``(count,)`` whose softplus is log-uniform between ``least`` and ``largest``.

    Args:
        count: how many.
        least: least step size.
        largest: largest step size.
        floor: none is below this.

    Source: Gu & Dao 2023, https://arxiv.org/abs/2312.00752, section 3.6.
    """
    dt = torch.empty(count).uniform_(math.log(least), math.log(largest)).exp().clamp(floor)
    # The inverse of softplus.
    return dt + torch.log(-torch.expm1(-dt))
