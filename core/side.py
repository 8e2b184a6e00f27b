"""A block whose mixer also reads what another branch makes of the stream: Zamba's shared block."""

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tristate.core.block import Block
from tristate.core.context import Context
from tristate.core.mixer import at_least_float32
from tristate.core.mixers.attention import Attention
from tristate.core.mlp import GatedMLP, LowRank
from tristate.core.parts.attention import AttentionState


class SideState(NamedTuple):
    """The states of both branches."""

    side: Any
    mixer: Any


class SideBlock(Block):
    """``residual += hidden; hidden = mixer(norm(residual + side(residual)))``.

    What the side makes is read by this block's mixer alone: it never enters the stream itself.

    Args:
        mixer: as of :class:`tristate.core.block.Block`.
        norm: in front of it.
        side: has ``forward_state(x, state, *, seq_idx, context) -> (y, state)`` and ``init_state``.
        **block: the other arguments of :class:`tristate.core.block.Block`.
    """

    def __init__(self, mixer: nn.Module, norm: nn.Module, side: nn.Module, **block: Any) -> None:
        super().__init__(mixer, norm, **block)
        self.side: Any = side

    def forward(
        self,
        hidden: Tensor,
        residual: Tensor | None = None,
        *,
        seq_idx: Tensor | None = None,
        context: Context | None = None,
    ) -> tuple[Tensor, Tensor]:
        """``(hidden, residual)`` after this block; both are ``(B, L, D)``."""
        x, total, _ = self._beside(hidden, residual, None, seq_idx, context)
        return self._leave(self._mix(x, None, seq_idx, context)[0]), total

    def forward_state(
        self,
        hidden: Tensor,
        residual: Tensor | None,
        state: SideState | None = None,
        *,
        seq_idx: Tensor | None = None,
        context: Context | None = None,
    ) -> tuple[Tensor, Tensor, SideState]:
        """``(hidden, residual, state)``, with the states of both branches handed on."""
        side, memory = state if state is not None else (None, None)
        x, total, side = self._beside(hidden, residual, side, seq_idx, context)
        x, memory = self._mix(x, memory, seq_idx, context)
        return self._leave(x), total, SideState(side, memory)

    def step(
        self,
        hidden: Tensor,
        residual: Tensor | None,
        state: SideState,
        *,
        context: Context | None = None,
    ) -> tuple[Tensor, Tensor, SideState]:
        """As :meth:`forward_state` for one position, ``(B, 1, D)``."""
        x, total, side = self._beside(hidden, residual, state.side, None, context)
        x, memory = self._step(x, state.mixer, context)
        return self._leave(x), total, SideState(side, memory)

    def init_state(
        self,
        batch_size: int,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> SideState:
        """The first states of both branches."""
        side = self.side.init_state(batch_size, device=device, dtype=dtype)
        return SideState(side, super().init_state(batch_size, device=device, dtype=dtype))

    def _beside(
        self,
        hidden: Tensor,
        residual: Tensor | None,
        state: Any,
        seq_idx: Tensor | None,
        context: Context | None,
    ) -> tuple[Tensor, Tensor, Any]:
        """What the mixer reads, the stream, and the side's state."""
        total = hidden if residual is None else hidden + residual
        total = at_least_float32(total) if self.norm.residual_in_fp32 else total
        side, state = self.side.forward_state(
            total.to(hidden.dtype), state, seq_idx=seq_idx, context=context
        )
        # The norm's sum is not the stream: it stays here.
        return self.norm(side, total)[0], total, state


class SharedTransformer(nn.Module):
    """Zamba's block that many layers share: attention and an MLP over the stream and what entered.

    ``out_proj(mlp(norm(attention(norm([x, embedding])))))``: nothing is added in between.

    Args:
        d_model: width of the stream.
        n_heads: of the attention; they share out ``2 d_model``.
        n_kv_heads: heads of keys and values; ``n_heads`` when absent.
        d_hidden: width inside the MLP; ``4 d_model`` when absent.
        activation: of the MLP's gate.
        bias: biases of the MLP.
        rotary_base: of the attention; None for no rotary embedding.
        norm_eps: of the norms.

    Source: Glorioso et al. 2024, https://arxiv.org/abs/2405.16712 and
    https://arxiv.org/abs/2411.15242.
    """

    def __init__(
        self,
        d_model: int,
        *,
        n_heads: int = 4,
        n_kv_heads: int | None = None,
        d_hidden: int | None = None,
        activation: str = "gelu",
        bias: bool = False,
        rotary_base: float | None = 10_000.0,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        if 2 * d_model % n_heads:
            raise ValueError(f"{n_heads} heads don't share out 2 d_model = {2 * d_model}")
        d_head = 2 * d_model // n_heads
        self.entrance = nn.RMSNorm(2 * d_model, eps=norm_eps)
        self.attention = Attention(
            d_model,
            d_in=2 * d_model,
            n_heads=n_heads,
            n_kv_heads=n_kv_heads,
            d_head=d_head,
            rotary_base=rotary_base,
            scale=(d_head / 2) ** -0.5,
        )
        self.norm = nn.RMSNorm(d_model, eps=norm_eps)
        self.mlp = GatedMLP(
            d_model, d_hidden=d_hidden or 4 * d_model, activation=activation, bias=bias
        )
        self.out_proj = nn.Linear(d_model, d_model, bias=False)

    def forward_state(
        self,
        x: Tensor,
        state: AttentionState | None = None,
        *,
        seq_idx: Tensor | None = None,
        context: Context | None = None,
    ) -> tuple[Tensor, AttentionState]:
        """Map ``x (B, L, d_model)`` from ``state`` on.

        Raises:
            ValueError: no context says what entered the stack.
        """
        if context is None or context.embedding is None:
            raise ValueError("a shared block needs the stack's context: it reads what entered")
        both = torch.cat([x, context.embedding.to(x.dtype)], dim=-1)
        y, state = self.attention.forward_state(self.entrance(both), state, seq_idx=seq_idx)
        return self.out_proj(self.mlp(self.norm(y))), state

    def init_state(
        self,
        batch_size: int,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> AttentionState:
        """No keys."""
        return self.attention.init_state(batch_size, device=device, dtype=dtype)


def another_use(
    shared: SharedTransformer, *, rank: int, adapt_attention: bool = False
) -> SharedTransformer:
    """``shared`` with an output projection and low-rank changes of its own; all else is the same.

    Args:
        shared: stays as it is; its parameters are shared with what is returned.
        rank: of the changes of the MLP; 0 for none.
        adapt_attention: also change queries, keys and values.
    """
    use = copy.deepcopy(shared, {id(p): p for p in shared.parameters()})
    use.out_proj = copy.deepcopy(shared.out_proj)
    use.out_proj.reset_parameters()
    changed: list[tuple[Any, str]] = [(use.mlp, "in_proj")] if rank else []
    if rank and adapt_attention:
        changed += [(use.attention, name) for name in ("q_proj", "k_proj", "v_proj")]
    for module, name in changed:
        setattr(module, name, LowRank(getattr(module, name), rank))
    return use
