"""Softmax attention, for hybrids: whole or within a window, with grouped heads and a cache."""

import torch
from torch import Tensor, nn

from tristate.core.mixer import Mixer, hide_padding
from tristate.core.parts.attention import AttentionState, Rotary, attend, remember


class Attention(Mixer):
    """Attention over heads of projected queries, keys and values, then a projection.

    Time O(L^2 d_model), with a window O(L window d_model). The state is the keys and values of what
    the next position may see: all before it, or ``window - 1``.

    Args:
        d_model: width of input and output.
        n_heads: heads of the queries.
        n_kv_heads: heads of keys and values, each for ``n_heads / n_kv_heads`` of the queries'; as
            many as those when absent, 1 for multi-query attention.
        d_head: channels of a head; ``d_model / n_heads`` when absent.
        d_in: width of the input, where it is not ``d_model``: then it is no mixer for a block.
        causal: a position sees itself and earlier ones; else all, and there is no state.
        window: a position sees those less than ``window`` places away, itself among them; None for
            no such limit.
        rotary_base: longest wavelength of the rotary embedding over ``2 pi``; None for none.
        rotary_fraction: share of a head's channels that it turns, the first ones.
        scale: of the scores; ``d_head ** -0.5`` when absent.
        qkv_bias: biases of the projections in front.
        out_bias: bias of the projection behind.

    Raises:
        ValueError: heads don't divide each other or the width, or a number is out of its range.

    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762; grouped heads: Ainslie et al.
    2023, https://arxiv.org/abs/2305.13245; rotary: Su et al. 2021,
    https://arxiv.org/abs/2104.09864.
    """

    packs = True

    def __init__(
        self,
        d_model: int,
        *,
        n_heads: int = 4,
        n_kv_heads: int | None = None,
        d_head: int | None = None,
        d_in: int | None = None,
        causal: bool = True,
        window: int | None = None,
        rotary_base: float | None = 10_000.0,
        rotary_fraction: float = 1.0,
        scale: float | None = None,
        qkv_bias: bool = False,
        out_bias: bool = False,
    ) -> None:
        super().__init__()
        n_kv_heads = n_kv_heads or n_heads
        if n_heads % n_kv_heads or (d_head is None and d_model % n_heads):
            raise ValueError(
                f"{n_heads} heads with {n_kv_heads} of keys and values don't share out "
                f"d_model = {d_model}: name n_heads that divide it, or d_head"
            )
        if window is not None and window < 1:
            raise ValueError(f"window must be at least 1, got {window}")
        if not 0 <= rotary_fraction <= 1:
            raise ValueError(f"rotary_fraction is a share, got {rotary_fraction}")
        self.d_model, self.causal, self.window, self.scale = d_model, causal, window, scale
        self.memory = "none" if not causal else "history" if window is None else "window"
        self.d_head = d_head or d_model // n_heads
        self.n_heads, self.n_kv_heads = n_heads, n_kv_heads
        self.rotary = None
        if rotary_base is not None:
            self.rotary = Rotary(rotary_base, int(self.d_head * rotary_fraction) // 2 * 2)
        d_in = d_in or d_model
        d_kv = n_kv_heads * self.d_head
        # Hybrids that share these lay adapters over them: then they are other modules.
        self.q_proj: nn.Module = nn.Linear(d_in, n_heads * self.d_head, bias=qkv_bias)
        self.k_proj: nn.Module = nn.Linear(d_in, d_kv, bias=qkv_bias)
        self.v_proj: nn.Module = nn.Linear(d_in, d_kv, bias=qkv_bias)
        self.out_proj = nn.Linear(n_heads * self.d_head, d_model, bias=out_bias)

    def forward(self, x: Tensor, *, seq_idx: Tensor | None = None) -> Tensor:
        """Mix ``x (B, L, d_in)``."""
        return self._mix(*self._project(x), None, seq_idx)

    def forward_state(
        self, x: Tensor, state: AttentionState | None = None, *, seq_idx: Tensor | None = None
    ) -> tuple[Tensor, AttentionState]:
        """Mix ``x`` from ``state`` on."""
        if not self.causal:
            return super().forward_state(x, state, seq_idx=seq_idx)
        q, k, v = self._project(x)
        y = self._mix(q, k, v, state, seq_idx)
        return y, remember(k, v, window=self.window, state=state, seq_idx=seq_idx)

    def init_state(
        self,
        batch_size: int,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> AttentionState:
        """No keys."""
        if not self.causal:
            return super().init_state(batch_size)
        weight = self.out_proj.weight
        wide = torch.promote_types(dtype or weight.dtype, torch.float32)
        size = 0 if self.window is None else self.window - 1
        shape = (batch_size, size, self.n_kv_heads, self.d_head)
        none = torch.zeros(shape, device=device or weight.device, dtype=wide)
        return AttentionState(none, none.clone(), none.new_zeros(batch_size, size))

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        return tuple(heads.unflatten(-1, (-1, self.d_head)) for heads in (q, k, v))  # pyright: ignore

    def _mix(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        state: AttentionState | None,
        seq_idx: Tensor | None,
    ) -> Tensor:
        y = attend(
            q,
            k,
            v,
            causal=self.causal,
            window=self.window,
            rotary=self.rotary,
            scale=self.scale,
            state=state,
            seq_idx=seq_idx,
        )
        return hide_padding(self.out_proj(y.flatten(2)), seq_idx)
