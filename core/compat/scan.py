"""The functions of mamba-ssm around the selective scan: https://github.com/state-spaces/mamba.

Shapes are the original's, ``(B, D, L)``; any strides are as good, and nothing is copied for them.
"""

from typing import Any, NamedTuple

from torch import Tensor
from torch.nn import functional as F

from tristate.core.compat import rows
from tristate.kernels import selective as kernels
from tristate.kernels.conv import causal_conv1d
from tristate.kernels.cross import bidirectional_selective_scan


def selective_scan_fn(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """:func:`tristate.kernels.selective.selective_scan`; the last state has a gradient here."""
    return kernels.selective_scan(
        u, delta, A, B, C, D, z, delta_bias, delta_softplus, return_last_state
    )


def selective_state_update(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    state_batch_indices: Tensor | None = None,
) -> Tensor:
    """:func:`tristate.kernels.selective.selective_state_update`.

    ``state_batch_indices (B,)`` says in which row of a larger ``state`` each row of ``x`` has its
    own; one below 0 has none, and gets zeros.
    """

    def step(
        state: Tensor, x: Tensor, dt: Tensor, B: Tensor, C: Tensor, z: Tensor | None
    ) -> Tensor:
        return kernels.selective_state_update(state, x, dt, A, B, C, D, z, dt_bias, dt_softplus)

    if state_batch_indices is None:
        return step(state, x, dt, B, C, z)
    return rows.update(step, state, state_batch_indices, x, dt, B, C, z)


class ScanInputs(NamedTuple):
    """What a branch hands to its scan."""

    u: Tensor  # (B, D, L)
    delta: Tensor  # (B, D, L)
    B: Tensor  # (B, N, L), (B, N, 2 L) where A is complex, or (D, N) constant
    C: Tensor


class RmsNorms(NamedTuple):
    """Weights of the norms that FalconMamba has on its projections; None where there is none."""

    B: Tensor | None = None  # (N,)
    C: Tensor | None = None  # (N,)
    dt: Tensor | None = None  # (D,)
    eps: float = 1e-6


def scan_inputs(
    x: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Tensor | None,
    x_proj_weight: Tensor,
    delta_proj_weight: Tensor,
    A: Tensor,
    B: Tensor | None = None,
    C: Tensor | None = None,
    B_proj_bias: Tensor | None = None,
    C_proj_bias: Tensor | None = None,
    norms: RmsNorms | None = None,
    *,
    reverse: bool = False,
) -> ScanInputs:
    """Convolution, SiLU and the projections to step sizes and, where not given, ``B`` and ``C``.

    Args:
        x: input, ``(B, D, L)``.
        conv1d_weight: ``(D, 1, W)``.
        conv1d_bias: ``(D,)``.
        x_proj_weight: ``(R + 2 N, D)``, ``(R + 4 N, D)`` where ``A`` is complex.
        delta_proj_weight: ``(D, R)``.
        A: decay rates, ``(D, N)``.
        B: input weights; projected from the input when absent.
        C: output weights; projected from the input when absent.
        B_proj_bias: added to the projected ``B``.
        C_proj_bias: added to the projected ``C``.
        norms: of what is projected. ``dt`` is normalised before it is widened, as FalconMamba does
            when it generates; the weight, one a channel, applies after.
        reverse: read time backwards.
    """
    weight = conv1d_weight.squeeze(1)
    u: Any = causal_conv1d(x, weight, conv1d_bias, activation="silu", reverse=reverse)
    norms = norms or RmsNorms()
    rank, width = delta_proj_weight.shape[1], A.shape[1] * (2 if A.is_complex() else 1)
    parts = F.linear(u.transpose(1, 2), x_proj_weight).split([rank, width, width], dim=2)
    dt = parts[0] if norms.dt is None else F.rms_norm(parts[0], (rank,), eps=norms.eps)
    delta = F.linear(dt, delta_proj_weight)
    if norms.dt is not None:
        delta = delta * norms.dt.to(delta.dtype)
    if B is None:
        B = _weights(parts[1], B_proj_bias, norms.B, norms.eps, A.is_complex())
    if C is None:
        C = _weights(parts[2], C_proj_bias, norms.C, norms.eps, A.is_complex())
    return ScanInputs(u, delta.transpose(1, 2), B, C)


def _weights(
    projected: Tensor, bias: Tensor | None, norm: Tensor | None, eps: float, pairs: bool
) -> Tensor:
    """``(B, L, N)`` as the scan takes it, ``(B, N, L)``; real and imaginary parts in turn."""
    if bias is not None:
        projected = projected + bias.to(projected.dtype)
    if norm is not None:
        projected = F.rms_norm(projected, norm.shape, norm.to(projected.dtype), eps)
    if not pairs:
        return projected.transpose(1, 2)
    return projected.unflatten(2, (-1, 2)).transpose(1, 2).flatten(2)


def mamba_inner_fn_no_out_proj(
    xz: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Tensor | None,
    x_proj_weight: Tensor,
    delta_proj_weight: Tensor,
    A: Tensor,
    B: Tensor | None = None,
    C: Tensor | None = None,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    B_proj_bias: Tensor | None = None,
    C_proj_bias: Tensor | None = None,
    delta_softplus: bool = True,
) -> Tensor:
    """A Mamba mixer between its two projections: ``xz (B, 2 D, L)`` to ``(B, D, L)``.

    The weights are those of :func:`scan_inputs`; ``D`` and ``delta_bias`` are ``(D,)``.

    Source: https://github.com/hustvl/Vim, ``mamba_ssm/ops/selective_scan_interface.py``.
    """
    x, z = xz.chunk(2, dim=1)
    u, delta, B, C = scan_inputs(
        x,
        conv1d_weight,
        conv1d_bias,
        x_proj_weight,
        delta_proj_weight,
        A,
        B,
        C,
        B_proj_bias,
        C_proj_bias,
    )
    y: Any = kernels.selective_scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
    return y


def mamba_inner_fn(
    xz: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Tensor | None,
    x_proj_weight: Tensor,
    delta_proj_weight: Tensor,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    A: Tensor,
    B: Tensor | None = None,
    C: Tensor | None = None,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    B_proj_bias: Tensor | None = None,
    C_proj_bias: Tensor | None = None,
    delta_softplus: bool = True,
    checkpoint_lvl: int = 1,
    b_rms_weight: Tensor | None = None,
    c_rms_weight: Tensor | None = None,
    dt_rms_weight: Tensor | None = None,
    b_c_dt_rms_eps: float = 1e-6,
) -> Tensor:
    """A Mamba mixer after its first projection: ``xz (B, 2 D, L)`` to ``(B, L, d_model)``.

    The weights are those of :func:`scan_inputs`. ``checkpoint_lvl`` chose what the original
    computes again in its backward, and is not used. With ``dt_rms_weight`` the original normalises
    the widened step sizes, unlike FalconMamba's own step by step form; here both agree.
    """
    x, z = xz.chunk(2, dim=1)
    u, delta, B, C = scan_inputs(
        x,
        conv1d_weight,
        conv1d_bias,
        x_proj_weight,
        delta_proj_weight,
        A,
        B,
        C,
        B_proj_bias,
        C_proj_bias,
        RmsNorms(b_rms_weight, c_rms_weight, dt_rms_weight, b_c_dt_rms_eps),
    )
    y: Any = kernels.selective_scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
    return F.linear(y.transpose(1, 2), out_proj_weight, out_proj_bias)


def bimamba_inner_fn(
    xz: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Tensor | None,
    x_proj_weight: Tensor,
    delta_proj_weight: Tensor,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    A: Tensor,
    A_b: Tensor,
    B: Tensor | None = None,
    C: Tensor | None = None,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    B_proj_bias: Tensor | None = None,
    C_proj_bias: Tensor | None = None,
    delta_softplus: bool = True,
) -> Tensor:
    """:func:`mamba_inner_fn` with a second scan of the same inputs from the end, decaying by A_b.

    Source: https://github.com/hustvl/Vim, ``mamba_ssm/ops/selective_scan_interface.py``.
    """
    x, z = xz.chunk(2, dim=1)
    u, delta, B, C = scan_inputs(
        x,
        conv1d_weight,
        conv1d_bias,
        x_proj_weight,
        delta_proj_weight,
        A,
        B,
        C,
        B_proj_bias,
        C_proj_bias,
    )
    y = bidirectional_selective_scan(u, delta, (A, A_b), B, C, D, z, delta_bias, delta_softplus)
    return F.linear(y.transpose(1, 2), out_proj_weight, out_proj_bias)
