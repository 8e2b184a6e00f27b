"""The functions of causal-conv1d: https://github.com/Dao-AILab/causal-conv1d."""

import torch
from torch import Tensor

from tristate.core.compat import rows
from tristate.kernels import conv as kernels
from tristate.kernels.conv import Activation


def causal_conv1d_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    seq_idx: Tensor | None = None,
    initial_states: Tensor | None = None,
    return_final_states: bool = False,
    final_states_out: Tensor | None = None,
    activation: Activation = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """:func:`tristate.kernels.conv.causal_conv1d`, with its states in the dtype of ``x``.

    ``final_states_out (B, D, W - 1)`` is written to, and returned, where it is given.
    """
    out = kernels.causal_conv1d(
        x,
        weight,
        bias,
        seq_idx=seq_idx,
        initial_states=initial_states,
        return_final_states=return_final_states,
        activation=activation,
    )
    if not return_final_states:
        return out
    out, states = out
    if final_states_out is None:
        return out, states.to(x.dtype)
    return out, final_states_out.copy_(states)


def causal_conv1d_update(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: Activation = None,
    cache_seqlens: Tensor | None = None,
    conv_state_indices: Tensor | None = None,
) -> Tensor:
    """:func:`tristate.kernels.conv.causal_conv1d_update`.

    ``conv_state_indices (B,)`` says in which row of a larger ``conv_state`` each row of ``x`` has
    its state; one below 0 has none, and gets zeros.
    """
    if conv_state_indices is None:
        return kernels.causal_conv1d_update(x, conv_state, weight, bias, activation, cache_seqlens)

    def step(state: Tensor, x: Tensor, cache_seqlens: Tensor | None) -> Tensor:
        return kernels.causal_conv1d_update(x, state, weight, bias, activation, cache_seqlens)

    return rows.update(step, conv_state, conv_state_indices, x, cache_seqlens)


def causal_conv1d_varlen_states(x: Tensor, cu_seqlens: Tensor, state_len: int) -> Tensor:
    """The last inputs of each of several sequences laid end to end, zeros where one is shorter.

    Args:
        x: ``(tokens, D)``.
        cu_seqlens: where each sequence starts, and the end of the last, ``(sequences + 1,)``.
        state_len: how many inputs.

    Returns:
        ``(sequences, D, state_len)``, the newest last.
    """
    ends = cu_seqlens[1:, None].long()
    places = ends + torch.arange(-state_len, 0, device=x.device)  # (sequences, state_len)
    own = places >= cu_seqlens[:-1, None]
    return x[places.clamp(min=0)].where(own[..., None], 0).transpose(1, 2)
