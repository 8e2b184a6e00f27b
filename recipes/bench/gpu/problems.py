"""Inputs of the ops, made on a GPU: sequences in bfloat16, parameters and scans in float32."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, normalize

Sizes = dict[str, int]
Problem = Callable[[Sizes, torch.device], dict[str, Tensor]]

HALF = torch.bfloat16


def _random(device: torch.device, dtype: torch.dtype = HALF) -> Callable[..., Tensor]:
    generator = torch.Generator(device).manual_seed(0)
    return partial(torch.randn, generator=generator, dtype=dtype, device=device)


def selective(sizes: Sizes, device: torch.device, channels_last: bool = False) -> dict[str, Tensor]:
    """Sequences in bfloat16, parameters in float32."""
    batch, dim, length, n_states, groups = (sizes[k] for k in ("B", "D", "L", "N", "groups"))
    randn = _random(device)

    def sequence(*channels: int) -> Tensor:
        if channels_last:
            return randn(batch, length, *channels).movedim(1, -1)
        return randn(batch, *channels, length)

    rates = -torch.arange(1.0, n_states + 1, device=device).expand(dim, -1).contiguous()
    weights = {name: sequence(groups, n_states) for name in "BC"}
    return {
        "u": sequence(dim),
        "delta": sequence(dim),
        "A": rates,
        **weights,
        "D": torch.ones(dim, device=device),
        "z": sequence(dim),
        "delta_bias": torch.full((dim,), -4.0, device=device),
    }


def both_ways(sizes: Sizes, device: torch.device) -> dict[str, Tensor]:
    """Vim's branches, each with parameters of its own."""
    ahead = selective(sizes, device)
    return ahead | {f"{k}_back": x.clone() for k, x in ahead.items() if k != "z"}


def linear(sizes: Sizes, device: torch.device) -> dict[str, Tensor]:
    """A real decay that varies in time."""
    shape = sizes["B"], sizes["L"], sizes["D"]
    return {
        "a": torch.rand(shape, device=device),
        "b": _random(device, torch.float32)(*shape),
    }


def linear_complex(sizes: Sizes, device: torch.device) -> dict[str, Tensor]:
    """A decay that is constant in time, as S5's and LRU's."""
    randn = _random(device, torch.complex64)
    angle = torch.linspace(0, 3, sizes["D"], device=device)
    a = torch.polar(torch.full_like(angle, 0.999), angle)
    return {"a": a, "b": randn(sizes["B"], sizes["L"], sizes["D"])}


def ssd(sizes: Sizes, device: torch.device) -> dict[str, Tensor]:
    """One group; as :func:`selective`, in the axes of Mamba-2."""
    batch, length, heads, width, n_states = (sizes[k] for k in "BLHPN")
    randn = _random(device)
    return {
        "x": randn(batch, length, heads, width),
        "dt": randn(batch, length, heads),
        "A": -torch.linspace(1, 16, heads, device=device),
        "B": randn(batch, length, 1, n_states),
        "C": randn(batch, length, 1, n_states),
        "D": torch.ones(heads, device=device),
        "z": randn(batch, length, heads, width),
        "dt_bias": torch.full((heads,), -4.0, device=device),
    }


def conv(sizes: Sizes, device: torch.device) -> dict[str, Tensor]:
    """Channels before time."""
    randn = _random(device)
    x = randn(sizes["B"], sizes["D"], sizes["L"])
    return {"x": x, "weight": randn(sizes["D"], sizes["width"]), "bias": randn(sizes["D"])}


def attention(sizes: Sizes, device: torch.device) -> dict[str, Tensor]:
    """Gated linear attention: a decay by key channel."""
    batch, length, heads, d_key, d_value = (sizes[k] for k in "BLHKV")
    randn = _random(device)
    return {
        "q": randn(batch, length, heads, d_key),
        "k": randn(batch, length, heads, d_key),
        "v": randn(batch, length, heads, d_value),
        "g": logsigmoid(randn(batch, length, heads, d_key) + 3),
    }


def delta(sizes: Sizes, device: torch.device) -> dict[str, Tensor]:
    """Keys of length one."""
    inputs = attention(sizes, device)
    return inputs | {
        "k": normalize(inputs["k"], dim=-1),
        "beta": inputs["g"][..., 0].exp(),
        "g": inputs["g"][..., 0].float(),
    }


def wkv(sizes: Sizes, device: torch.device) -> dict[str, Tensor]:
    """All in float32."""
    randn = _random(device, torch.float32)
    shape = sizes["B"], sizes["L"], sizes["D"]
    w = -torch.rand(sizes["D"], device=device)
    return {"k": randn(*shape), "v": randn(*shape), "w": w, "u": randn(sizes["D"])}


def powers(sizes: Sizes, device: torch.device) -> dict[str, Tensor]:
    """Coefficients and exponents of S4D."""
    randn = _random(device, torch.complex64)
    shape = sizes["D"], sizes["N"]
    exponent = torch.complex(-torch.rand(shape, device=device), randn(*shape).real)
    return {"coefficient": randn(*shape), "exponent": 0.01 * exponent}


def rows(*names: str) -> Problem:
    """A weight, and rows under these names."""

    def problem(sizes: Sizes, device: torch.device) -> dict[str, Tensor]:
        randn = _random(device)
        weight = torch.ones(sizes["D"], dtype=HALF, device=device)
        return {"weight": weight} | {name: randn(sizes["rows"], sizes["D"]) for name in names}

    return problem
