"""mamba-ssm's first mixer, with Vim's two-sided options.

Sources: https://github.com/state-spaces/mamba, ``modules/mamba_simple.py``; the options
``bimamba_type``, ``if_divide_out`` and ``init_layer_scale`` are of https://github.com/hustvl/Vim.
"""

import math
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tristate.core.compat.conv import causal_conv1d_update
from tristate.core.compat.scan import scan_inputs, selective_state_update
from tristate.core.compat.shared import cached_states, decay, keep_last
from tristate.core.mixer import at_least_float32
from tristate.core.parts.steps import draw_step_bias
from tristate.kernels.cross import bidirectional_selective_scan
from tristate.kernels.selective import selective_scan


class Mamba(nn.Module):
    """The mixer, ``(B, L, d_model)`` to the same, under the original's parameter names.

    Args:
        d_model: width of input and output.
        d_state: states per channel.
        d_conv: taps of the convolution.
        expand: ``d_inner = expand * d_model``.
        dt_rank: width of the step sizes' projection; ``"auto"`` is ``ceil(d_model / 16)``.
        dt_min: least initial step size.
        dt_max: largest initial step size.
        dt_init: initial weights of the step sizes' projection, ``"random"`` or ``"constant"``.
        dt_scale: factor on them.
        dt_init_floor: initial step sizes are not drawn below this.
        conv_bias: bias in the convolution.
        bias: biases in the two projections.
        use_fast_path: chose an implementation of the original; one computes all here.
        layer_idx: key of the layer's states in ``inference_params``.
        device: of the parameters.
        dtype: of the parameters; ``A_log`` and ``D`` stay float32.
        bimamba_type: ``"none"``, read ahead only; ``"v1"``, a second scan from the end with its own
            decay; ``"v2"``, a whole second branch from the end.
        if_divide_out: halve the sum of the two branches of ``"v2"``.
        init_layer_scale: initial factor on each output channel; no factor when absent.
        if_devide_out: how Vim's fork spelt ``if_divide_out`` at first.

    Raises:
        ValueError: ``dt_init`` or ``bimamba_type`` is unknown.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: float = 2,
        dt_rank: int | Literal["auto"] = "auto",
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init: Literal["random", "constant"] = "random",
        dt_scale: float = 1.0,
        dt_init_floor: float = 1e-4,
        conv_bias: bool = True,
        bias: bool = False,
        use_fast_path: bool = True,
        layer_idx: int | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
        bimamba_type: Literal["none", "v1", "v2"] = "none",
        if_divide_out: bool = False,
        init_layer_scale: float | None = None,
        if_devide_out: bool = False,
    ) -> None:
        super().__init__()
        if bimamba_type not in ("none", "v1", "v2"):
            raise ValueError(f"bimamba_type must be 'none', 'v1' or 'v2', got {bimamba_type!r}")
        if dt_init not in ("random", "constant"):
            raise ValueError(f"dt_init must be 'random' or 'constant', got {dt_init!r}")
        self.d_model, self.d_state, self.d_conv, self.expand = d_model, d_state, d_conv, expand
        self.d_inner = int(expand * d_model)
        self.dt_rank = math.ceil(d_model / 16) if dt_rank == "auto" else dt_rank
        self.use_fast_path = use_fast_path
        self.layer_idx = layer_idx
        self.bimamba_type = bimamba_type
        self.if_divide_out = if_divide_out or if_devide_out
        self.init_layer_scale = init_layer_scale
        self.activation = "silu"
        self.act = nn.SiLU()

        place: Any = {"device": device, "dtype": dtype}
        if init_layer_scale is not None:
            self.gamma = nn.Parameter(torch.full((d_model,), init_layer_scale, device=device))
        self.in_proj = nn.Linear(d_model, 2 * self.d_inner, bias=bias, **place)
        self._add_branch("", conv_bias, place)
        dt_proj = self._branch("").dt_proj
        spread = self.dt_rank**-0.5 * dt_scale
        nn.init.uniform_(dt_proj.weight, -spread, spread)
        if dt_init == "constant":
            nn.init.constant_(dt_proj.weight, spread)
        dt_proj.bias.data.copy_(draw_step_bias(self.d_inner, dt_min, dt_max, dt_init_floor))
        # Initialisers of whole models set biases to zero, but for those marked so.
        dt_proj.bias._no_reinit = True  # pyright: ignore[reportAttributeAccessIssue]
        if bimamba_type == "v1":
            self.A_b_log = self._new_decay(device)
        if bimamba_type == "v2":
            # Its step sizes start where nn.Linear leaves them: the original draws none for it.
            self._add_branch("_b", conv_bias, place)
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=bias, **place)

    def forward(self, hidden_states: Tensor, inference_params: Any = None) -> Tensor:
        """Mix ``hidden_states (B, L, d_model)``.

        Args:
            hidden_states: the input.
            inference_params: where states are kept between calls: an object with
                ``seqlen_offset`` (0 at the first call) and ``key_value_memory_dict``, such as
                :class:`tristate.core.compat.generation.InferenceParams`.

        Raises:
            ValueError: a two-sided mixer is to keep a state.
        """
        states = None
        if inference_params is not None:
            self._expect_causal()
            states = cached_states(self, inference_params, hidden_states.shape[0])
            if inference_params.seqlen_offset > 0:
                return self.step(hidden_states, *states)[0]
        x, z = self.in_proj(hidden_states).transpose(1, 2).chunk(2, dim=1)
        y = self._ahead(x, z, states) if self.bimamba_type == "none" else self._both_ways(x, z)
        return self._scaled(self.out_proj(y.transpose(1, 2)))

    def step(
        self, hidden_states: Tensor, conv_state: Tensor, ssm_state: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mix one position, ``(B, 1, d_model)``; the states are written in place, and returned.

        Raises:
            ValueError: there are several positions, or the mixer is two-sided.
        """
        self._expect_causal()
        if hidden_states.shape[1] != 1:
            raise ValueError(f"step takes one position, got {hidden_states.shape[1]}")
        branch = self._branch("")
        x, z = self.in_proj(hidden_states[:, 0]).chunk(2, dim=-1)
        weight = branch.conv1d.weight.squeeze(1)
        x = causal_conv1d_update(x, conv_state, weight, branch.conv1d.bias, "silu")
        sizes = [self.dt_rank, self.d_state, self.d_state]
        dt, B, C = branch.x_proj(x).split(sizes, dim=-1)
        dt = F.linear(dt, branch.dt_proj.weight)
        bias = branch.dt_proj.bias
        A = decay(branch.A_log)
        y = selective_state_update(ssm_state, x, dt, A, B, C, branch.D, z, bias, dt_softplus=True)
        return self._scaled(self.out_proj(y))[:, None], conv_state, ssm_state

    def allocate_inference_cache(
        self, batch_size: int, max_seqlen: int, dtype: torch.dtype | None = None, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Zeros for :meth:`step`: the last inputs ``(B, d_inner, d_conv)``, and the scan's state.

        The state is ``(B, d_inner, d_state)``. ``max_seqlen`` and ``kwargs`` are there for mixers
        whose states grow.
        """
        self._expect_causal()
        weight = self.in_proj.weight
        conv = weight.new_zeros(batch_size, self.d_inner, self.d_conv, dtype=dtype)
        return conv, weight.new_zeros(batch_size, self.d_inner, self.d_state, dtype=dtype)

    def _add_branch(self, suffix: str, conv_bias: bool, place: dict[str, Any]) -> None:
        """The parameters between the two projections, for one direction of time."""
        d_inner, d_conv = self.d_inner, self.d_conv
        conv = nn.Conv1d(
            d_inner, d_inner, d_conv, groups=d_inner, padding=d_conv - 1, bias=conv_bias, **place
        )
        x_proj = nn.Linear(d_inner, self.dt_rank + 2 * self.d_state, bias=False, **place)
        D = nn.Parameter(torch.ones(d_inner, device=place["device"]))
        D._no_weight_decay = True  # pyright: ignore[reportAttributeAccessIssue]
        setattr(self, f"conv1d{suffix}", conv)
        setattr(self, f"x_proj{suffix}", x_proj)
        setattr(self, f"dt_proj{suffix}", nn.Linear(self.dt_rank, d_inner, **place))
        setattr(self, f"A{suffix}_log", self._new_decay(place["device"]))
        setattr(self, f"D{suffix}", D)

    def _new_decay(self, device: Any) -> nn.Parameter:
        """``log(1, ..., d_state)`` in each channel."""
        rates = torch.arange(1, self.d_state + 1, dtype=torch.float32, device=device)
        A_log = nn.Parameter(rates.log().repeat(self.d_inner, 1))
        A_log._no_weight_decay = True  # pyright: ignore[reportAttributeAccessIssue]
        return A_log

    def _branch(self, suffix: str) -> "_Branch":
        names = ("conv1d", "x_proj", "dt_proj", "D")
        parts = {name: getattr(self, f"{name}{suffix}") for name in names}
        return _Branch(**parts, A_log=getattr(self, f"A{suffix}_log"))

    def _expect_causal(self) -> None:
        if self.bimamba_type != "none":
            raise ValueError(f"a mixer with bimamba_type={self.bimamba_type!r} keeps no state")

    def _scaled(self, out: Tensor) -> Tensor:
        return out if self.init_layer_scale is None else out * self.gamma

    def _ahead(self, x: Tensor, z: Tensor, states: tuple[Tensor, Tensor] | None) -> Tensor:
        """One branch; the states after it are written into ``states``."""
        y, last = selective_scan(
            **self._branch("").scan(x), z=z, delta_softplus=True, return_last_state=True
        )
        if states is not None:
            keep_last(states[0], x)
            states[1].copy_(last)
        return y

    def _both_ways(self, x: Tensor, z: Tensor) -> Tensor:
        """Both branches summed. Of Vim's first type the second has only its own decay."""
        pairs: dict[str, Any] = self._branch("").scan(x)
        if self.bimamba_type == "v1":
            pairs["A"] = pairs["A"], decay(self.A_b_log)
        else:
            back = self._branch("_b").scan(x, reverse=True)
            pairs = {name: (ahead, back[name]) for name, ahead in pairs.items()}
        y = bidirectional_selective_scan(**pairs, z=z, delta_softplus=True)
        return y / 2 if self.if_divide_out and self.bimamba_type == "v2" else y


class _Branch(NamedTuple):
    """The parameters between the two projections."""

    conv1d: nn.Conv1d
    x_proj: nn.Linear
    dt_proj: nn.Linear
    A_log: Tensor
    D: Tensor

    def scan(self, x: Tensor, *, reverse: bool = False) -> dict[str, Any]:
        """What the branch scans of ``x (B, D, L)``, by the scan's names."""
        A = decay(self.A_log)
        inputs = scan_inputs(
            x,
            self.conv1d.weight,
            self.conv1d.bias,
            self.x_proj.weight,
            self.dt_proj.weight,
            A,
            reverse=reverse,
        )
        # The bias enters inside the scan, where softplus is: the sum stays in float32.
        bias = at_least_float32(self.dt_proj.bias)
        return inputs._asdict() | {"A": A, "D": at_least_float32(self.D), "delta_bias": bias}
