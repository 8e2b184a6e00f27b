"""The sums over states on a GPU: from tensors to the kernels, and back."""

from typing import Any

import torch
from torch import Tensor

from tristate.kernels.ssm_kernel import triton_cauchy, triton_vandermonde
from tristate.kernels.ssm_kernel.triton_powers import turns
from tristate.kernels.triton.launch import launch
from tristate.kernels.triton.plan import Tiles, halves, power_of_two
from tristate.kernels.triton.tune import tuned

# Lines that share the reading of the nodes, and nodes that share that of the parameters.
_LINES, _NODES = 8, 1024


def _powers_plans(coefficient: Tensor, exponent: Tensor, length: int) -> tuple[Tiles, ...]:
    return _plans(length, 64)


def _moments_plans(x: Tensor, exponent: Tensor) -> tuple[Tiles, ...]:
    return _plans(x.shape[2], 64)


def _cauchy_plans(coefficient: Tensor, nodes: Tensor, poles: Tensor) -> tuple[Tiles, ...]:
    return _plans(nodes.shape[0], 512)


def _cauchy_backward_plans(
    grad: Tensor, coefficient: Tensor, nodes: Tensor, poles: Tensor
) -> tuple[Tiles, ...]:
    return _plans(nodes.shape[0], 64)


def _plans(length: int, most: int) -> tuple[Tiles, ...]:
    """Tiles of at most so many positions; each has 16 states at a time."""
    steps = min(most, max(16, power_of_two(length)))
    return halves(Tiles(steps, channels=16, warps=4), "steps", least=16)


@tuned("vandermonde", _powers_plans)
def vandermonde(tile: Tiles, coefficient: Tensor, exponent: Tensor, length: int) -> Tensor:
    """``2 Re sum_n c exp(z l)``, ``(R, D, L)`` float32, for ``c (R, D, N)`` and ``z (D, N)``."""
    n_rows, dim, n_states = coefficient.shape
    out = coefficient.new_empty(n_rows, dim, length, dtype=torch.float32)
    sizes = _sizes(tile, n_rows, length)
    n_blocks = n_rows * -(-length // sizes["BLOCK_L"])
    launch(
        triton_vandermonde.evaluate,
        (dim, -(-n_blocks // sizes["BLOCK_M"])),
        coefficient=_pairs(coefficient),
        **_exponents(exponent),
        out=out,
        n_rows=n_rows,
        n_channels=dim,
        n_states=n_states,
        length=length,
        **sizes,
    )
    return out


@tuned("vandermonde_backward", _moments_plans)
def moments(tile: Tiles, x: Tensor, exponent: Tensor) -> tuple[Tensor, Tensor]:
    """``sum_l x exp(z l)`` and ``sum_l l x exp(z l)``, ``(R, D, N)``, for ``x (R, D, L)``."""
    n_rows, dim, length = x.shape
    n_states = exponent.shape[1]
    sizes = _sizes(tile, 1, length)
    n_chunks = -(-length // (sizes["BLOCK_L"] * sizes["BLOCK_M"]))
    out = x.new_empty(n_chunks, n_rows, dim, 4, n_states, dtype=torch.float32)
    launch(
        triton_vandermonde.moments,
        (n_chunks, dim, n_rows),
        x=x,
        **_exponents(exponent),
        out=out,
        n_rows=n_rows,
        n_channels=dim,
        n_states=n_states,
        length=length,
        **{f"x_{axis}": stride for axis, stride in zip("rdl", x.stride(), strict=True)},
        **sizes,
    )
    planes = out.sum(0).unbind(2)
    return torch.complex(planes[0], planes[1]), torch.complex(planes[2], planes[3])


@tuned("cauchy", _cauchy_plans)
def cauchy(tile: Tiles, coefficient: Tensor, nodes: Tensor, poles: Tensor) -> Tensor:
    """``(R, D, L)`` for coefficients ``(R, D, N)``, nodes ``(L,)`` and poles ``(D, N)``."""
    n_rows, dim, n_states = coefficient.shape
    length = nodes.shape[0]
    out = coefficient.new_empty(n_rows, dim, length)
    grid, sizes = _lines(tile, n_rows, dim, length, rows=4)
    launch(
        triton_cauchy.forward,
        grid,
        coefficient=_pairs(coefficient),
        nodes=_pairs(nodes),
        poles=_pairs(poles),
        out=torch.view_as_real(out),
        n_rows=n_rows,
        n_channels=dim,
        n_states=n_states,
        length=length,
        **sizes,
    )
    return out


@tuned("cauchy_backward", _cauchy_backward_plans)
def cauchy_backward(
    tile: Tiles, grad: Tensor, coefficient: Tensor, nodes: Tensor, poles: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of the coefficients and of the poles."""
    n_rows, dim, n_states = coefficient.shape
    length = nodes.shape[0]
    grid, sizes = _lines(tile, n_rows, dim, length, rows=2)
    out = coefficient.new_empty(grid[1], n_rows, dim, 4, n_states, dtype=torch.float32)
    launch(
        triton_cauchy.backward,
        grid,
        grad=_pairs(grad),
        nodes=_pairs(nodes),
        poles=_pairs(poles),
        out=out,
        n_rows=n_rows,
        n_channels=dim,
        n_states=n_states,
        length=length,
        **sizes,
        BLOCK_N=min(tile.channels, power_of_two(n_states)),
    )
    planes = out.sum(0).unbind(2)
    of_poles = (coefficient.conj_physical() * torch.complex(planes[2], planes[3])).sum(0)
    return torch.complex(planes[0], planes[1]), of_poles


def _exponents(exponent: Tensor) -> dict[str, Tensor]:
    return {"rates": exponent.real.contiguous(), "turns": turns(exponent).contiguous()}


def _sizes(tile: Tiles, n_rows: int, length: int) -> dict[str, int]:
    """Tiles of a matrix product; none of its sides is below 16."""
    rows = power_of_two(n_rows * -(-length // tile.steps))
    return {
        "BLOCK_M": min(32, max(16, rows)),
        "BLOCK_L": tile.steps,
        "BLOCK_N": tile.channels,
        "num_warps": tile.warps,
    }


def _lines(
    tile: Tiles, n_rows: int, dim: int, length: int, rows: int
) -> tuple[tuple[int, int, int], dict[str, int]]:
    """The grid, and how many rows, channels and nodes a program takes."""
    rows = min(rows, power_of_two(n_rows))
    channels = min(_LINES // rows, power_of_two(dim))
    tiles = max(1, min(_NODES, power_of_two(length)) // tile.steps)
    grid = -(-dim // channels), -(-length // (tiles * tile.steps)), -(-n_rows // rows)
    return grid, {
        "BLOCK_R": rows,
        "CHANNELS": channels,
        "TILES": tiles,
        "BLOCK_L": tile.steps,
        "num_warps": tile.warps,
    }


def _pairs(x: Tensor) -> Tensor:
    """Complex numbers as dense pairs of real ones."""
    dense: Any = x.resolve_conj().resolve_neg().contiguous()
    return torch.view_as_real(dense)
