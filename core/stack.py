"""Blocks one after another over one residual stream."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tristate.core.block import Block
from tristate.core.norm import AddNorm, AddOnly


class Stack(nn.Module):
    """A sequence of blocks and the norm that closes it.

    Args:
        blocks: the blocks, first to last; hybrids hand in different ones.
        norm: adds the last block's output to the stream and normalises.
    """

    def __init__(self, blocks: Iterable[Block], norm: AddNorm | AddOnly) -> None:
        super().__init__()
        self.blocks: Any = nn.ModuleList(blocks)
        self.norm: nn.Module = norm
        self.grad_checkpointing = False

    def walk(
        self, x: Tensor, *, seq_idx: Tensor | None = None, n_blocks: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield ``(hidden, residual)`` after each of the first ``n_blocks`` blocks."""
        hidden, residual = x, None
        for block in self.blocks[:n_blocks]:
            if self.grad_checkpointing and torch.is_grad_enabled():
                hidden, residual = checkpoint(
                    block, hidden, residual, seq_idx=seq_idx, use_reentrant=False
                )
            else:
                hidden, residual = block(hidden, residual, seq_idx=seq_idx)
            yield hidden, residual

    def forward(self, x: Tensor, *, seq_idx: Tensor | None = None) -> Tensor:
        """The normalised stream ``(B, L, D)`` after all blocks."""
        hidden, residual = x, None
        for hidden, residual in self.walk(x, seq_idx=seq_idx):  # noqa: B007
            pass
        return self.norm(hidden, residual)[0]

    def forward_state(
        self, x: Tensor, state: list[Any] | None = None, *, seq_idx: Tensor | None = None
    ) -> tuple[Tensor, list[Any]]:
        """As :meth:`forward`, from ``state`` on, and the state after it: one entry a block."""
        state = state if state is not None else [None] * len(self.blocks)
        after, hidden, residual = [], x, None
        for block, before in zip(self.blocks, state, strict=True):
            hidden, residual, last = block.forward_state(hidden, residual, before, seq_idx=seq_idx)
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

    def step(self, x: Tensor, state: list[Any]) -> tuple[Tensor, list[Any]]:
        """One position, ``(B, D)``."""
        y, state = self.forward_state(x[:, None], state)
        return y[:, 0], state
