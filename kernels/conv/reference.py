"""The causal depthwise convolution in plain PyTorch: what every backend must compute.

With ``W`` taps of which the last one weighs the current step::

    out[t] = act(bias + sum_k weight[k] * x[t - (W - 1) + k])

The state is the window of the ``W - 1`` inputs before the current one. A change of ``seq_idx``
empties it (zeros), a negative ``seq_idx`` marks padding, which leaves it as it is. Both follow here
from packing the real positions side by side, so that padding is no longer between them, and from
masking the taps that would reach into another segment.

Source: the axes and the order of taps are those of Dao-AILab's causal-conv1d,
https://github.com/Dao-AILab/causal-conv1d (``causal_conv1d_ref``, ``causal_conv1d_update_ref``).
"""

import torch
from torch import Tensor
from torch.nn.functional import silu


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    seq_idx: Tensor | None = None,
    initial_states: Tensor | None = None,
    activation: str | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """Output ``(B, D, L)`` in the dtype of ``x``, and last state ``(B, D, W - 1)``.

    Computes, and keeps the state, in float64 for float64 inputs, else in float32. The arguments
    are those of :func:`tristate.kernels.conv.causal_conv1d`.
    """
    if reverse:
        seq_idx = None if seq_idx is None else seq_idx.flip(1)
        out, state = causal_conv1d(x.flip(2), weight, bias, seq_idx, initial_states, activation)
        return out.flip(2), state
    batch, dim, length = x.shape
    width = weight.shape[1]
    exact = torch.promote_types(x.dtype, torch.float32)
    if initial_states is None:
        initial_states = x.new_zeros(batch, dim, width - 1)
    values, weight = x.to(exact), weight.to(exact)
    if seq_idx is None:
        stream = torch.cat([initial_states.to(exact), values], 2)  # (B, D, W - 1 + L)
        taps = [stream[:, :, k : k + length] for k in range(width)]
        out = _weigh(taps, weight, bias, activation)
        return out.to(x.dtype), stream[:, :, length:]

    real = seq_idx >= 0  # (B, L)
    n_real = real.sum(1, keepdim=True)
    order = real.logical_not().to(torch.uint8).argsort(dim=1, stable=True)  # the real ones first
    scatter = order[:, None].expand(batch, dim, length)
    stream = torch.cat([initial_states.to(exact), values.gather(2, scatter)], 2)
    packed = seq_idx.gather(1, order)
    changes = (packed[:, 1:] != packed[:, :-1]).cumsum(1)
    # The initial state belongs to the first segment, whose number is 0.
    segment = torch.cat([changes.new_zeros(batch, min(width, width - 1 + length)), changes], 1)

    here = segment[:, None, width - 1 :]
    taps = [
        stream[:, :, k : k + length].where(segment[:, None, k : k + length] == here, 0)
        for k in range(width)
    ]
    out = _weigh(taps, weight, bias, activation)
    is_real = torch.arange(length, device=x.device) < n_real  # (B, L), after packing
    out = torch.zeros_like(out).scatter(2, scatter, out.where(is_real[:, None], 0))

    last = n_real + torch.arange(width - 1, device=x.device)  # (B, W - 1)
    newest = segment.gather(1, (n_real + width - 2).clamp(min=0)) if width > 1 else n_real
    state = stream.gather(2, last[:, None].expand(batch, dim, width - 1))
    state = state.where((segment.gather(1, last) == newest)[:, None], 0)
    return out.to(x.dtype), state


def _weigh(
    taps: list[Tensor], weight: Tensor, bias: Tensor | None, activation: str | None
) -> Tensor:
    """The weighted sum of the taps, ``(B, D, L)`` each, bias and activation."""
    out = sum((tap * weight[:, k, None] for k, tap in enumerate(taps)), torch.zeros_like(taps[0]))
    if bias is not None:
        out = out + bias.to(out.dtype)[:, None]
    return out if activation is None else silu(out)


def causal_conv1d_update(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    cache_seqlens: Tensor | None = None,
) -> Tensor:
    """Output ``(B, D, T)`` for ``T`` new steps; ``conv_state`` is written in place.

    The arguments are those of :func:`tristate.kernels.conv.causal_conv1d_update`, with ``x`` always
    ``(B, D, T)``.
    """
    length, state_len, width = x.shape[2], conv_state.shape[2], weight.shape[1]
    exact = torch.promote_types(x.dtype, torch.float32)
    if cache_seqlens is None:
        stream = torch.cat([conv_state, x.to(conv_state.dtype)], 2)
        conv_state.copy_(stream[:, :, length:])
        stream = stream[:, :, state_len - (width - 1) :]
    else:
        # A ring: position p of the sequence lies in slot p % state_len.
        start = cache_seqlens.long()[:, None, None]
        past = (start + torch.arange(1 - width, 0, device=x.device)) % state_len
        new = (start + torch.arange(length, device=x.device)) % state_len
        past = past.expand(-1, x.shape[1], -1)
        stream = torch.cat([conv_state.gather(2, past), x.to(conv_state.dtype)], 2)
        conv_state.scatter_(2, new.expand(-1, x.shape[1], -1), x.to(conv_state.dtype))
    stream = stream.to(exact)
    taps = [stream[:, :, k : k + length] for k in range(width)]
    return _weigh(taps, weight.to(exact), bias, activation).to(x.dtype)
