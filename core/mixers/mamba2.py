"""Mamba-2: heads with one decay each, scanned as matrices, and a gated norm behind."""

import math

import torch
from torch import Tensor, nn

from tristate.core.mixer import Mixer, at_least_float32, hide_padding
from tristate.core.parts.conv import CausalConv1d
from tristate.core.parts.ssd import NO_LIMIT, SSDState, convolve_and_scan
from tristate.core.parts.steps import draw_step_bias


class Mamba2(Mixer):
    """State-space mixer of heads: ``h[t] = exp(dt A) h[t-1] + dt x B^T``, ``y = h C + D x``.

    All of ``x``, ``B``, ``C``, ``dt`` and the gate ``z`` come from one projection; the first three
    pass a short convolution. ``out_proj(norm(y silu(z)))`` leaves. Time O(L d_inner d_state), state
    O(d_inner d_state), memory in training O(L (d_inner + n_groups d_state)).

    Args:
        d_model: width of input and output.
        d_state: states per channel, ``N``.
        d_conv: taps of the convolution.
        expand: ``d_inner = expand * d_model``.
        d_head: channels per head, ``P``; when absent 64, or the largest power of two below it that
            divides the channels.
        d_ssm: channels that are scanned; the others of ``d_inner`` are a gated MLP beside it. All
            when absent.
        n_groups: groups of heads that share ``B`` and ``C``.
        decay: initial decay rates are uniform within this.
        D_per_channel: a ``D`` for each channel, not for each head.
        norm: gated norm after the scan; else the gate by itself.
        norm_eps: of that norm.
        norm_before_gate: gate what is normalised; else normalise what is gated.
        dt_min: least initial step size.
        dt_max: largest initial step size.
        dt_floor: initial step sizes are not drawn below this.
        dt_limit: the least and the largest step size at any time.
        bias: biases in the two projections.
        conv_bias: bias in the convolution.
        conv_init: initial taps are uniform within this; when absent as ``nn.Conv1d`` draws them.
        learn_initial_state: the scan's state before the first position is learnt; then the mixer
            does not pack: a sequence inside a row would begin with zeros.
        reverse: read time backwards; then the mixer is not causal, and has no state.

    Raises:
        ValueError: heads or groups don't divide the channels, or ``d_ssm`` is larger than
            ``d_inner``.

    Source: Dao & Gu 2024, https://arxiv.org/abs/2405.21060; options and initial values after
    https://github.com/state-spaces/mamba.
    """

    packs = True

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 128,
        d_conv: int = 4,
        expand: float = 2,
        d_head: int | None = None,
        d_ssm: int | None = None,
        n_groups: int = 1,
        decay: tuple[float, float] = (1, 16),
        D_per_channel: bool = False,
        norm: bool = True,
        norm_eps: float = 1e-5,
        norm_before_gate: bool = False,
        dt_min: float = 1e-3,
        dt_max: float = 0.1,
        dt_floor: float = 1e-4,
        dt_limit: tuple[float, float] = NO_LIMIT,
        bias: bool = False,
        conv_bias: bool = True,
        conv_init: float | None = None,
        learn_initial_state: bool = False,
        reverse: bool = False,
    ) -> None:
        super().__init__()
        d_inner = int(expand * d_model)
        self.d_model, self.d_state, self.d_conv = d_model, d_state, d_conv
        self.d_ssm = d_inner if d_ssm is None else d_ssm
        self.d_head = d_head or math.gcd(self.d_ssm, 64)
        self.n_heads, self.n_groups = self.d_ssm // self.d_head, n_groups
        if self.d_ssm % self.d_head or self.n_heads % n_groups or self.d_ssm > d_inner:
            raise ValueError(
                f"{self.d_ssm} of {d_inner} channels don't make heads of {self.d_head} in "
                f"{n_groups} groups"
            )
        self.norm_eps, self.norm_before_gate = norm_eps, norm_before_gate
        self.dt_limit = (float(dt_limit[0]), float(dt_limit[1]))
        self.reverse, self.causal = reverse, not reverse
        self.memory = "none" if reverse else "constant"
        self.packs = not learn_initial_state

        d_conv_in = self.d_ssm + 2 * n_groups * d_state
        d_projected = 2 * (d_inner - self.d_ssm) + self.d_ssm + d_conv_in + self.n_heads
        self.in_proj = nn.Linear(d_model, d_projected, bias=bias)
        self.conv = CausalConv1d(d_conv_in, d_conv, bias=conv_bias, reverse=reverse)
        if conv_init is not None:
            nn.init.uniform_(self.conv.weight, -conv_init, conv_init)
        self.dt_bias = nn.Parameter(draw_step_bias(self.n_heads, dt_min, dt_max, dt_floor))
        self.A_log = nn.Parameter(torch.empty(self.n_heads).uniform_(*decay).log())
        heads = (self.n_heads, self.d_head) if D_per_channel else (self.n_heads,)
        self.D = nn.Parameter(torch.ones(heads))
        self.norm_weight = nn.Parameter(torch.ones(self.d_ssm)) if norm else None
        self.initial_state = None
        if learn_initial_state:
            self.initial_state = nn.Parameter(torch.zeros(self.n_heads, self.d_head, d_state))
        self.out_proj = nn.Linear(d_inner, d_model, bias=bias)
        for kept in (self.dt_bias, self.A_log, self.D, self.initial_state):
            if kept is not None:
                kept._no_weight_decay = True  # pyright: ignore[reportAttributeAccessIssue]

    def forward(self, x: Tensor, *, seq_idx: Tensor | None = None) -> Tensor:
        """Mix ``x (B, L, d_model)``."""
        return self._mix(x, None, seq_idx)[0]

    def forward_state(
        self, x: Tensor, state: SSDState | None = None, *, seq_idx: Tensor | None = None
    ) -> tuple[Tensor, SSDState]:
        """Mix ``x`` from ``state`` on."""
        if not self.causal:
            return super().forward_state(x, state, seq_idx=seq_idx)
        return self._mix(x, state, seq_idx)

    def init_state(
        self,
        batch_size: int,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> SSDState:
        """Zeros, or the state that is learnt."""
        if not self.causal:
            return super().init_state(batch_size)
        device = device or self.D.device
        wide = torch.promote_types(dtype or self.D.dtype, torch.float32)
        taps = (batch_size, self.conv.weight.shape[0], self.d_conv - 1)
        conv = torch.zeros(taps, device=device, dtype=wide)
        return SSDState(conv, self._first(batch_size, device, wide))

    def _first(self, batch_size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        shape = (batch_size, self.n_heads, self.d_head, self.d_state)
        if self.initial_state is None:
            return torch.zeros(shape, device=device, dtype=dtype)
        return self.initial_state.to(device=device, dtype=dtype).expand(shape)

    def _mix(
        self, x: Tensor, state: SSDState | None, seq_idx: Tensor | None
    ) -> tuple[Tensor, SSDState]:
        if seq_idx is not None and not self.packs:
            raise ValueError("a mixer with a learnt initial state takes one sequence a row")
        scan_state = None if state is None else state.scan
        if state is None and self.initial_state is not None:
            wide = torch.promote_types(x.dtype, torch.float32)
            scan_state = self._first(x.shape[0], x.device, wide)
        y, after = convolve_and_scan(
            self.in_proj(x),
            self.conv.weight,
            self.conv.bias,
            at_least_float32(self.dt_bias),
            -torch.exp(at_least_float32(self.A_log)),
            at_least_float32(self.D),
            d_head=self.d_head,
            n_groups=self.n_groups,
            conv_state=None if state is None else state.conv,
            scan_state=scan_state,
            seq_idx=seq_idx,
            dt_limit=self.dt_limit,
            norm_weight=self.norm_weight,
            norm_eps=self.norm_eps,
            norm_before_gate=self.norm_before_gate,
            reverse=self.reverse,
        )
        return hide_padding(self.out_proj(y), seq_idx), after
