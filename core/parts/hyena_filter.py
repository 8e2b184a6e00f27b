"""Hyena's implicit filter: taps computed from their positions by a small network."""

import math

import torch
from torch import Tensor, nn

from tristate.core.mixer import at_least_float32
from tristate.core.parts.memo import Memo
from tristate.core.parts.wide import wide_linear


class HyenaFilter(nn.Module):
    """Taps ``h[t] = network(z[t]) * (exp(-t |delta|) + shift)`` of ``n_channels`` long filters.

    ``z`` holds time and a few complex exponentials of it; the network is linear layers with sines
    of learnt frequencies between, so that few parameters make long filters of any detail; each
    channel fades at a pace of its own. Time counts from 0 to 1 over ``max_length`` positions.

    Time and memory O(L (d_hidden^2 n_hidden + d_hidden n_channels)), parameters without the ``L``
    (but for the positions themselves, which are parameters too unless told otherwise).

    Args:
        n_channels: filters.
        max_length: taps of each.
        d_position: width of ``z``: 1 and two for each exponential, odd.
        d_hidden: width of the network.
        n_hidden: layers between its first and its last.
        frequency: initial frequency of the sines; more makes rougher filters.
        learn_positions: train ``z``.
        normalized: divide each tap by the sum of absolute values over the channels.
        modulate: let the filters fade.
        fast_decay: part of ``max_length`` in which the last channel falls to ``target``.
        slow_decay: part of ``max_length`` in which the first channel does.
        target: what the fading reaches.
        shift: what is left of every tap however late.
        learn_decay: train ``delta``.

    Raises:
        ValueError: ``d_position`` is even or below 3.

    Source: Poli et al. 2023, https://arxiv.org/abs/2302.10866, section 3.3 and appendix D;
    https://github.com/HazyResearch/safari. Sines as in SIREN, https://arxiv.org/abs/2006.09661.
    """

    def __init__(
        self,
        n_channels: int,
        max_length: int,
        *,
        d_position: int = 3,
        d_hidden: int = 64,
        n_hidden: int = 2,
        frequency: float = 1.0,
        learn_positions: bool = True,
        normalized: bool = False,
        modulate: bool = True,
        fast_decay: float = 0.3,
        slow_decay: float = 1.5,
        target: float = 1e-2,
        shift: float = 0.0,
        learn_decay: bool = False,
    ) -> None:
        super().__init__()
        if d_position < 3 or d_position % 2 == 0:
            raise ValueError(f"d_position must be odd and 3 at least, got {d_position}")
        self.n_channels, self.max_length = n_channels, max_length
        self.normalized, self.modulate, self.shift = normalized, modulate, shift
        widths = [d_position, *[d_hidden] * (n_hidden + 1), n_channels]
        last = len(widths) - 2
        self.layers = nn.ModuleList(
            nn.Linear(before, after, bias=i < last)
            for i, (before, after) in enumerate(zip(widths[:-1], widths[1:], strict=True))
        )
        self.freq = nn.Parameter(torch.full((d_hidden,), float(frequency)))

        self.register_buffer("times", torch.linspace(0, 1, max_length))
        positions = _positions(max_length, (d_position - 1) // 2)
        deltas = torch.linspace(
            math.log(target) / slow_decay, math.log(target) / fast_decay, n_channels
        )
        self._place("positions", positions, learn_positions)
        self._place("deltas", deltas, learn_decay)
        for name, parameter in self.named_parameters():
            # As released: a filter changes everywhere at once, and its positions more so.
            parameter._no_weight_decay = True  # pyright: ignore[reportAttributeAccessIssue]
            most = 1e-5 if name == "positions" else 1e-3
            parameter._max_lr = most  # pyright: ignore[reportAttributeAccessIssue]
        self._memo: Memo[Tensor] = Memo()

    times: Tensor
    positions: Tensor  # (max_length, d_position)
    deltas: Tensor  # (n_channels,)

    def forward(self, length: int) -> Tensor:
        """The first ``length`` taps, ``(n_channels, length)``, at least float32."""
        z = at_least_float32(self.positions[:length])
        for i, layer in enumerate(self.layers):
            if i:
                z = torch.sin(self.freq.to(z.dtype) * z)
            z = wide_linear(z, layer)
        if self.normalized:
            z = z / z.abs().sum(-1, keepdim=True)
        if self.modulate:
            times = self.times[:length, None].to(z.dtype)
            z = z * (torch.exp(-times * self.deltas.abs().to(z.dtype)) + self.shift)
        return z.T

    def remembered(self) -> Tensor:
        """All taps, computed once while nothing changes where no gradients are wanted."""
        tensors = [*self.parameters(), *self.buffers()]
        return self._memo(tensors, None, lambda: self(self.max_length))

    def _place(self, name: str, value: Tensor, learn: bool) -> None:
        if learn:
            self.register_parameter(name, nn.Parameter(value))
        else:
            self.register_buffer(name, value)


def _positions(length: int, n_bands: int) -> Tensor:
    """Time and ``exp(-i f w)``, real parts first, ``(length, 1 + 2 n_bands)``."""
    turns = 2 * math.pi * torch.arange(length, dtype=torch.float64) / length
    phase = -turns[:, None] * torch.linspace(1e-4, n_bands - 1, n_bands, dtype=torch.float64)
    times = torch.linspace(0, 1, length, dtype=torch.float64)[:, None]
    return torch.cat([times, phase.cos(), phase.sin()], 1).to(torch.get_default_dtype())
