"""One selective branch: convolution, input-dependent step and matrices, scan, gate."""

from collections.abc import Collection
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tristate.core.mixer import at_least_float32
from tristate.core.parts.conv import CausalConv1d
from tristate.core.parts.steps import draw_step_bias
from tristate.kernels.selective import selective_scan


class SelectiveState(NamedTuple):
    """What a selective branch remembers: a few inputs and the scan's state."""

    conv: Tensor  # (B, d_inner, d_conv - 1)
    scan: Tensor  # (B, d_inner, d_state)


class ScanInputs(NamedTuple):
    """Arguments of :func:`tristate.kernels.selective_scan`, by their names there."""

    u: Tensor  # (B, d_inner, L)
    delta: Tensor  # (B, d_inner, L)
    A: Tensor  # (d_inner, d_state)
    B: Tensor  # (B, d_state, L); where it isn't selective (d_inner, d_state)
    C: Tensor  # as B
    D: Tensor  # (d_inner,)
    delta_bias: Tensor  # (d_inner,)


class ConstantStep(nn.Module):
    """Step sizes that don't depend on the input: their bias alone, under the name it always has.

    Args:
        d_inner: channels.
    """

    def __init__(self, d_inner: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.empty(d_inner))


class SelectiveBranch(nn.Module):
    """The selective state-space model (S6) between a mixer's projections.

    ``u = silu(conv(x))``; ``dt``, ``B`` and ``C`` are linear in ``u``;
    ``h[t] = exp(dt A) h[t-1] + dt B u``; ``y = (C h + D u) silu(z)``, with a diagonal
    ``A = -exp(A_log)`` per channel and ``dt = softplus(dt_proj(...))``.

    Args:
        d_inner: channels.
        d_state: states per channel.
        d_conv: taps of the convolution.
        dt_rank: width through which the step sizes are projected.
        conv_bias: bias in the convolution.
        dt_min: least initial step size.
        dt_max: largest initial step size.
        dt_floor: initial step sizes are not drawn below this.
        dt_init: initial weights of the step sizes' projection: ``"random"``, uniform within
            ``dt_scale / sqrt(dt_rank)``, or ``"constant"``, all of that size.
        dt_scale: factor on them.
        norm_eps: RMS-normalise ``dt`` (before its projection), ``B`` and ``C``, with this added to
            the mean square; None for no norms.
        norm_weights: those norms have learnt weights, as Jamba's; FalconMamba's have none.
        selective: which of ``"dt"``, ``"B"`` and ``"C"`` depend on the input. The others are
            constants of each channel; with none of the three this is a time-invariant model.
        reverse: read time backwards; nothing is flipped in memory.

    Raises:
        ValueError: ``dt_init`` is unknown, or a name in ``selective``.

    Source: Gu & Dao 2023, https://arxiv.org/abs/2312.00752, algorithm 2, and section 4.6.2 for
    parts that are not selective; initial values after
    https://github.com/state-spaces/mamba; the norms: Lieber et al. 2024,
    https://arxiv.org/abs/2403.19887, section 6.4.
    """

    def __init__(
        self,
        d_inner: int,
        *,
        d_state: int = 16,
        d_conv: int = 4,
        dt_rank: int,
        conv_bias: bool = True,
        dt_min: float = 1e-3,
        dt_max: float = 0.1,
        dt_floor: float = 1e-4,
        dt_init: Literal["random", "constant"] = "random",
        dt_scale: float = 1.0,
        norm_eps: float | None = None,
        norm_weights: bool = True,
        selective: Collection[str] = ("dt", "B", "C"),
        reverse: bool = False,
    ) -> None:
        super().__init__()
        sizes = {"dt": dt_rank, "B": d_state, "C": d_state}
        if unknown := set(selective) - set(sizes):
            raise ValueError(f"selective are any of 'dt', 'B' and 'C', got {sorted(unknown)}")
        if dt_init not in ("random", "constant"):
            raise ValueError(f"dt_init must be 'random' or 'constant', got {dt_init!r}")
        self.d_inner, self.d_state, self.d_conv = d_inner, d_state, d_conv
        self.sizes = {name: size for name, size in sizes.items() if name in selective}
        self.dt_range, self.dt_init, self.dt_scale = (dt_min, dt_max, dt_floor), dt_init, dt_scale
        self.reverse = reverse
        self.conv = CausalConv1d(d_inner, d_conv, bias=conv_bias, reverse=reverse)
        if self.sizes:
            self.x_proj = nn.Linear(d_inner, sum(self.sizes.values()), bias=False)
        self.dt_proj = nn.Linear(dt_rank, d_inner) if "dt" in self.sizes else ConstantStep(d_inner)
        self.constants = nn.ParameterDict(
            {
                name: nn.Parameter(torch.empty(d_inner, d_state))
                for name in ("B", "C")
                if name not in self.sizes
            }
        )
        self.norms: nn.ModuleDict | None = None
        if norm_eps is not None:
            self.norms = nn.ModuleDict(
                {
                    name: nn.RMSNorm(size, eps=norm_eps, elementwise_affine=norm_weights)
                    for name, size in self.sizes.items()
                }
            )
        self.A_log = nn.Parameter(torch.empty(d_inner, d_state))
        self.D = nn.Parameter(torch.ones(d_inner))
        # Decay would pull the time constants towards one value: these are left alone.
        self.A_log._no_weight_decay = True  # pyright: ignore[reportAttributeAccessIssue]
        self.D._no_weight_decay = True  # pyright: ignore[reportAttributeAccessIssue]
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """``A = -(1, ..., d_state)`` in each channel; step sizes log-uniform in their range."""
        self.A_log.copy_(torch.arange(1, self.d_state + 1).float().log().expand_as(self.A_log))
        nn.init.ones_(self.D)
        if not isinstance(self.dt_proj, ConstantStep):
            spread = self.dt_scale * self.sizes["dt"] ** -0.5
            nn.init.uniform_(self.dt_proj.weight, -spread, spread)
            if self.dt_init == "constant":
                nn.init.constant_(self.dt_proj.weight, spread)
        self.dt_proj.bias.copy_(draw_step_bias(self.d_inner, *self.dt_range))
        # As S4D's: what enters weighs 1, what is read out is drawn.
        for name, constant in self.constants.items():
            nn.init.ones_(constant) if name == "B" else nn.init.normal_(constant)

    def forward(
        self,
        x: Tensor,
        z: Tensor | None = None,
        state: SelectiveState | None = None,
        *,
        seq_idx: Tensor | None = None,
    ) -> tuple[Tensor, SelectiveState]:
        """Scan ``x (B, L, d_inner)``, gated by ``z`` of the same shape.

        Returns:
            ``(B, L, d_inner)`` and the state after the last position read.
        """
        conv_state, scan_state = state if state is not None else (None, None)
        inputs, conv_state = self.scan_inputs(x, conv_state, seq_idx=seq_idx)
        y, scan_state = selective_scan(
            **inputs._asdict(),
            z=z.transpose(1, 2) if z is not None else None,
            delta_softplus=True,
            return_last_state=True,
            initial_state=scan_state,
            seq_idx=seq_idx,
            reverse=self.reverse,
        )
        return y.transpose(1, 2), SelectiveState(conv_state, scan_state)

    def scan_inputs(
        self, x: Tensor, conv_state: Tensor | None = None, *, seq_idx: Tensor | None = None
    ) -> tuple[ScanInputs, Tensor]:
        """What of ``x (B, L, d_inner)`` the scan reads, and the convolution's last state."""
        u, last_conv_state = self.conv(x, conv_state, seq_idx=seq_idx)
        chosen: dict[str, Tensor] = {}
        if self.sizes:
            parts = self.x_proj(u).split(list(self.sizes.values()), dim=-1)
            chosen = dict(zip(self.sizes, parts, strict=True))
        if self.norms is not None:
            chosen = {name: self.norms[name](part) for name, part in chosen.items()}
        # The bias enters inside the scan, where softplus is: the sum stays in float32.
        if isinstance(self.dt_proj, ConstantStep):
            dt = u.new_zeros(()).expand(u.shape)
        else:
            dt = F.linear(chosen["dt"], self.dt_proj.weight)
        B, C = (
            chosen[name].transpose(1, 2) if name in chosen else self.constants[name]
            for name in ("B", "C")
        )
        inputs = ScanInputs(
            u.transpose(1, 2),
            dt.transpose(1, 2),
            -torch.exp(at_least_float32(self.A_log)),
            B,
            C,
            at_least_float32(self.D),
            at_least_float32(self.dt_proj.bias),
        )
        return inputs, last_conv_state

    def init_state(
        self,
        batch_size: int,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> SelectiveState:
        """Zeros; the scan's state in float32 at least."""
        device = device or self.D.device
        dtype = dtype or self.D.dtype
        wide = torch.promote_types(dtype, torch.float32)
        return SelectiveState(
            torch.zeros(batch_size, self.d_inner, self.d_conv - 1, device=device, dtype=wide),
            torch.zeros(batch_size, self.d_inner, self.d_state, device=device, dtype=wide),
        )
