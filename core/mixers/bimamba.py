"""Vision Mamba's mixer: one selective branch per direction between one pair of projections."""

import math
from typing import Any

from torch import Tensor, nn

from tristate.core.mixer import Mixer, hide_padding
from tristate.core.parts.selective import ScanInputs, SelectiveBranch
from tristate.kernels.cross import bidirectional_selective_scan


class BiMamba(Mixer):
    """Two selective branches, one reading ahead and one back, that share projections and gate.

    ``out_proj(output_scale * (ahead(x, z) + back(x, z)))``; each branch has its own convolution,
    step sizes, matrices, A and D. Time twice Mamba's.

    Args:
        d_model: width of input and output.
        d_state: states per channel and direction.
        d_conv: taps of the convolutions.
        expand: ``d_inner = expand * d_model``.
        dt_rank: width of the step sizes' projections; ``ceil(d_model / 16)`` when absent.
        bias: biases in the two projections.
        output_scale: factor on the sum of the branches; Vim divides by two.
        **branch: the other arguments of :class:`tristate.core.parts.selective.SelectiveBranch`.

    Source: Zhu et al. 2024, https://arxiv.org/abs/2401.09417, algorithm 1 ("bimamba v2" of
    https://github.com/hustvl/Vim).
    """

    causal = False
    packs = True
    memory = "none"

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 16,
        d_conv: int = 4,
        expand: float = 2,
        dt_rank: int | None = None,
        bias: bool = False,
        output_scale: float = 0.5,
        **branch: Any,
    ) -> None:
        super().__init__()
        self.d_model = d_model
        self.output_scale = output_scale
        d_inner = int(expand * d_model)
        branch |= {
            "d_state": d_state,
            "d_conv": d_conv,
            "dt_rank": dt_rank or math.ceil(d_model / 16),
        }
        self.in_proj = nn.Linear(d_model, 2 * d_inner, bias=bias)
        self.ahead = SelectiveBranch(d_inner, **branch)
        self.back = SelectiveBranch(d_inner, **branch, reverse=True)
        self.out_proj = nn.Linear(d_inner, d_model, bias=bias)

    def forward(self, x: Tensor, *, seq_idx: Tensor | None = None) -> Tensor:
        """Mix ``x (B, L, d_model)``."""
        x, z = self.in_proj(x).chunk(2, dim=-1)
        ahead, _ = self.ahead.scan_inputs(x, seq_idx=seq_idx)
        back, _ = self.back.scan_inputs(x, seq_idx=seq_idx)
        names = ScanInputs._fields
        pairs: dict[str, Any] = dict(zip(names, zip(ahead, back, strict=True), strict=True))
        y = bidirectional_selective_scan(
            **pairs, z=z.transpose(1, 2), delta_softplus=True, seq_idx=seq_idx
        )
        y = self.out_proj(self.output_scale * y.transpose(1, 2))
        return hide_padding(y, seq_idx)
