"""The selective scan of Mamba, and its step by step form."""

import torch
from torch import Tensor

from tristate.kernels.backend import choose
from tristate.kernels.checks import expect_floating, expect_one_device, expect_shape
from tristate.kernels.selective import ops, reference
from tristate.kernels.selective.checks import check_scan

__all__ = ["selective_scan", "selective_state_update"]


def selective_scan(
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
    *,
    initial_state: Tensor | None = None,
    seq_idx: Tensor | None = None,
    reverse: bool = False,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """Diagonal recurrence whose step size, input and output weights follow the input.

    ``h[t] = exp(dt[t] A) h[t-1] + dt[t] u[t] B[t]``, ``out[t] = (C[t] . h[t] + D u[t]) silu(z[t])``
    with ``dt = softplus(delta + delta_bias)``; see :mod:`tristate.kernels.selective.reference`.

    For the gradient the cpu backend keeps the states before each 32 positions, ``N / 32`` times the
    size of ``u`` in float32. Forward and backward hold at most four times the inputs beyond them,
    and never ``B D L N`` numbers.

    Args:
        u: input, ``(B, D, L)``, any strides; a ``(B, L, D)`` tensor transposed is as fast.
        delta: step sizes, ``(B, D, L)``.
        A: decay rates, ``(D, N)``, real or complex; real parts below 0 for a stable recurrence.
        B: input weights: ``(D, N)`` constant in time, ``(B, N, L)``, or ``(B, G, N, L)`` for ``G``
            contiguous groups of channels. With complex ``A`` a constant one is complex and a
            varying one real, with ``2 L`` in place of ``L``: real and imaginary parts in turn.
        C: output weights, like ``B``.
        D: weight of the input in the output, ``(D,)``.
        z: gate, ``(B, D, L)``.
        delta_bias: added to ``delta``, ``(D,)``.
        delta_softplus: apply softplus to the step sizes, after the bias.
        return_last_state: also return the state after the last real position.
        initial_state: ``(B, D, N)``, complex where ``A`` is; zeros when absent. It enters the first
            segment.
        seq_idx: segment of each position, ``(B, L)`` integers. Where it changes the state starts
            from zero; a negative one marks padding: state unchanged, output 0.
        reverse: read time backwards. Equals flipping the inputs in time, and the output back.
        backend: ``"auto"``, or one of :func:`tristate.kernels.backend.available_backends`.

    Returns:
        The output, ``(B, D, L)`` in the dtype and layout of ``u``; with ``return_last_state`` also
        the last state ``(B, D, N)``, in float32 at least, through which gradients flow.

    Raises:
        ValueError: shapes, dtypes or devices disagree, or the backend can't run this.

    Source: mamba-ssm's ``selective_scan_fn``, https://github.com/state-spaces/mamba.
    """
    check_scan(u, delta, A, B, C, D, z, delta_bias, initial_state, seq_idx)
    inputs = (u, delta, A, B, C, D, z, delta_bias, initial_state)
    # float32 is not enough for an input in float64, whichever it is.
    exact = any(x is not None and x.dtype in (torch.float64, torch.complex128) for x in inputs)
    fits_triton = A.shape[1] <= ops.TRITON_MAX_STATES
    offered = ("reference", "cpu", "triton") if fits_triton else ("reference", "cpu")
    offered = ("reference",) if exact else offered
    chosen = choose("selective_scan", u, backend, offered)
    if chosen == "reference":
        out, last_state = reference.selective_scan(
            u, delta, A, B, C, D, z, delta_bias, delta_softplus, initial_state, seq_idx, reverse
        )
    else:
        # A program that leaves seldom computes gradients, and may be of any length: how many tiles
        # that makes would limit it.
        keep = (
            torch.is_grad_enabled()
            and not torch.compiler.is_exporting()
            and any(x is not None and x.requires_grad for x in inputs)
        )
        forward = ops.triton_forward if chosen == "triton" else ops.run
        out, last_state, _ = forward(*inputs, seq_idx, delta_softplus, reverse, keep)
    return (out, last_state) if return_last_state else out


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
) -> Tensor:
    """One step of :func:`selective_scan`; the state is updated in place.

    All may have an axis of heads ``H`` before the channels; head ``h`` takes the weights of group
    ``h // (H / G)``.

    Args:
        state: ``(B, D, N)`` or ``(B, H, D, N)``, written in place.
        x: input, ``(B, D)`` or ``(B, H, D)``.
        dt: step sizes, like ``x``.
        A: decay rates, ``(D, N)`` or ``(H, D, N)``, real.
        B: input weights, ``(B, N)`` or ``(B, G, N)``.
        C: output weights, like ``B``.
        D: weight of the input in the output, ``(D,)`` or ``(H, D)``.
        z: gate, like ``x``.
        dt_bias: added to ``dt``, like ``D``.
        dt_softplus: apply softplus to the step sizes, after the bias.

    Returns:
        The output, of the shape and dtype of ``x``.

    Raises:
        ValueError: shapes, dtypes or devices disagree.

    Source: mamba-ssm's function of this name, https://github.com/state-spaces/mamba.
    """
    if state.dim() not in (3, 4):
        raise ValueError(f"state must be (B, D, N) or (B, H, D, N), got {tuple(state.shape)}")
    batch, n_states = state.shape[0], state.shape[-1]
    channels = tuple(state.shape[1:-1])
    axes = "H, D" if state.dim() == 4 else "D"
    for name, tensor in {"x": x, "dt": dt, "z": z}.items():
        expect_shape(name, tensor, (batch, *channels), f"(B, {axes})")
    for name, tensor in {"D": D, "dt_bias": dt_bias}.items():
        expect_shape(name, tensor, channels, f"({axes})")
    expect_shape("A", A, (*channels, n_states), f"({axes}, N)")
    groups = B.shape[1] if B.dim() == 3 else 1
    wanted = (batch, groups, n_states) if state.dim() == 4 and B.dim() == 3 else (batch, n_states)
    expect_shape("B", B, wanted, "(B, G, N)" if len(wanted) == 3 else "(B, N)")
    expect_shape("C", C, wanted, "the shape of B")
    if state.dim() == 4 and channels[0] % groups:
        raise ValueError(f"{channels[0]} heads can't be shared out to {groups} groups")
    tensors = {"state": state, "x": x, "dt": dt, "A": A, "B": B, "C": C, "D": D, "z": z}
    expect_floating({**tensors, "dt_bias": dt_bias})
    expect_one_device({**tensors, "dt_bias": dt_bias})

    if state.dim() == 4:
        B, C = (w if w.dim() == 3 else w[:, None] for w in (B, C))
        return ops.update(state, x, dt, A, B, C, D, z, dt_bias, dt_softplus)
    # Without heads all channels are the width of one.
    one = [None if tensor is None else tensor[:, None] for tensor in (x, dt, B, C, z)]
    heads = [None if tensor is None else tensor[None] for tensor in (A, D, dt_bias)]
    x, dt, B, C, z = one  # pyright: ignore[reportAssignmentType]
    A, D, dt_bias = heads  # pyright: ignore[reportAssignmentType]
    out = ops.update(state[:, None], x, dt, A, B, C, D, z, dt_bias, dt_softplus)
    return out[:, 0]
