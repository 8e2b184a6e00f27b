"""What follows a linear sequence map position by position: activation, gate, projection."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tristate.core.activation import activation_named
from tristate.core.mixer import Mixer, hide_padding
from tristate.core.parts.dropout import TiedDropout
from tristate.kernels.registry import nearest


class Activated(nn.Module):
    """``f(y)``, and dropout; the base of the outputs below, which keep its arguments.

    Args:
        d_in: width of the input.
        d_out: width of the output.
        activation: ``f``, a name in :data:`tristate.core.activation.ACTIVATIONS`.
        dropout: rate behind ``f`` and at the end; a channel is silenced for a whole sequence.

    Raises:
        ValueError: the activation is unknown, or the widths differ where they can't.
    """

    keeps_width = True

    def __init__(
        self, d_in: int, d_out: int, *, activation: str = "gelu", dropout: float = 0.0
    ) -> None:
        super().__init__()
        if self.keeps_width and d_in != d_out:
            raise ValueError(f"{type(self).__name__} keeps the width, got {d_in} and {d_out}")
        self.activation = activation_named(activation)
        self.dropout = TiedDropout(dropout)

    def forward(self, y: Tensor) -> Tensor:
        """``(B, L, d_in)`` to ``(B, L, d_out)``."""
        return self.dropout(self.activation(y))


class Projected(Activated):
    """``W f(y) + b``."""

    keeps_width = False

    def __init__(self, d_in: int, d_out: int, **options: Any) -> None:
        super().__init__(d_in, d_out, **options)
        self.linear = nn.Linear(d_in, d_out)

    def forward(self, y: Tensor) -> Tensor:
        """``(B, L, d_in)`` to ``(B, L, d_out)``."""
        return self.dropout(self.linear(super().forward(y)))


class GLU(Activated):
    """Gated linear unit ``(W f(y) + b) * sigmoid(V f(y) + c)`` (Dauphin et al. 2016, 1612.08083).

    With ``f`` GELU it is what S4, LRU and long convolutions end in.
    """

    keeps_width = False

    def __init__(self, d_in: int, d_out: int, **options: Any) -> None:
        super().__init__(d_in, d_out, **options)
        self.linear = nn.Linear(d_in, 2 * d_out)

    def forward(self, y: Tensor) -> Tensor:
        """``(B, L, d_in)`` to ``(B, L, d_out)``."""
        return self.dropout(F.glu(self.linear(super().forward(y)), dim=-1))


class HalfGLU(Activated):
    """``f(y) * sigmoid(W f(y) + b)``: S5's gate, with half of a GLU's weights.

    Source: Smith et al. 2022, https://arxiv.org/abs/2208.04933, appendix G.1.
    """

    def __init__(self, d_in: int, d_out: int, **options: Any) -> None:
        super().__init__(d_in, d_out, **options)
        self.linear = nn.Linear(d_in, d_out)

    def forward(self, y: Tensor) -> Tensor:
        """``(B, L, d_in)``, of the same width."""
        value = super().forward(y)
        return self.dropout(value * torch.sigmoid(self.linear(value)))


class LinearHalfGLU(HalfGLU):
    """``y * sigmoid(W f(y) + b)``: only the gate is activated."""

    def forward(self, y: Tensor) -> Tensor:
        """``(B, L, d_in)``, of the same width."""
        return self.dropout(y * torch.sigmoid(self.linear(Activated.forward(self, y))))


OUTPUTS: dict[str, type[Activated]] = {
    "none": Activated,
    "linear": Projected,
    "glu": GLU,
    "half_glu": HalfGLU,
    "linear_half_glu": LinearHalfGLU,
}


def make_output(name: str, d_in: int, d_out: int, **options: Any) -> Activated:
    """One of :data:`OUTPUTS` by name.

    Raises:
        ValueError: the name is unknown, or its class refuses an argument.
    """
    if name not in OUTPUTS:
        raise ValueError(f"unknown output {name!r}; {nearest(name, OUTPUTS)}")
    return OUTPUTS[name](d_in, d_out, **options)


class Followed(Mixer):
    """A mixer and what is done to each position of its output by itself; the state is the mixer's.

    Args:
        mixer: the mixer.
        output: maps its output ``(B, L, D)`` to ``(B, L, d_model)``.
    """

    def __init__(self, mixer: Mixer, output: nn.Module) -> None:
        super().__init__()
        self.d_model = mixer.d_model
        self.causal, self.packs, self.memory = mixer.causal, mixer.packs, mixer.memory
        self.mixer, self.output = mixer, output

    def forward(self, x: Tensor, *, seq_idx: Tensor | None = None) -> Tensor:
        """Mix ``x (B, L, d_model)``."""
        return hide_padding(self.output(self.mixer(x, seq_idx=seq_idx)), seq_idx)

    def forward_state(
        self, x: Tensor, state: Any | None = None, *, seq_idx: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """Mix ``x`` from ``state`` on."""
        y, state = self.mixer.forward_state(x, state, seq_idx=seq_idx)
        return hide_padding(self.output(y), seq_idx), state

    def init_state(
        self,
        batch_size: int,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> Any:
        """The mixer's."""
        return self.mixer.init_state(batch_size, device=device, dtype=dtype)

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Mix one position, ``(B, d_model)``."""
        y, state = self.mixer.step(x, state)
        return self.output(y[:, None])[:, 0], state
