"""Causal depthwise convolution of a sequence with a short filter, and its step by step form."""

from typing import Literal

from torch import Tensor

from tristate.kernels.backend import choose
from tristate.kernels.checks import (
    expect_floating,
    expect_one_device,
    expect_segments,
    expect_shape,
)
from tristate.kernels.conv import ops, reference

__all__ = ["causal_conv1d", "causal_conv1d_update"]

Activation = Literal["silu", "swish"] | None


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    seq_idx: Tensor | None = None,
    initial_states: Tensor | None = None,
    return_final_states: bool = False,
    activation: Activation = None,
    reverse: bool = False,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """Depthwise convolution in which step ``t`` sees itself and the ``W - 1`` steps before it.

    The cpu backend keeps nothing but its inputs for the gradient. Beyond outputs and gradients it
    takes some twenty rows of ``D`` numbers a thread, and where channels don't lie side by side
    three times 16 channels of ``L`` steps. Inputs of 16 bits are widened as a whole.

    Args:
        x: input, ``(B, D, L)``, any strides; a ``(B, L, D)`` tensor transposed is as fast.
        weight: taps, ``(D, W)``; the last one weighs the current step.
        bias: ``(D,)``.
        seq_idx: segment of each step, ``(B, L)`` integers. Taps never cross a change; a negative
            one marks padding: its output is 0 and it is as if it weren't there.
        initial_states: the ``W - 1`` inputs before the first, ``(B, D, W - 1)``, the newest last;
            zeros when absent. They belong to the first segment.
        return_final_states: also return the state after the last real step.
        activation: ``"silu"`` (or ``"swish"``, the same), or None.
        reverse: read time backwards, so that step ``t`` sees the ``W - 1`` steps after it. Equals
            flipping ``x`` and ``seq_idx``, and the output back; states are in reading order.
        backend: ``"auto"``, or one of :func:`tristate.kernels.backend.available_backends`.

    Returns:
        The output, ``(B, D, L)`` in the dtype of ``x``; with ``return_final_states`` also the last
        ``W - 1`` real inputs of the last segment, ``(B, D, W - 1)``, at least float32: the initial
        state of what follows.

    Raises:
        ValueError: the shapes disagree, the activation is unknown, or the backend can't run this.

    Source: Dao-AILab's causal-conv1d, https://github.com/Dao-AILab/causal-conv1d.
    """
    _check_filter(x, weight, bias, activation)
    batch, dim, length = x.shape
    expect_segments(seq_idx, batch, length)
    state_shape = (batch, dim, weight.shape[1] - 1)
    expect_shape("initial_states", initial_states, state_shape, "(B, D, W - 1)")
    expect_one_device(
        {"x": x, "weight": weight, "bias": bias, "seq_idx": seq_idx, "states": initial_states}
    )
    offered = ("reference", "cpu", "triton") if 2 <= weight.shape[1] <= 4 else ("reference",)
    chosen = choose("causal_conv1d", x, backend, offered)
    if chosen != "reference":
        forward = ops.triton_forward if chosen == "triton" else ops.run
        silu = activation is not None
        out, state = forward(x, weight, bias, seq_idx, initial_states, silu, reverse)
    else:
        out, state = reference.causal_conv1d(
            x, weight, bias, seq_idx, initial_states, activation, reverse
        )
    return (out, state) if return_final_states else out


def causal_conv1d_update(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: Activation = None,
    cache_seqlens: Tensor | None = None,
) -> Tensor:
    """The next one or more steps of :func:`causal_conv1d`; the state is updated in place.

    Args:
        x: the new inputs, ``(B, D)`` or ``(B, D, T)``.
        conv_state: the inputs seen last, ``(B, D, S)`` with ``S >= W - 1``, the newest last.
        weight: taps, ``(D, W)``; the last one weighs the current step.
        bias: ``(D,)``.
        activation: ``"silu"`` (or ``"swish"``, the same), or None.
        cache_seqlens: how many inputs each row has seen, ``(B,)`` integers. With it ``conv_state``
            is a ring, in which input ``p`` lies in slot ``p % S``.

    Returns:
        The outputs, of the shape and dtype of ``x``.

    Raises:
        ValueError: the shapes disagree, the state is too short, or the activation is unknown.

    Source: Dao-AILab's causal-conv1d, https://github.com/Dao-AILab/causal-conv1d.
    """
    if x.dim() not in (2, 3):
        raise ValueError(f"x must be (B, D) or (B, D, T), got {tuple(x.shape)}")
    steps = x[:, :, None] if x.dim() == 2 else x
    _check_filter(steps, weight, bias, activation)
    batch, dim, length = steps.shape
    width, state_len = weight.shape[1], conv_state.shape[-1]
    if conv_state.shape != (batch, dim, state_len) or state_len < width - 1:
        raise ValueError(
            f"conv_state must be ({batch}, {dim}, at least {width - 1}), "
            f"got {tuple(conv_state.shape)}"
        )
    expect_shape("cache_seqlens", cache_seqlens, (batch,), "(B,)")
    if cache_seqlens is not None and length > state_len:
        raise ValueError(f"a ring of {state_len} slots can't take {length} steps at once")
    out = ops.update(steps, conv_state, weight, bias, activation, cache_seqlens)
    return out[:, :, 0] if x.dim() == 2 else out


def _check_filter(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None) -> None:
    if x.dim() != 3:
        raise ValueError(f"x must be (B, D, L), got {tuple(x.shape)}")
    if weight.dim() != 2 or weight.shape[0] != x.shape[1] or weight.shape[1] < 1:
        raise ValueError(
            f"weight must be (D, W) with D = {x.shape[1]} and W >= 1, got {tuple(weight.shape)}"
        )
    expect_shape("bias", bias, (x.shape[1],), "(D,)")
    if activation not in (None, "silu", "swish"):
        raise ValueError(f"activation must be 'silu', 'swish' or None, got {activation!r}")
    expect_floating({"x": x, "weight": weight, "bias": bias})
