"""mamba-ssm's second mixer without its options, but with initial states that are learnt.

Source: https://github.com/state-spaces/mamba, ``modules/mamba2_simple.py``.
"""

from typing import Any

import torch
from torch import Tensor, nn

from tristate.core.compat.mamba2 import Mamba2
from tristate.core.parts.ssd import NO_LIMIT


class Mamba2Simple(Mamba2):
    """:class:`tristate.core.compat.mamba2.Mamba2`, whose other arguments these are.

    Args:
        learnable_init_states: learn the states before the first position.
        activation: of the convolution: ``"silu"``, or ``"swish"``, the same.

    Raises:
        ValueError: the activation is another one, or the widths don't divide.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        d_conv: int = 4,
        conv_init: float | None = None,
        expand: float = 2,
        headdim: int = 128,
        ngroups: int = 1,
        A_init_range: tuple[float, float] = (1, 16),
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init_floor: float = 1e-4,
        dt_limit: tuple[float, float] = NO_LIMIT,
        learnable_init_states: bool = False,
        activation: str = "swish",
        bias: bool = False,
        conv_bias: bool = True,
        chunk_size: int = 256,
        use_mem_eff_path: bool = True,
        layer_idx: int | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if activation not in ("silu", "swish"):
            raise ValueError(f"activation must be 'silu' or 'swish', got {activation!r}")
        super().__init__(
            d_model,
            d_state,
            d_conv,
            conv_init,
            expand,
            headdim,
            ngroups=ngroups,
            A_init_range=A_init_range,
            dt_min=dt_min,
            dt_max=dt_max,
            dt_init_floor=dt_init_floor,
            dt_limit=dt_limit,
            bias=bias,
            conv_bias=conv_bias,
            chunk_size=chunk_size,
            use_mem_eff_path=use_mem_eff_path,
            layer_idx=layer_idx,
            device=device,
            dtype=dtype,
        )
        self.learnable_init_states = learnable_init_states
        if learnable_init_states:
            states = torch.zeros(self.nheads, headdim, d_state, device=device, dtype=dtype)
            self.init_states = nn.Parameter(states)
            self.init_states._no_weight_decay = True  # pyright: ignore[reportAttributeAccessIssue]

    def allocate_inference_cache(
        self, batch_size: int, max_seqlen: int, dtype: torch.dtype | None = None, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """The last inputs, zeros, and the states before the first position."""
        conv, ssm = super().allocate_inference_cache(batch_size, max_seqlen, dtype, **kwargs)
        first = self._initial_states(batch_size)
        return conv, ssm if first is None else ssm.copy_(first.detach())

    def _initial_states(self, batch_size: int) -> Tensor | None:
        if not self.learnable_init_states:
            return None
        return self.init_states.expand(batch_size, -1, -1, -1)
