"""mamba-ssm's residual block: https://github.com/state-spaces/mamba, ``modules/block.py``."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tristate.core.compat.norm import RMSNorm, layer_norm_fn


class Block(nn.Module):
    """Adds the last block's output to the residual, normalises, and mixes; then an MLP likewise.

    Args:
        dim: width.
        mixer_cls: builds the mixer from the width.
        mlp_cls: builds the MLP; ``nn.Identity`` for none.
        norm_cls: builds a norm.
        fused_add_norm: add and normalise in one pass; the norms must be LayerNorm or RMSNorm.
        residual_in_fp32: keep the residual stream in float32.

    Raises:
        TypeError: the norm can't be fused with the sum.
    """

    def __init__(
        self,
        dim: int,
        mixer_cls: Callable[[int], nn.Module],
        mlp_cls: Callable[[int], nn.Module],
        norm_cls: Callable[[int], nn.Module] = nn.LayerNorm,
        fused_add_norm: bool = False,
        residual_in_fp32: bool = False,
    ) -> None:
        super().__init__()
        self.residual_in_fp32 = residual_in_fp32
        self.fused_add_norm = fused_add_norm
        self.norm = norm_cls(dim)
        self.mixer = mixer_cls(dim)
        self.mlp = None
        if mlp_cls is not nn.Identity:
            self.norm2 = norm_cls(dim)
            self.mlp = mlp_cls(dim)
        if fused_add_norm and not isinstance(self.norm, (nn.LayerNorm, RMSNorm)):
            raise TypeError(
                f"fused_add_norm takes LayerNorm or RMSNorm, got {type(self.norm).__name__}"
            )

    def forward(
        self,
        hidden_states: Tensor,
        residual: Tensor | None = None,
        inference_params: Any = None,
        **mixer_kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        """One block on ``hidden_states (B, L, D)``.

        Returns:
            What the next block adds to the residual, and the residual.
        """
        hidden_states, residual = self._add_norm(self.norm, hidden_states, residual)
        hidden_states = self.mixer(hidden_states, inference_params=inference_params, **mixer_kwargs)
        if self.mlp is not None:
            hidden_states, residual = self._add_norm(self.norm2, hidden_states, residual)
            hidden_states = self.mlp(hidden_states)
        return hidden_states, residual

    def allocate_inference_cache(
        self, batch_size: int, max_seqlen: int, dtype: torch.dtype | None = None, **kwargs: Any
    ) -> Any:
        """The mixer's."""
        return self.mixer.allocate_inference_cache(batch_size, max_seqlen, dtype=dtype, **kwargs)  # pyright: ignore[reportCallIssue]

    def _add_norm(self, norm: Any, x: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.fused_add_norm:
            return layer_norm_fn(
                x,
                norm.weight,
                norm.bias,
                residual=residual,
                eps=norm.eps,
                prenorm=True,
                residual_in_fp32=self.residual_in_fp32,
                is_rms_norm=isinstance(norm, RMSNorm),
            )
        residual = x if residual is None else x + residual
        out = norm(residual.to(norm.weight.dtype))
        return out, residual.float() if self.residual_in_fp32 else residual
