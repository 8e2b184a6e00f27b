"""The sums over states on a CPU: from tensors to planes of 16 states, and back."""

import torch
from torch import Tensor

from tristate.kernels.cpu.memory import empty, zeros
from tristate.kernels.cpu.runtime import Kernel, threads

_evaluate = Kernel("tristate.kernels.ssm_kernel.cpu_vandermonde", "evaluate")
_moments = Kernel("tristate.kernels.ssm_kernel.cpu_vandermonde", "moments")
_cauchy = Kernel("tristate.kernels.ssm_kernel.cpu_cauchy", "forward")
_cauchy_backward = Kernel("tristate.kernels.ssm_kernel.cpu_cauchy", "backward")

LANES = 16
# As in the kernels: positions that share powers, blocks taken together, nodes of a tile.
STEPS, ROWS, TILE = 64, 4, 16
# Below this many terms a second thread costs more than it brings.
SMALL = 1 << 16


def vandermonde(coefficient: Tensor, exponent: Tensor, length: int) -> Tensor:
    """``2 Re sum_n c exp(z l)``, ``(R, D, L)`` float32, for ``c (R, D, N)`` and ``z (D, N)``."""
    n_rows, dim, n_states = coefficient.shape
    planes, c = _exponent_planes(exponent), _planes(2 * coefficient)
    width = planes.shape[-1]
    out = empty(n_rows, dim, length)
    n_tasks = _n_tasks(dim, n_rows * n_states * length)
    room = LANES + 2 * n_states * STEPS + 4 * width * ROWS
    scratch = empty(n_tasks * room)
    _evaluate(
        n_tasks,
        n_tasks,
        planes.data_ptr(),
        c.data_ptr(),
        out.data_ptr(),
        scratch.data_ptr(),
        4 * room,
        n_rows,
        dim,
        n_states,
        4 * width,
        length,
    )
    return out


def moments(x: Tensor, exponent: Tensor) -> tuple[Tensor, Tensor]:
    """``sum_l x exp(z l)`` and ``sum_l l x exp(z l)``, ``(R, D, N)``, for ``x (R, D, L)``."""
    n_rows, dim, length = x.shape
    n_states = exponent.shape[1]
    x, planes = x.float(), _exponent_planes(exponent)
    width = planes.shape[-1]
    out = empty(n_rows, dim, 4, width)
    n_tasks = _n_tasks(dim, n_rows * n_states * length)
    room = 2 * width * (STEPS + 1)
    scratch = empty(n_tasks * room)
    _moments(
        n_tasks,
        n_tasks,
        planes.data_ptr(),
        x.data_ptr(),
        *(4 * stride for stride in x.stride()),
        out.data_ptr(),
        scratch.data_ptr(),
        4 * room,
        n_rows,
        dim,
        4 * width,
        length,
    )
    out = out[..., :n_states]
    return torch.complex(out[:, :, 0], out[:, :, 1]), torch.complex(out[:, :, 2], out[:, :, 3])


def cauchy(coefficient: Tensor, nodes: Tensor, poles: Tensor) -> Tensor:
    """``(R, D, L)`` for coefficients ``(R, D, N)``, nodes ``(L,)`` and poles ``(D, N)``."""
    n_rows, dim, n_states = coefficient.shape
    length = nodes.shape[0]
    v, w, z = _planes(coefficient), _planes(poles), _planes(nodes)
    out = empty(n_rows, dim, length, dtype=torch.complex64)
    n_tasks = _n_tasks(dim, n_rows * n_states * length)
    room = LANES * (2 + 4 * n_states)
    scratch = empty(n_tasks * room)
    _cauchy(
        n_tasks,
        n_tasks,
        z.data_ptr(),
        4 * z.shape[-1],
        w.data_ptr(),
        v.data_ptr(),
        out.data_ptr(),
        scratch.data_ptr(),
        4 * room,
        n_rows,
        dim,
        n_states,
        4 * w.shape[-1],
        length,
    )
    return out


def cauchy_backward(
    grad: Tensor, coefficient: Tensor, nodes: Tensor, poles: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of the coefficients and of the poles."""
    n_rows, dim, n_states = coefficient.shape
    w, z = _planes(poles), _planes(nodes)
    width = w.shape[-1]
    grad = grad.contiguous()
    out = empty(n_rows, dim, 4, width)
    n_tasks = _n_tasks(dim, n_rows * n_states * nodes.shape[0])
    room = 8 * LANES * TILE
    scratch = empty(n_tasks * room)
    _cauchy_backward(
        n_tasks,
        n_tasks,
        grad.data_ptr(),
        z.data_ptr(),
        4 * z.shape[-1],
        w.data_ptr(),
        out.data_ptr(),
        scratch.data_ptr(),
        4 * room,
        n_rows,
        dim,
        4 * width,
        nodes.shape[0],
    )
    out = out[..., :n_states]
    through = torch.complex(out[:, :, 2], out[:, :, 3])
    # Not conj(): while a program is traced, a view that says "conjugate" is not listened to here.
    of_poles = (coefficient.conj_physical() * through).sum(0)
    return torch.complex(out[:, :, 0], out[:, :, 1]), of_poles


def _exponent_planes(exponent: Tensor) -> Tensor:
    """``(D, 5, padded N)``: rate, turns and their rest for a step, both for ``STEPS`` steps."""
    dim, n_states = exponent.shape
    turns = exponent.imag.double() / (2 * torch.pi)
    many = STEPS * turns
    planes = zeros(dim, 5, _padded(n_states))
    planes[:, 0, :n_states] = exponent.real
    for plane, phase in ((1, turns), (3, many)):
        # Whole turns don't count; what float32 can't hold is kept beside it.
        phase = phase - phase.round()
        planes[:, plane, :n_states] = phase
        planes[:, plane + 1, :n_states] = phase - planes[:, plane, :n_states]
    return planes


def _planes(x: Tensor) -> Tensor:
    """``(..., 2, padded N)``: the real and the imaginary parts of ``(..., N)``, zeros behind."""
    *outer, n = x.shape
    planes = zeros(*outer, 2, _padded(n))
    planes[..., 0, :n] = x.real
    planes[..., 1, :n] = x.imag
    return planes


def _padded(n: int) -> int:
    return -(-n // LANES) * LANES


def _n_tasks(dim: int, n_terms: int) -> int:
    """One for each thread, which takes its share of the channels."""
    return 1 if dim * n_terms < SMALL else threads(dim)
