"""The functions of mamba-ssm around the scan of Mamba-2: https://github.com/state-spaces/mamba."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tristate.core.parts.ssd import NO_LIMIT, convolve_and_scan
from tristate.kernels.conv import Activation
from tristate.kernels.ssd import ssd_scan


def mamba_chunk_scan_combined(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    chunk_size: int,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    initial_states: Tensor | None = None,
    seq_idx: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = NO_LIMIT,
    return_final_states: bool = False,
    return_varlen_states: bool = False,
) -> Any:
    """:func:`tristate.kernels.ssd.ssd_scan`.

    ``cu_seqlens`` counts only with ``return_varlen_states``, as in the original: then the states
    after each of its sequences, ``(sequences, H, P, N)``, are returned last.

    Raises:
        ValueError: ``return_varlen_states`` comes without ``cu_seqlens``, or the shapes disagree.
    """
    options: dict[str, Any] = {
        "D": D,
        "dt_bias": dt_bias,
        "dt_softplus": dt_softplus,
        "dt_limit": dt_limit,
        "return_final_states": True,
    }
    if not return_varlen_states:
        out, last = ssd_scan(
            x,
            dt,
            A,
            B,
            C,
            chunk_size,
            z=z,
            initial_states=initial_states,
            seq_idx=seq_idx,
            **options,
        )
        return (out, last) if return_final_states else out
    if cu_seqlens is None:
        raise ValueError("return_varlen_states needs cu_seqlens")
    sizes = cu_seqlens.diff().tolist()
    parts: list[Any] = [
        [None] * len(sizes) if part is None else part.split(sizes, dim=1)
        for part in (x, dt, B, C, z)
    ]
    outs, states = [], []
    for x_part, dt_part, B_part, C_part, z_part in zip(*parts, strict=True):
        first = initial_states if not outs else None
        out, last = ssd_scan(
            x_part,
            dt_part,
            A,
            B_part,
            C_part,
            chunk_size,
            z=z_part,
            initial_states=first,
            **options,
        )
        outs.append(out)
        states.append(last)
    results = (torch.cat(outs, 1), states[-1], torch.cat(states))
    return results if return_final_states else results[::2]


def mamba_split_conv1d_scan_combined(
    zxbcdt: Tensor,
    conv1d_weight: Tensor,
    conv1d_bias: Tensor | None,
    dt_bias: Tensor,
    A: Tensor,
    D: Tensor,
    chunk_size: int,
    initial_states: Tensor | None = None,
    seq_idx: Tensor | None = None,
    dt_limit: tuple[float, float] = NO_LIMIT,
    return_final_states: bool = False,
    activation: Activation = "silu",
    rmsnorm_weight: Tensor | None = None,
    rmsnorm_eps: float = 1e-6,
    outproj_weight: Tensor | None = None,
    outproj_bias: Tensor | None = None,
    headdim: int | None = None,
    ngroups: int = 1,
    norm_before_gate: bool = True,
) -> Any:
    """A Mamba-2 mixer after its first projection.

    Args:
        zxbcdt: ``(B, L, 2 M + 2 E + 2 G N + H)``, in this order: gates and values of the ``M``
            channels of an MLP beside the scan, where there is one; gates of the scan, its input,
            ``B``, ``C`` and ``dt``. ``E = H P``.
        conv1d_weight: ``(E + 2 G N, W)``.
        conv1d_bias: ``(E + 2 G N,)``.
        dt_bias: ``(H,)``.
        A: decay rates, ``(H,)``.
        D: weight of the input in the output, ``(H,)`` or ``(H, P)``.
        chunk_size: see :func:`tristate.kernels.ssd.ssd_scan`.
        initial_states: ``(B, H, P, N)``.
        seq_idx: segment of each position, ``(B, L)`` integers.
        dt_limit: the least and the largest step size.
        return_final_states: also return the last states.
        activation: of the convolution.
        rmsnorm_weight: of the gated norm, ``(E,)``; without it the gate applies by itself.
        rmsnorm_eps: of the gated norm.
        outproj_weight: ``(d_model, M + E)``; no projection when absent.
        outproj_bias: ``(d_model,)``.
        headdim: ``P``, where ``D`` doesn't tell it.
        ngroups: ``G``.
        norm_before_gate: gate what is normalised; else normalise what is gated.

    Raises:
        ValueError: ``headdim`` is missing, or the shapes disagree.
    """
    if D.dim() == 2:
        headdim = D.shape[1]
    if headdim is None:
        raise ValueError("D of shape (H,) doesn't tell the width of a head: headdim is missing")
    out, last = convolve_and_scan(
        zxbcdt,
        conv1d_weight,
        conv1d_bias,
        dt_bias,
        A,
        D,
        d_head=headdim,
        n_groups=ngroups,
        scan_state=initial_states,
        seq_idx=seq_idx,
        dt_limit=dt_limit,
        activation=activation,
        norm_weight=rmsnorm_weight,
        norm_eps=rmsnorm_eps,
        norm_before_gate=norm_before_gate,
    )
    if outproj_weight is not None:
        out = F.linear(out, outproj_weight, outproj_bias)
    return (out, last.scan) if return_final_states else out
