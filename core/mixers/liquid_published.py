"""Liquid-S4 as its code computes it, for weights of the original."""

import itertools
import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tristate.core.mixer import Mixer, refuse_segments
from tristate.core.parts.pointwise import make_output
from tristate.core.ssm.base import StateSpace
from tristate.kernels.longconv import long_conv, two_sided

# Layer, products of each degree, kernel and points of its transform -> what to add.
Liquid = Callable[["PublishedLiquidS4", list[Tensor], Tensor, int], Tensor]


class PublishedLiquidS4(Mixer):
    """Liquid-S4 with the products of inputs that https://github.com/raminmh/liquid-s4 takes.

    Its linear part is S4's. What it adds differs from the paper's model, which is
    :class:`tristate.core.mixers.liquid_s4.LiquidS4`:

    - a product of degree ``p`` at position ``t`` is not that of the last ``p`` inputs. With
      ``all_combinations`` it is number ``t`` in the list of all products of ``p`` of the last few
      inputs of the sequence, without it ``u[t] u[t-1]`` squared again and again with its own past;
      then the products are reversed in time;
    - they are weighed by the parameters as they were at the start, which are not trained and not in
      a checkpoint: ``frozen_B``, ``frozen_C``, ``frozen_A``, ``frozen_dt``, each ``(H, N)``;
    - PB multiplies position by position. KB multiplies the products' spectrum by one of the kernel
      at other frequencies, those of a transform half as long.

    So an output depends on where the sequence ends: there is no state.

    Args:
        ssm: the linear part, with one output a channel, two where it is bidirectional.
        liquid: adds the products, :func:`kernel_times_b` or :func:`powers_of_b`; None leaves S4.
        degree: of the products, at least 2.
        all_combinations: see above.
        contract: applied to the products; None leaves them as they are.
        bidirectional: look back and ahead.
        kernel_length: how far, in positions at rate 1; None for all of it.
        activation: behind the sum.
        output: what follows, a name in :data:`tristate.core.parts.pointwise.OUTPUTS`.
        d_out: width of the output; that of the input when absent.
        dropout: rate, behind the activation and at the end.
    """

    causal = False
    memory = "none"
    frozen_A: Tensor
    frozen_B: Tensor
    frozen_C: Tensor
    frozen_dt: Tensor

    def __init__(
        self,
        ssm: StateSpace,
        liquid: Liquid | None,
        *,
        degree: int = 2,
        all_combinations: bool = True,
        contract: Callable[[Tensor], Tensor] | None = None,
        bidirectional: bool = False,
        kernel_length: int | None = None,
        activation: str = "gelu",
        output: str = "glu",
        d_out: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.d_model, self.ssm, self.liquid = ssm.d_model, ssm, liquid
        self.degree, self.all_combinations = degree, all_combinations
        self.contract = contract
        self.bidirectional, self.kernel_length = bidirectional, kernel_length
        self.D = nn.Parameter(torch.randn(1, self.d_model))
        self.output = make_output(
            output, self.d_model, d_out or self.d_model, activation=activation, dropout=dropout
        )
        with torch.no_grad():
            dt, A, B, C = ssm._values()  # pyright: ignore[reportCallIssue]
        for name, tensor in {"A": A, "B": B, "C": C, "dt": dt}.items():
            self.register_buffer(f"frozen_{name}", tensor.clone(), persistent=False)

    def forward(self, x: Tensor, *, seq_idx: Tensor | None = None) -> Tensor:
        """Mix ``x (B, L, d_model)``."""
        refuse_segments(self, seq_idx)
        u = x.transpose(1, 2)
        length = u.shape[2]
        n_taps = length
        if self.kernel_length is not None:
            n_taps = min(length, round(self.kernel_length / self.ssm.rate))
        kernel = self.ssm.kernel(n_taps)
        if self.bidirectional:
            y = long_conv(u, two_sided(kernel[0], kernel[1]), self.D[0], origin=n_taps)
            # Lags ahead at the end of a circle.
            kernel = F.pad(kernel[0], (0, length)) + F.pad(kernel[1].flip(-1), (length, 0))
        else:
            y = long_conv(u, kernel[0], self.D[0])
            kernel = kernel[0]
        if self.liquid is not None:
            products = self._products(u)
            if self.contract is not None:
                products = [self.contract(product) for product in products]
            y = y + self.liquid(self, products, kernel, length + n_taps)
        return self.output(y.transpose(1, 2))

    def gains(self) -> tuple[Tensor, Tensor]:
        """The discretised ``B (H, N)`` at the start, and the sum of it over all states ``(H,)``."""
        B = self.frozen_dt / (1 - self.frozen_dt * self.frozen_A / 2) * self.frozen_B
        return B, 2 * B.sum(-1).real

    def _products(self, u: Tensor) -> list[Tensor]:
        """Of each degree from 2 on, ``(B, H, L)``, not yet reversed."""
        length, product, products = u.shape[2], u, []
        for degree in range(2, self.degree + 1):
            if self.all_combinations:
                chosen = _combinations(length, degree).to(u.device)
                product = u[..., chosen].prod(-1)
                product = F.pad(product, (0, length - product.shape[2]))
            else:
                product = product * F.pad(product[..., :-1], (1, 0))
            products.append(product)
        return products


def kernel_times_b(
    layer: PublishedLiquidS4, products: list[Tensor], kernel: Tensor, size: int
) -> Tensor:
    """KB: the products' spectra times the kernel's, from a complex transform half as long."""
    _, total = layer.gains()
    spectrum = torch.fft.fft(kernel, n=size // 2 + 1)
    y = torch.zeros_like(products[0])
    for power, product in enumerate(products, 1):
        seen = torch.fft.rfft(product.flip(-1), n=size)
        found = torch.fft.irfft(seen * spectrum * total[:, None] ** power, n=size)
        y = y + found[..., : product.shape[2]]
    return y


def powers_of_b(
    layer: PublishedLiquidS4, products: list[Tensor], kernel: Tensor, size: int
) -> Tensor:
    """PB: the products times a weight for each channel; ahead of it, too, in time."""
    B, total = layer.gains()
    y = torch.zeros_like(products[0])
    factor = torch.ones_like(total)
    for product in products:
        # What is called a power of B: B times the sum of the last one.
        factor = factor * (factor * total)
        weights = 2 * (layer.frozen_C * B).sum(-1).real * factor  # (1 or 2, H)
        y = y + weights[0, :, None] * product.flip(-1)
        if layer.bidirectional:
            y = y + weights[1, :, None] * product
    return y


@cache
def _combinations(length: int, degree: int) -> Tensor:
    """Places of the factors of each product, ``(M, degree)``, ``M`` at most ``length``.

    All ways to take ``degree`` of the last inputs, as few of which as make ``length`` products; in
    lexicographic order, the last ``length`` of them.

    Raises:
        ValueError: the sequence is too short for a single one.
    """
    enough = (n for n in range(2, length) if math.comb(n, degree) >= length)
    among = next(enough, 1)
    if among < degree:
        raise ValueError(f"{length} positions are too few for products of degree {degree}")
    chosen = list(itertools.combinations(range(length - among, length), degree))
    return torch.tensor(chosen[-length:])
