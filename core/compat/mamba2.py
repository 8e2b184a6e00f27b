"""mamba-ssm's second mixer: https://github.com/state-spaces/mamba, ``modules/mamba2.py``."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tristate.core.compat.conv import causal_conv1d_update
from tristate.core.compat.gated_norm import RMSNorm
from tristate.core.compat.scan import selective_state_update
from tristate.core.compat.shared import cached_states, decay, keep_last
from tristate.core.compat.ssd import mamba_split_conv1d_scan_combined
from tristate.core.mixer import at_least_float32
from tristate.core.parts.ssd import NO_LIMIT, split_heads
from tristate.core.parts.steps import draw_step_bias


class Mamba2(nn.Module):
    """The mixer, ``(B, L, d_model)`` to the same, under the original's parameter names.

    Args:
        d_model: width of input and output.
        d_state: states per channel.
        d_conv: taps of the convolution.
        conv_init: initial taps are uniform within this; as ``nn.Conv1d`` draws them when absent.
        expand: ``d_inner = expand * d_model``.
        headdim: channels per head.
        d_ssm: channels that are scanned; the others of ``d_inner`` are a gated MLP. All by default.
        ngroups: groups of heads that share ``B`` and ``C``.
        A_init_range: initial decay rates are uniform within this.
        D_has_hdim: a ``D`` per channel, not per head.
        rmsnorm: gated norm after the scan; else the gate by itself.
        norm_before_gate: gate what is normalised; else normalise what is gated.
        dt_min: least initial step size.
        dt_max: largest initial step size.
        dt_init_floor: initial step sizes are not drawn below this.
        dt_limit: the least and the largest step size at any time, also in :meth:`step`.
        bias: biases in the two projections.
        conv_bias: bias in the convolution.
        chunk_size: see :func:`tristate.kernels.ssd.ssd_scan`.
        use_mem_eff_path: chose an implementation of the original; one computes all here.
        layer_idx: key of the layer's states in ``inference_params``.
        process_group: must be None: nothing is split over processes here.
        sequence_parallel: how it would be split.
        device: of the parameters.
        dtype: of the parameters; ``D`` stays float32.

    Raises:
        ValueError: ``process_group`` is given, or the widths don't divide.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 128,
        d_conv: int = 4,
        conv_init: float | None = None,
        expand: float = 2,
        headdim: int = 64,
        d_ssm: int | None = None,
        ngroups: int = 1,
        A_init_range: tuple[float, float] = (1, 16),
        D_has_hdim: bool = False,
        rmsnorm: bool = True,
        norm_before_gate: bool = False,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init_floor: float = 1e-4,
        dt_limit: tuple[float, float] = NO_LIMIT,
        bias: bool = False,
        conv_bias: bool = True,
        chunk_size: int = 256,
        use_mem_eff_path: bool = True,
        layer_idx: int | None = None,
        process_group: Any = None,
        sequence_parallel: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if process_group is not None:
            raise ValueError("process_group must be None: a mixer runs in one process here")
        self.d_model, self.d_state, self.d_conv, self.expand = d_model, d_state, d_conv, expand
        self.conv_init = conv_init
        self.process_group, self.sequence_parallel = process_group, sequence_parallel
        self.d_inner = int(expand * d_model)
        self.headdim, self.ngroups = headdim, ngroups
        self.d_ssm = self.d_inner if d_ssm is None else d_ssm
        if self.d_ssm % headdim or (self.d_ssm // headdim) % ngroups:
            raise ValueError(
                f"{self.d_ssm} channels don't make heads of {headdim} in {ngroups} groups"
            )
        self.nheads = self.d_ssm // headdim
        self.D_has_hdim, self.rmsnorm, self.norm_before_gate = D_has_hdim, rmsnorm, norm_before_gate
        self.dt_limit = dt_limit
        self.activation = "silu"
        self.act = nn.SiLU()
        self.chunk_size, self.use_mem_eff_path = chunk_size, use_mem_eff_path
        self.layer_idx = layer_idx

        place: Any = {"device": device, "dtype": dtype}
        self.d_xbc = self.d_ssm + 2 * ngroups * d_state
        # [MLP's gate, MLP, gate, x, B, C, dt]
        d_in_proj = 2 * self.d_inner + 2 * ngroups * d_state + self.nheads
        self.in_proj = nn.Linear(d_model, d_in_proj, bias=bias, **place)
        self.conv1d = nn.Conv1d(
            self.d_xbc,
            self.d_xbc,
            d_conv,
            groups=self.d_xbc,
            padding=d_conv - 1,
            bias=conv_bias,
            **place,
        )
        if conv_init is not None:
            nn.init.uniform_(self.conv1d.weight, -conv_init, conv_init)
        dt_bias = draw_step_bias(self.nheads, dt_min, dt_max, dt_init_floor)
        self.dt_bias = nn.Parameter(dt_bias.to(**place))
        rates = torch.empty(self.nheads, device=device).uniform_(*A_init_range)
        self.A_log = nn.Parameter(rates.log().to(dtype))
        n_D = self.d_ssm if D_has_hdim else self.nheads
        self.D = nn.Parameter(torch.ones(n_D, device=device))
        for parameter in (self.dt_bias, self.A_log, self.D):
            parameter._no_weight_decay = True  # pyright: ignore[reportAttributeAccessIssue]
        if rmsnorm:
            self.norm = RMSNorm(
                self.d_ssm,
                eps=1e-5,
                group_size=self.d_ssm // ngroups,
                norm_before_gate=norm_before_gate,
                **place,
            )
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=bias, **place)

    def forward(
        self,
        u: Tensor,
        seqlen: int | None = None,
        seq_idx: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        inference_params: Any = None,
    ) -> Tensor:
        """Mix ``u (B, L, d_model)``, or ``(B L, d_model)`` with ``seqlen = L``.

        Args:
            u: the input.
            seqlen: length of a row, where ``u`` doesn't tell it.
            seq_idx: segment of each position, ``(B, L)`` integers.
            cu_seqlens: instead of it, for a batch of 1: where each segment starts, and the length.
            inference_params: where states are kept between calls: an object with
                ``seqlen_offset`` (0 at the first call) and ``key_value_memory_dict``. With
                ``cu_seqlens`` each segment gets a row of the states.

        Returns:
            The output, of the shape of ``u``.

        Raises:
            ValueError: the shapes disagree.
        """
        x = u if seqlen is None else u.unflatten(0, (-1, seqlen))
        if inference_params is None:
            if seq_idx is None and cu_seqlens is not None:
                places = torch.arange(x.shape[1], device=x.device, dtype=cu_seqlens.dtype)
                seq_idx = torch.bucketize(places, cu_seqlens[1:], out_int32=True, right=True)[None]
            return self._mix(x, seq_idx).reshape(u.shape)
        n_rows = x.shape[0] if cu_seqlens is None else cu_seqlens.shape[0] - 1
        conv_state, ssm_state = cached_states(self, inference_params, n_rows)
        if inference_params.seqlen_offset > 0:
            out = self.step(x, conv_state, ssm_state)[0]
        elif cu_seqlens is None:
            out = self._mix(x, seq_idx, (conv_state, ssm_state))
        else:
            pieces = zip(
                x.split(cu_seqlens.diff().tolist(), dim=1),
                conv_state.split(1),
                ssm_state.split(1),
                strict=True,
            )
            out = torch.cat([self._mix(piece, None, states) for piece, *states in pieces], dim=1)
        return out.reshape(u.shape)

    def _mix(
        self, x: Tensor, seq_idx: Tensor | None, states: Sequence[Tensor] | None = None
    ) -> Tensor:
        """Mix ``x (B, L, d_model)``; the states after it are written into ``states``."""
        zxbcdt = self.in_proj(x)
        out, last = mamba_split_conv1d_scan_combined(
            zxbcdt,
            self.conv1d.weight.squeeze(1),
            self.conv1d.bias,
            self.dt_bias,
            decay(self.A_log),
            self.D.unflatten(0, (-1, self.headdim)) if self.D_has_hdim else self.D,
            self.chunk_size,
            self._initial_states(x.shape[0]),
            seq_idx,
            self.dt_limit,
            return_final_states=True,
            rmsnorm_weight=self.norm.weight if self.rmsnorm else None,
            rmsnorm_eps=self.norm.eps if self.rmsnorm else 0.0,
            outproj_weight=self.out_proj.weight,
            outproj_bias=self.out_proj.bias,
            headdim=self.headdim,
            ngroups=self.ngroups,
            norm_before_gate=self.norm_before_gate,
        )
        if states is not None:
            xBC = zxbcdt[..., -(self.d_xbc + self.nheads) : -self.nheads]
            keep_last(states[0], xBC.transpose(1, 2))
            states[1].copy_(last)
        return out

    def _initial_states(self, batch_size: int) -> Tensor | None:
        """``(B, H, P, N)``; None is zeros."""
        return None

    def step(
        self, hidden_states: Tensor, conv_state: Tensor, ssm_state: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mix one position, ``(B, 1, d_model)``; the states are written in place, and returned.

        Raises:
            ValueError: there are several positions.
        """
        if hidden_states.shape[1] != 1:
            raise ValueError(f"step takes one position, got {hidden_states.shape[1]}")
        d_mlp, heads = self.d_inner - self.d_ssm, (self.nheads, self.headdim)
        gate, mlp, z, xBC, dt = self.in_proj(hidden_states[:, 0]).split(
            [d_mlp, d_mlp, self.d_ssm, self.d_xbc, self.nheads], dim=-1
        )
        weight = self.conv1d.weight.squeeze(1)
        xBC = causal_conv1d_update(xBC, conv_state, weight, self.conv1d.bias, "silu")
        x, B, C = split_heads(xBC, self.nheads, self.headdim, self.ngroups)
        # Limited here: the step of a scan knows no limits.
        dt = F.softplus(at_least_float32(dt) + self.dt_bias).clamp(*self.dt_limit)
        y = selective_state_update(
            ssm_state,
            x,
            dt[..., None].expand(-1, *heads),
            decay(self.A_log)[:, None, None].expand(*heads, self.d_state),
            B,
            C,
            self.D.view(self.nheads, -1).expand(heads),
            None if self.rmsnorm else z.unflatten(-1, heads),
        ).flatten(1)
        if self.rmsnorm:
            y = self.norm(y, z)
        if d_mlp > 0:
            y = torch.cat([F.silu(gate) * mlp, y], dim=-1)
        return self.out_proj(y)[:, None], conv_state, ssm_state

    def allocate_inference_cache(
        self, batch_size: int, max_seqlen: int, dtype: torch.dtype | None = None, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Zeros for :meth:`step`: the last inputs ``(B, d_ssm + 2 G N, d_conv)``, and the states.

        The states are ``(B, H, P, N)``. ``max_seqlen`` and ``kwargs`` are there for mixers whose
        states grow.
        """
        weight = self.in_proj.weight
        states = (batch_size, self.nheads, self.headdim, self.d_state)
        conv = weight.new_zeros(batch_size, self.d_xbc, self.d_conv, dtype=dtype)
        return conv, weight.new_zeros(states, dtype=dtype)
