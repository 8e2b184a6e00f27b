"""Mamba-2 between its projections: convolution, scan of heads, gate and norm."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tristate.kernels.conv import Activation, causal_conv1d
from tristate.kernels.norm import gated_rms_norm
from tristate.kernels.ssd import ssd_scan

NO_LIMIT = (0.0, float("inf"))


class SSDState(NamedTuple):
    """What the mixer remembers: a few inputs of the convolution, and a matrix a head."""

    conv: Tensor  # (B, H P + 2 G N, d_conv - 1)
    scan: Tensor  # (B, H, P, N)


def convolve_and_scan(
    projected: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor | None,
    dt_bias: Tensor,
    A: Tensor,
    D: Tensor,
    *,
    d_head: int,
    n_groups: int = 1,
    conv_state: Tensor | None = None,
    scan_state: Tensor | None = None,
    seq_idx: Tensor | None = None,
    dt_limit: tuple[float, float] = NO_LIMIT,
    activation: Activation = "silu",
    norm_weight: Tensor | None = None,
    norm_eps: float = 1e-5,
    norm_before_gate: bool = False,
    reverse: bool = False,
) -> tuple[Tensor, SSDState]:
    """What stands between Mamba-2's two projections.

    Args:
        projected: ``(B, L, 2 M + 2 E + 2 G N + H)`` with ``E = H P``, in this order: gates and
            values of the ``M`` channels of an MLP beside the scan, where there is one; gates of the
            scan, its input, ``B``, ``C`` and ``dt``.
        conv_weight: ``(E + 2 G N, W)``.
        conv_bias: ``(E + 2 G N,)``.
        dt_bias: ``(H,)``.
        A: decay rates, ``(H,)``, below 0.
        D: weight of the input in the output, ``(H,)`` or ``(H, P)``.
        d_head: ``P``.
        n_groups: ``G``, groups of heads that share ``B`` and ``C``.
        conv_state: the convolution's inputs before the first, ``(B, E + 2 G N, W - 1)``.
        scan_state: the scan's state before the first position, ``(B, H, P, N)``.
        seq_idx: segment of each position, ``(B, L)`` integers.
        dt_limit: the least and the largest step size.
        activation: of the convolution.
        norm_weight: of the gated RMS norm over each group's channels, ``(E,)``; without it the gate
            applies by itself.
        norm_eps: of that norm.
        norm_before_gate: gate what is normalised; else normalise what is gated.
        reverse: read time backwards.

    Returns:
        ``(B, L, M + E)``, and the states after the last real position.

    Source: Dao & Gu 2024, https://arxiv.org/abs/2405.21060, section 7.
    """
    n_heads = D.shape[0]
    width, conv_width = n_heads * d_head, conv_weight.shape[0]
    d_mlp = (projected.shape[-1] - width - conv_width - n_heads) // 2
    gate, mlp, z, xBC, dt = projected.split([d_mlp, d_mlp, width, conv_width, n_heads], dim=-1)
    convolved, conv_state = causal_conv1d(
        xBC.transpose(1, 2),
        conv_weight,
        conv_bias,
        seq_idx=seq_idx,
        initial_states=conv_state,
        return_final_states=True,
        activation=activation,
        reverse=reverse,
    )
    x, B, C = split_heads(convolved.transpose(1, 2), n_heads, d_head, n_groups)
    y, scan_state = ssd_scan(
        x,
        dt,
        A,
        B,
        C,
        D=D,
        z=z.unflatten(-1, (n_heads, d_head)) if norm_weight is None else None,
        dt_bias=dt_bias,
        initial_states=scan_state,
        seq_idx=seq_idx,
        dt_softplus=True,
        dt_limit=dt_limit,
        return_final_states=True,
        reverse=reverse,
    )
    y = y.flatten(2)
    if norm_weight is not None:
        y = gated_rms_norm(
            y,
            norm_weight,
            z,
            eps=norm_eps,
            group_size=width // n_groups,
            norm_before_gate=norm_before_gate,
        )
    if d_mlp > 0:
        y = torch.cat([F.silu(gate) * mlp, y], dim=-1)
    return y, SSDState(conv_state, scan_state)


def split_heads(
    xBC: Tensor, n_heads: int, d_head: int, n_groups: int
) -> tuple[Tensor, Tensor, Tensor]:
    """What the convolution gives, ``(..., H P + 2 G N)``, as the scan takes it.

    Returns:
        ``x (..., H, P)``, and ``B`` and ``C (..., G, N)``.
    """
    d_groups = (xBC.shape[-1] - n_heads * d_head) // 2
    x, B, C = xBC.split([n_heads * d_head, d_groups, d_groups], dim=-1)
    return (
        x.unflatten(-1, (n_heads, d_head)),
        B.unflatten(-1, (n_groups, -1)),
        C.unflatten(-1, (n_groups, -1)),
    )
