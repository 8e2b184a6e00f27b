"""DeltaNet and its kin: linear attention that corrects what its state holds under a key."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tristate.core.mixer import Mixer, at_least_float32
from tristate.core.parts.conv import CausalConv1d
from tristate.core.parts.heads import unit_length
from tristate.core.parts.steps import draw_step_bias
from tristate.kernels.delta import gated_delta_rule
from tristate.kernels.norm import gated_rms_norm


class DeltaState(NamedTuple):
    """What a delta rule remembers: a few inputs and the rule's state."""

    conv: Tensor  # (B, channels of q, k and v, d_conv - 1)
    scan: Tensor  # (B, H, K, V)


class DeltaNet(Mixer):
    """The delta rule between a short convolution and a norm.

    ``q, k, v = silu(conv(in_proj(x)))``, ``q`` and ``k`` of length 1; for each head ``S = S + beta
    k (v - k^T S)^T`` with ``beta = sigmoid(rates(x))``, ``o = S^T q / sqrt(K)``; ``y =
    out_proj(rms_norm(o))``. Time O(L d_model^2), state O(H K V).

    Args:
        d_model: width of input and output.
        n_heads: heads; one for every 128 channels when absent.
        n_key_heads: heads of queries and keys, which divide ``n_heads``: each serves several heads
            of values; ``n_heads`` when absent.
        d_key: key channels of a head; ``d_model / n_heads`` when absent.
        d_value: value channels of a head; ``d_key`` when absent.
        n_steps: corrections a token, each with a key, a value and a rate of its own (DeltaProduct).
        decay: let the state decay by head before a token's corrections, by ``exp(-exp(A_log)
            softplus(rate + dt_bias))`` (Gated DeltaNet).
        gate: gate the normalised output with ``silu(z)``, ``z`` linear in the input.
        negative: rates up to 2, so that a correction may also reflect.
        d_conv: taps of the convolution.
        conv_bias: bias in the convolution.
        norm_eps: added to the mean square of each head.

    Raises:
        ValueError: the heads of keys don't divide those of values, or no head has a channel.

    Source: Yang et al. 2024, https://arxiv.org/abs/2406.06484 and, gated,
    https://arxiv.org/abs/2412.06464; products: Siems et al. 2025, https://arxiv.org/abs/2502.10297;
    reflections: Grazzi et al. 2024, https://arxiv.org/abs/2411.12537; initial values as in
    https://github.com/fla-org/flash-linear-attention.
    """

    packs = True

    def __init__(
        self,
        d_model: int,
        *,
        n_heads: int | None = None,
        n_key_heads: int | None = None,
        d_key: int | None = None,
        d_value: int | None = None,
        n_steps: int = 1,
        decay: bool = False,
        gate: bool = False,
        negative: bool = False,
        d_conv: int = 4,
        conv_bias: bool = False,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.d_model, self.n_steps, self.negative, self.norm_eps = (
            d_model, n_steps, negative, norm_eps,
        )  # fmt: skip
        self.n_heads = n_heads or max(1, d_model // 128)
        self.n_key_heads = n_key_heads or self.n_heads
        self.d_key = d_key or d_model // self.n_heads
        self.d_value = d_value or self.d_key
        if self.n_heads % self.n_key_heads or self.d_key < 1:
            raise ValueError(
                f"{self.n_key_heads} heads of keys must divide {self.n_heads} of values, each of a "
                f"channel at least; {d_model} channels gave keys {self.d_key}"
            )
        queries, d_inner = self.n_key_heads * self.d_key, self.n_heads * self.d_value
        # Queries, keys and values of each step, and the gate; rates of each step, and the decay.
        self.widths = [queries, n_steps * queries, n_steps * d_inner]
        n_rates = self.n_heads * (n_steps + decay)
        self.in_proj = nn.Linear(d_model, sum(self.widths) + gate * d_inner, bias=False)
        self.rates = nn.Linear(d_model, n_rates, bias=False)
        self.conv = CausalConv1d(sum(self.widths), d_conv, bias=conv_bias)
        self.A_log, self.dt_bias = None, None
        if decay:
            # No rate is 0, which has no logarithm.
            self.A_log = nn.Parameter(torch.empty(self.n_heads).uniform_(0.01, 16).log())
            self.dt_bias = nn.Parameter(draw_step_bias(self.n_heads))
            for parameter in (self.A_log, self.dt_bias):
                parameter._no_weight_decay = True  # pyright: ignore[reportAttributeAccessIssue]
        self.norm_weight = nn.Parameter(torch.ones(self.d_value))
        self.out_proj = nn.Linear(d_inner, d_model, bias=False)

    def forward_state(
        self, x: Tensor, state: DeltaState | None = None, *, seq_idx: Tensor | None = None
    ) -> tuple[Tensor, DeltaState]:
        """Mix ``x (B, L, d_model)`` from ``state`` on."""
        conv_state, scan = state if state is not None else (None, None)
        channels = sum(self.widths)
        projected = self.in_proj(x)
        entering, conv_state = self.conv(projected[..., :channels], conv_state, seq_idx=seq_idx)
        q, k, v = entering.split(self.widths, dim=-1)
        beta, g = self._rates(x)
        o, scan = gated_delta_rule(
            self._per_value_head(unit_length(q.unflatten(-1, (self.n_key_heads, -1)))),
            self._per_value_head(unit_length(self._by_step(k, self.n_key_heads))),
            self._by_step(v, self.n_heads),
            beta=beta,
            g=g,
            initial_state=scan,
            seq_idx=seq_idx,
        )
        z = projected[..., channels:].unflatten(-1, (self.n_heads, -1))
        gate = z if z.numel() else None
        y = gated_rms_norm(o, self.norm_weight, gate, eps=self.norm_eps)
        return self.out_proj(y.flatten(2)), DeltaState(conv_state, scan)

    def _by_step(self, x: Tensor, n_heads: int) -> Tensor:
        """``(B, L, n H D)`` as ``(B, n L, H, D)``: the steps of each position in turn."""
        return x.unflatten(-1, (self.n_steps, n_heads, -1)).flatten(1, 2)

    def _per_value_head(self, x: Tensor) -> Tensor:
        return x.repeat_interleave(self.n_heads // self.n_key_heads, dim=2)

    def _rates(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """How much is corrected, ``(B, n L, H)``; the decay's logarithm ``(B, L, H)``, if any."""
        rates = self.rates(x)
        beta = torch.sigmoid(self._by_step(rates[..., : self.n_steps * self.n_heads], self.n_heads))
        beta = (2 * beta if self.negative else beta)[..., 0]
        if self.A_log is None or self.dt_bias is None:
            return beta, None
        dt = F.softplus(at_least_float32(rates[..., -self.n_heads :]) + self.dt_bias)
        return beta, -torch.exp(at_least_float32(self.A_log)) * dt

    def init_state(
        self,
        batch_size: int,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> DeltaState:
        """Zeros."""
        weight = self.conv.weight
        wide = torch.promote_types(dtype or weight.dtype, torch.float32)
        place: Any = {"device": device or weight.device, "dtype": wide}
        return DeltaState(
            torch.zeros(batch_size, len(weight), weight.shape[1] - 1, **place),
            torch.zeros(batch_size, self.n_heads, self.d_key, self.d_value, **place),
        )


class GatedDeltaNet(DeltaNet):
    """:class:`DeltaNet` whose state decays and whose output is gated.

    Args:
        d_model: width of input and output.
        decay: see there, as all others.
        gate: see there.
        **options: those of :class:`DeltaNet`.

    Source: Yang et al. 2024, https://arxiv.org/abs/2412.06464.
    """

    def __init__(
        self, d_model: int, *, decay: bool = True, gate: bool = True, **options: Any
    ) -> None:
        super().__init__(d_model, decay=decay, gate=gate, **options)


class DeltaProduct(GatedDeltaNet):
    """:class:`GatedDeltaNet` with several corrections a token, which may reflect.

    Args:
        d_model: width of input and output.
        n_steps: corrections a token.
        negative: rates up to 2.
        **options: those of :class:`DeltaNet`.

    Source: Siems et al. 2025, https://arxiv.org/abs/2502.10297.
    """

    def __init__(
        self, d_model: int, *, n_steps: int = 2, negative: bool = True, **options: Any
    ) -> None:
        super().__init__(d_model, n_steps=n_steps, negative=negative, **options)
