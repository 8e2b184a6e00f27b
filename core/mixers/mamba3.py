"""Mamba-3: a scan of heads with trapezoidal steps and turning states, without a convolution."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tristate.core.mixer import Mixer, at_least_float32
from tristate.core.parts.mamba3 import Mamba3State, mamba3_scan
from tristate.core.parts.steps import draw_step_bias
from tristate.kernels.norm import gated_rms_norm


class Mamba3(Mixer):
    """State-space mixer of heads with a decay and a rotation that follow the input.

    One projection gives the gate, the value, normalised keys and queries (which have a bias by
    head), step size, decay, trapezoidal weight and angular velocities of each position; see
    :mod:`tristate.core.parts.mamba3` for the recurrence. Time O(L d_inner d_state), state O(d_inner
    d_state). This is the single-input single-output form.

    Args:
        d_model: width of input and output.
        d_state: states per channel, ``N``.
        expand: ``d_inner = expand * d_model``.
        d_head: channels per head; when absent 64, or the largest power of two below it that divides
            ``d_inner``.
        n_groups: groups of heads that share keys and queries.
        rotary_fraction: share of the states that turn.
        dt_min: least initial step size.
        dt_max: largest initial step size.
        dt_floor: initial step sizes are not drawn below this.
        decay_floor: least decay rate.
        norm: RMS norm of each head's output before its gate; else the gate by itself.

    Raises:
        ValueError: heads or groups don't divide the channels, or no pair of states turns.

    Source: Lahoti et al. 2026, https://arxiv.org/abs/2603.15569; options and initial values after
    https://github.com/state-spaces/mamba, ``modules/mamba3.py``.
    """

    packs = True

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 128,
        expand: float = 2,
        d_head: int | None = None,
        n_groups: int = 1,
        rotary_fraction: float = 0.5,
        dt_min: float = 1e-3,
        dt_max: float = 0.1,
        dt_floor: float = 1e-4,
        decay_floor: float = 1e-4,
        norm: bool = False,
    ) -> None:
        super().__init__()
        d_inner = int(expand * d_model)
        self.d_model, self.d_state, self.d_inner = d_model, d_state, d_inner
        self.d_head = d_head or math.gcd(d_inner, 64)
        self.n_heads, self.n_groups = d_inner // self.d_head, n_groups
        if d_inner % self.d_head or self.n_heads % n_groups:
            raise ValueError(
                f"{d_inner} channels don't make heads of {self.d_head} in {n_groups} groups"
            )
        self.n_angles = int(d_state * rotary_fraction) // 2
        if not 0 < self.n_angles <= d_state // 2:
            raise ValueError(
                f"rotary_fraction must turn some of {d_state} states, got {rotary_fraction}"
            )
        self.decay_floor = decay_floor
        self.sizes = [d_inner, d_inner, n_groups * d_state, n_groups * d_state]
        self.sizes += [self.n_heads] * 3 + [self.n_angles]
        self.in_proj = nn.Linear(d_model, sum(self.sizes), bias=False)
        self.dt_bias = nn.Parameter(draw_step_bias(self.n_heads, dt_min, dt_max, dt_floor))
        self.key_norm = nn.RMSNorm(d_state, eps=1e-5)
        self.query_norm = nn.RMSNorm(d_state, eps=1e-5)
        self.key_bias = nn.Parameter(torch.ones(self.n_heads, d_state))
        self.query_bias = nn.Parameter(torch.ones(self.n_heads, d_state))
        self.D = nn.Parameter(torch.ones(self.n_heads))
        self.norm_weight = nn.Parameter(torch.ones(d_inner)) if norm else None
        self.out_proj = nn.Linear(d_inner, d_model, bias=False)
        for kept in (self.dt_bias, self.key_bias, self.query_bias, self.D):
            kept._no_weight_decay = True  # pyright: ignore[reportAttributeAccessIssue]

    def forward_state(
        self, x: Tensor, state: Mamba3State | None = None, *, seq_idx: Tensor | None = None
    ) -> tuple[Tensor, Mamba3State]:
        """Mix ``x (B, L, d_model)`` from ``state`` on."""
        z, v, k, q, dt, decay, trap, turns = self.in_proj(x).split(self.sizes, dim=-1)
        z, v = (y.unflatten(-1, (self.n_heads, self.d_head)) for y in (z, v))
        dt = F.softplus(at_least_float32(dt) + self.dt_bias)
        rate = F.softplus(at_least_float32(decay)).clamp(min=self.decay_floor)
        y, state = mamba3_scan(
            self._by_head(self.query_norm, q) + self.query_bias,
            self._by_head(self.key_norm, k) + self.key_bias,
            v,
            -rate * dt,
            dt,
            trap,
            turns[:, :, None].expand(-1, -1, self.n_heads, -1),
            D=self.D,
            z=z if self.norm_weight is None else None,
            state=state,
            seq_idx=seq_idx,
        )
        if self.norm_weight is not None:
            y = gated_rms_norm(y.flatten(2), self.norm_weight, z.flatten(2), group_size=self.d_head)
        else:
            y = y.flatten(2)
        return self.out_proj(y), state

    def _by_head(self, norm: nn.Module, x: Tensor) -> Tensor:
        """Normalised keys or queries of each head, ``(B, L, H, N)``."""
        groups = norm(x.unflatten(-1, (self.n_groups, self.d_state)))
        return groups.repeat_interleave(self.n_heads // self.n_groups, dim=2)

    def init_state(
        self,
        batch_size: int,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> Mamba3State:
        """Zeros."""
        wide = torch.promote_types(dtype or self.D.dtype, torch.float32)
        sizes = ((self.n_angles,), (self.d_head, self.d_state), (self.d_state,), (self.d_head,))
        return Mamba3State(
            *(
                torch.zeros(
                    (batch_size, self.n_heads, *size), device=device or self.D.device, dtype=wide
                )
                for size in sizes
            )
        )
