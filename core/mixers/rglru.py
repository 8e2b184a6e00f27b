"""RG-LRU, the gated linear recurrence of Griffin."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tristate.core.mixer import Mixer, at_least_float32
from tristate.core.parts.segments import segments
from tristate.kernels.linear import linear_scan

# The decay at a fully open gate is the radius to this power.
POWER = 8.0

# The square root's derivative is no larger than this: 1 - a^2 may round to 0 in bfloat16.
STEEPEST = 1000.0


class RGLRUState(NamedTuple):
    """What the recurrence remembers, and whether it has begun."""

    scan: Tensor  # (B, d_model)
    begun: Tensor  # (B,), 1 after the first real position: that one enters with weight 1


class BlockDiagonal(nn.Module):
    """A linear map of ``n_heads`` blocks of channels, each to itself.

    Args:
        d_model: width.
        n_heads: blocks.
    """

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        width = d_model // n_heads
        self.weight = nn.Parameter(torch.empty(n_heads, width, width))  # (H, in, out)
        self.bias = nn.Parameter(torch.zeros(n_heads, width))
        self.bias._no_weight_decay = True  # pyright: ignore[reportAttributeAccessIssue]
        nn.init.normal_(self.weight, std=width**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``x (B, L, d_model)``."""
        heads = x.unflatten(-1, (self.weight.shape[0], -1))
        return (torch.einsum("blhi,hij->blhj", heads, self.weight) + self.bias).flatten(2)


class RGLRU(Mixer):
    """A linear recurrence by channel whose decay and input are gated by the input.

    ``a = exp(-8 gate_a softplus(rate))``, ``h[t] = a h[t-1] + sqrt(1 - a^2) gate_x x``, with both
    gates sigmoids of block-diagonal maps of ``x``. The first position of a sequence enters without
    the square root. Time O(L d_model^2 / n_heads), state O(d_model).

    Args:
        d_model: width.
        n_heads: blocks of the gates' maps; they divide ``d_model``.
        radius: least and largest initial ``exp(-softplus(rate))``, drawn uniformly on the ring
            between them.

    Raises:
        ValueError: the heads don't divide the width.

    Source: De et al. 2024, https://arxiv.org/abs/2402.19427, equations 1 to 4; the beginning of a
    sequence as in https://github.com/google-deepmind/recurrentgemma.
    """

    packs = True

    def __init__(
        self, d_model: int, *, n_heads: int = 4, radius: tuple[float, float] = (0.9, 0.999)
    ) -> None:
        super().__init__()
        if d_model % n_heads:
            raise ValueError(f"{n_heads} heads don't divide d_model = {d_model}")
        self.d_model = d_model
        self.input_gate = BlockDiagonal(d_model, n_heads)
        self.decay_gate = BlockDiagonal(d_model, n_heads)
        squares = torch.empty(d_model).uniform_(radius[0] ** 2, radius[1] ** 2)
        # softplus of this is -log(radius).
        self.rate = nn.Parameter(torch.expm1(-squares.log() / 2).log())
        self.rate._no_weight_decay = True  # pyright: ignore[reportAttributeAccessIssue]

    def forward_state(
        self, x: Tensor, state: RGLRUState | None = None, *, seq_idx: Tensor | None = None
    ) -> tuple[Tensor, RGLRUState]:
        """Mix ``x (B, L, d_model)`` from ``state`` on."""
        state = state if state is not None else self.init_state(x.shape[0], dtype=x.dtype)
        starts, begun = _starts(x, state.begun, seq_idx)
        a, entering = drive(x, starts, self.decay_gate(x), self.input_gate(x), self.rate)
        h, last = linear_scan(a, entering, initial_state=state.scan, seq_idx=seq_idx)
        return h.to(x.dtype), RGLRUState(last, begun)

    def init_state(
        self,
        batch_size: int,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> RGLRUState:
        """Zeros: nothing has begun."""
        wide = torch.promote_types(dtype or self.rate.dtype, torch.float32)
        place: Any = {"device": device or self.rate.device, "dtype": wide}
        return RGLRUState(
            torch.zeros(batch_size, self.d_model, **place), torch.zeros(batch_size, **place)
        )


def drive(
    x: Tensor, starts: Tensor, decay: Tensor, entry: Tensor, rate: Tensor
) -> tuple[Tensor, Tensor]:
    """Decays and what enters, ``(B, L, D)`` both, channel by channel.

    Args:
        x: input, ``(B, L, D)``.
        starts: which positions begin a sequence, ``(B, L)`` bool.
        decay: the decay gate before its sigmoid, ``(B, L, D)``.
        entry: the input gate before its own.
        rate: the parameter of that name, broadcast.
    """
    gate = at_least_float32(torch.sigmoid(decay))
    log_a = -POWER * gate * F.softplus(at_least_float32(rate))
    weight = torch.where(starts[..., None], 1, _bounded_sqrt(-torch.expm1(2 * log_a)))
    return log_a.exp(), weight * (x * torch.sigmoid(entry))


def _starts(x: Tensor, begun: Tensor, seq_idx: Tensor | None) -> tuple[Tensor, Tensor]:
    """Which positions begin a sequence, ``(B, L)``, and ``begun`` after them."""
    fresh = (begun == 0)[:, None]
    if seq_idx is None:
        return (torch.arange(x.shape[1], device=x.device) == 0) & fresh, torch.ones_like(begun)
    at = segments(seq_idx)
    return at.changed | (at.first & fresh), begun.maximum(at.real.any(1).to(begun.dtype))


class _BoundedSqrt(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return x.sqrt()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        (x,) = ctx.saved_tensors
        return grad / (4 * x).clamp(min=STEEPEST**-2).sqrt()


def _bounded_sqrt(x: Tensor) -> Tensor:
    """The square root, with a derivative of at most ``STEEPEST``."""
    return _BoundedSqrt.apply(x)  # pyright: ignore[reportReturnType]
