"""A linear map through fewer channels."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class LowRank(nn.Module):
    """``up(activation(down(x)))``.

    Args:
        d_in: channels of the input.
        rank: channels between.
        d_out: channels of the output.
        activation: of what is between; none when absent.
        bias: of the second map.
    """

    def __init__(
        self,
        d_in: int,
        rank: int,
        d_out: int,
        *,
        activation: Callable[[Tensor], Tensor] | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.down = nn.Linear(d_in, rank, bias=False)
        self.activation = activation
        self.up = nn.Linear(rank, d_out, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``x (..., d_in)``."""
        x = self.down(x)
        return self.up(x if self.activation is None else self.activation(x))

    def start_at(self, value: Tensor, spread: float = 0.01) -> None:
        """Let the output be ``value``, its bias, whatever the input, until the maps are trained."""
        with torch.no_grad():
            nn.init.zeros_(self.down.weight)
            self.up.bias.copy_(value)
            nn.init.uniform_(self.up.weight, -spread, spread)
