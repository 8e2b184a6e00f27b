"""The kernels of state-space models against the same sums in PyTorch, over all terms at once."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tristate.kernels.longconv import long_conv
from tristate.kernels.ssm_kernel import cauchy, vandermonde
from tristate.recipes.bench.cases import Case

# name: channels, states, positions
SIZES = {"1,024 steps": (256, 32, 1 << 10), "16,384 steps": (64, 32, 1 << 14)}
LAYER = (2, 64, 32, 1 << 14)  # sequences, channels, states, steps


def cases(quick: bool) -> Iterator[Case]:
    """One case a sum and size; then kernel and convolution together, as in an S4D layer."""
    for name, (dim, n_states, length) in SIZES.items():
        shape = {"D": dim, "N": n_states, "L": length}
        for what, ours, peer in (
            ("vandermonde", _vandermonde, every_power),
            ("cauchy", _cauchy, every_fraction),
        ):
            peers = {"PyTorch, all terms": partial(peer, length=length)}
            inputs = _states(dim, n_states)
            yield Case(f"{what}, {name}", shape, inputs, partial(ours, length=length), peers)
    batch, dim, n_states, length = LAYER
    inputs = {"x": torch.randn(batch, dim, length), "D": torch.randn(dim)} | _states(dim, n_states)
    shape = {"B": batch, "D": dim, "N": n_states, "L": length}
    yield Case("S4D's kernel and convolution", shape, inputs, _layer, {"minimal S4D": minimal_s4d})


def _states(dim: int, n_states: int) -> dict[str, Tensor]:
    """Coefficients and exponents, ``(D, N)``, in two real parts each."""
    return {
        "real": torch.randn(dim, n_states),
        "imaginary": torch.randn(dim, n_states),
        "rate": -0.01 - 0.05 * torch.rand(dim, n_states),
        "turn": torch.arange(n_states) * 0.03 * torch.rand(dim, 1),
    }


def _complex(*parts: Tensor) -> tuple[Tensor, Tensor]:
    real, imaginary, rate, turn = parts
    return torch.complex(real, imaginary), torch.complex(rate, turn)


def _vandermonde(length: int, **states: Tensor) -> Any:
    return vandermonde(*_complex(*states.values()), length, backend="cpu")


def every_power(length: int, **states: Tensor) -> Tensor:
    """All powers, ``D * N * L`` complex numbers, and their sum."""
    c, z = _complex(*states.values())
    powers = torch.exp(z[..., None] * torch.arange(length))
    return 2 * torch.einsum("dn,dnl->dl", c, powers).real


def _nodes(length: int) -> Tensor:
    """Half of the unit circle, mapped onto the imaginary axis."""
    return 2j * torch.tan(torch.linspace(0, 1.5, length // 2 + 1))


def _cauchy(length: int, **states: Tensor) -> Any:
    v, w = _complex(*states.values())
    return cauchy(v, _nodes(length), w, backend="cpu").abs()


def every_fraction(length: int, **states: Tensor) -> Tensor:
    """All fractions of all pairs, as S4 does without its CUDA kernel."""
    v, w = _complex(*states.values())
    v, w = torch.cat([v, v.conj()], 1), torch.cat([w, w.conj()], 1)
    return (v[..., None] / (_nodes(length) - w[..., None])).sum(1).abs()


def _layer(x: Tensor, D: Tensor, **states: Tensor) -> Any:
    c, z = _complex(*states.values())
    kernel = vandermonde(c * torch.expm1(z) / z, z, x.shape[2], backend="cpu")
    return long_conv(x, kernel, D, backend="cpu")


def minimal_s4d(x: Tensor, D: Tensor, **states: Tensor) -> Tensor:
    """Kernel and convolution as the public minimal S4D computes them."""
    c, z = _complex(*states.values())
    length = x.shape[2]
    c = c * (torch.exp(z) - 1) / z
    powers = torch.exp(z[..., None] * torch.arange(length))
    kernel = 2 * torch.einsum("hn,hnl->hl", c, powers).real
    spectrum = torch.fft.rfft(x, n=2 * length) * torch.fft.rfft(kernel, n=2 * length)
    return torch.fft.irfft(spectrum, n=2 * length)[..., :length] + D[:, None] * x
