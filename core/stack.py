"""Blocks one after another over one residual stream."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tristate.core.block import Block
from tristate.core.context import Context


class Stack(nn.Module):
    """A sequence of blocks and the norm that closes it.

    Args:
        blocks: the blocks, first to last; hybrids hand in different ones, see
            :mod:`tristate.core.patterns`.
        norm: one of :mod:`tristate.core.norm`: adds the last block's output and normalises.
    """

    def __init__(self, blocks: Iterable[Block], norm: nn.Module) -> None:
        super().__init__()
        self.blocks: Any = nn.ModuleList(blocks)
        self.norm: nn.Module = norm
        self.grad_checkpointing = False

    def walk(
        self,
        x: Tensor,
        *,
        seq_idx: Tensor | None = None,
        n_blocks: int | None = None,
        context: Context | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield ``(hidden, residual)`` after each of the first ``n_blocks`` blocks."""
        hidden, residual = x, None
        options = {"seq_idx": seq_idx, "context": _entered(context, x, seq_idx)}
        for block in self.blocks[:n_blocks]:
            if self.grad_checkpointing and torch.is_grad_enabled():
                hidden, residual = checkpoint(
                    block, hidden, residual, use_reentrant=False, **options
                )
            else:
                hidden, residual = block(hidden, residual, **options)
            yield hidden, residual

    def forward(
        self, x: Tensor, *, seq_idx: Tensor | None = None, context: Context | None = None
    ) -> Tensor:
        """The normalised stream ``(B, L, D)`` after all blocks.

        Args:
            x: what enters, ``(B, L, D)``.
            seq_idx: which sequence each position belongs to, ``(B, L)``.
            context: what crosses layers; hand one in to read it afterwards, such as the balancing
                loss of experts.
        """
        hidden, residual = x, None
        for hidden, residual in self.walk(x, seq_idx=seq_idx, context=context):  # noqa: B007
            pass
        return self.norm(hidden, residual)[0]

    def forward_state(
        self,
        x: Tensor,
        state: list[Any] | None = None,
        *,
        seq_idx: Tensor | None = None,
        context: Context | None = None,
    ) -> tuple[Tensor, list[Any]]:
        """As :meth:`forward`, from ``state`` on, and the state after it: one entry a block."""
        state = state if state is not None else [None] * len(self.blocks)
        context = _entered(context, x, seq_idx)
        after, hidden, residual = [], x, None
        for block, before in zip(self.blocks, state, strict=True):
            hidden, residual, last = block.forward_state(
                hidden, residual, before, seq_idx=seq_idx, context=context
            )
            after.append(last)
        return self.norm(hidden, residual)[0], after

    def init_state(
        self,
        batch_size: int,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> list[Any]:
        """The state before the first position, one entry a block."""
        return [block.init_state(batch_size, device=device, dtype=dtype) for block in self.blocks]

    def step(
        self, x: Tensor, state: list[Any], *, context: Context | None = None
    ) -> tuple[Tensor, list[Any]]:
        """One position, ``(B, D)``, by the mixers' own steps."""
        hidden, residual = x[:, None], None
        context = _entered(context, hidden, None)
        after = []
        for block, before in zip(self.blocks, state, strict=True):
            hidden, residual, last = block.step(hidden, residual, before, context=context)
            after.append(last)
        return self.norm(hidden, residual)[0][:, 0], after


def _entered(context: Context | None, x: Tensor, seq_idx: Tensor | None) -> Context:
    """The context of a pass that ``x`` enters."""
    context = context if context is not None else Context()
    context.embedding, context.seq_idx = x, seq_idx
    return context
