"""Experts: gated MLPs of which each position takes the few that a router chooses."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tristate.core.activation import activation_named
from tristate.core.context import Context, Routing
from tristate.core.mixer import at_least_float32
from tristate.kernels.grouped import grouped_linear


class Experts(nn.Module):
    """The sum of the ``top_k`` likeliest experts, weighted by their probabilities.

    No position is dropped, whatever the load: positions are sorted by expert, and each expert maps
    all of its own at once (:func:`tristate.kernels.grouped.grouped_linear`). Time O(top_k L d_model
    d_hidden). In a stack the shares of the experts are left in its context (see
    :meth:`tristate.core.context.Context.load`), and with them the balancing loss.

    Args:
        d_model: width of input and output.
        d_hidden: width inside an expert; two thirds of ``4 d_model``, rounded up to a multiple of
            8, when absent.
        n_experts: experts.
        top_k: experts of a position.
        normalize: weights sum to 1 for each position (Mixtral); else they are the probabilities
            (Jamba).
        activation: of the gates, a name in :data:`tristate.core.activation.ACTIVATIONS`.

    Raises:
        ValueError: ``top_k`` is not from 1 to ``n_experts``, or the activation is unknown.

    Source: Shazeer et al. 2017, https://arxiv.org/abs/1701.06538; without drops: Gale et al. 2022,
    https://arxiv.org/abs/2211.15841.
    """

    wants_context = True

    def __init__(
        self,
        d_model: int,
        *,
        d_hidden: int | None = None,
        n_experts: int = 8,
        top_k: int = 2,
        normalize: bool = False,
        activation: str = "silu",
    ) -> None:
        super().__init__()
        if not 1 <= top_k <= n_experts:
            raise ValueError(f"top_k must be from 1 to {n_experts}, got {top_k}")
        d_hidden = d_hidden or -(-8 * d_model // 24) * 8
        self.top_k, self.normalize = top_k, normalize
        self.activation = activation_named(activation)
        self.router = nn.Linear(d_model, n_experts, bias=False)
        self.in_proj = nn.Parameter(torch.empty(n_experts, 2 * d_hidden, d_model))
        self.out_proj = nn.Parameter(torch.empty(n_experts, d_model, d_hidden))
        for weight in (self.in_proj, self.out_proj):
            nn.init.uniform_(weight, -(weight.shape[2] ** -0.5), weight.shape[2] ** -0.5)

    def forward(self, x: Tensor, *, context: Context | None = None) -> Tensor:
        """Map ``x (B, L, d_model)``, and leave the routing in ``context``."""
        rows = x.flatten(0, 1)
        probabilities = at_least_float32(self.router(rows)).softmax(-1)
        weights, chosen = probabilities.topk(self.top_k, dim=-1)
        if context is not None:
            context.routing[self] = _routing(probabilities, chosen, context.seq_idx)
        if self.normalize:
            weights = weights / weights.sum(-1, keepdim=True)
        # One entry a position and expert, sorted by expert.
        entries = chosen.flatten()
        order = entries.argsort(stable=True)
        sizes = F.one_hot(entries, len(self.in_proj)).sum(0)
        places = order // self.top_k
        gate, value = grouped_linear(rows[places], self.in_proj, sizes).chunk(2, dim=-1)
        y = grouped_linear(self.activation(gate) * value, self.out_proj, sizes)
        y = y * weights.flatten()[order, None].to(x.dtype)
        return torch.zeros_like(rows).index_add(0, places, y.to(x.dtype)).view_as(x)


def _routing(probabilities: Tensor, chosen: Tensor, seq_idx: Tensor | None) -> Routing:
    """Counts and summed probabilities, without padding."""
    taken = torch.zeros_like(probabilities).scatter(1, chosen, 1.0).detach()
    if seq_idx is not None:
        real = (seq_idx >= 0).flatten()[:, None]
        taken, probabilities = taken * real, probabilities * real
    return Routing(taken.sum(0), probabilities.sum(0))
