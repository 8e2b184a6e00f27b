"""The short causal depthwise convolution in front of a scan, as a module."""

import torch
from torch import Tensor, nn

from tristate.kernels.conv import Activation, causal_conv1d


class CausalConv1d(nn.Module):
    """Depthwise convolution over time, then SiLU; position ``t`` sees the last ``d_conv`` inputs.

    Args:
        d_inner: channels; each has its own filter.
        d_conv: taps.
        bias: add a bias per channel.
        activation: ``"silu"``, or None for the filter alone.
        reverse: read time backwards: position ``t`` sees the next ``d_conv`` inputs.
    """

    def __init__(
        self,
        d_inner: int,
        d_conv: int = 4,
        *,
        bias: bool = True,
        activation: Activation = "silu",
        reverse: bool = False,
    ) -> None:
        super().__init__()
        self.activation: Activation = activation
        self.reverse = reverse
        self.weight = nn.Parameter(torch.empty(d_inner, d_conv))
        self.bias = nn.Parameter(torch.empty(d_inner)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the filters as ``nn.Conv1d`` does: uniform within ``1 / sqrt(d_conv)``."""
        bound = self.weight.shape[1] ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(
        self, x: Tensor, state: Tensor | None = None, *, seq_idx: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Filter ``x (B, L, d_inner)`` after the inputs ``state (B, d_inner, d_conv - 1)``.

        Returns:
            ``(B, L, d_inner)``, and the last ``d_conv - 1`` inputs as the next state.
        """
        y, state = causal_conv1d(
            x.transpose(1, 2),
            self.weight,
            self.bias,
            initial_states=state,
            return_final_states=True,
            seq_idx=seq_idx,
            activation=self.activation,
            reverse=self.reverse,
        )
        return y.transpose(1, 2), state

    def extra_repr(self) -> str:
        """Sizes, for ``print(model)``."""
        d_inner, d_conv = self.weight.shape
        return (
            f"{d_inner}, d_conv={d_conv}, bias={self.bias is not None}, "
            f"activation={self.activation}, reverse={self.reverse}"
        )
