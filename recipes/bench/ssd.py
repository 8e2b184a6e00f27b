"""Mamba-2's scan against its chunked form in PyTorch's matrix products, and a loop over time."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad, silu, softplus

from tristate.kernels.ssd import reference, ssd_scan
from tristate.recipes.bench.cases import Case

# Name: batch, length, heads, width, groups, states; and whether it is quick.
SIZES = {
    "Mamba-2 layer, 16 states": ((1, 4096, 8, 64, 1, 16), True),
    "Mamba-2 layer, 64 states": ((1, 4096, 8, 64, 1, 64), True),
    "Mamba-2 layer, 128 states": ((1, 4096, 8, 64, 1, 128), True),
    "short": ((8, 256, 6, 64, 1, 64), True),
}
CHUNK = 64


def cases(quick: bool) -> Iterator[Case]:
    """One case a size."""
    for name, ((batch, length, n_heads, width, n_groups, n_states), small) in SIZES.items():
        if quick and not small:
            continue
        inputs = {
            "x": torch.randn(batch, length, n_heads, width),
            "dt": torch.randn(batch, length, n_heads),
            "A": -torch.linspace(1, 16, n_heads),
            "B": torch.randn(batch, length, n_groups, n_states),
            "C": torch.randn(batch, length, n_groups, n_states),
            "D": torch.ones(n_heads),
            "z": torch.randn(batch, length, n_heads, width),
            "dt_bias": torch.full((n_heads,), -4.0),
        }
        peers: dict[str, Callable[..., Tensor]] = {"PyTorch, chunked": chunked}
        # Autograd through a loop takes time that grows with the square of the length.
        if length <= 1024:
            peers["PyTorch, step by step"] = _step_by_step
        shape = {"B": batch, "L": length, "H": n_heads, "P": width, "N": n_states}
        yield Case(f"ssd_scan, {name}", shape, inputs, _ours, peers)


def _ours(**inputs: Any) -> Any:
    return ssd_scan(**inputs, dt_softplus=True, backend="cpu")


def _step_by_step(**inputs: Any) -> Tensor:
    return reference.ssd_scan(**inputs, dt_softplus=True)[0]


def chunked(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    dt_bias: Tensor,
) -> Tensor:
    """Matrix products inside of chunks, a short recurrence between them (Dao & Gu 2024, section 6).

    All matrices of a chunk and head at once, in batched products without copies of B and C by head
    where one group serves all.
    """
    batch, length, n_heads, width = x.shape
    n_groups, n_states = B.shape[2:]
    step = softplus(dt + dt_bias)
    size = CHUNK
    n_chunks = -(-length // size)
    entering, rates = step[..., None] * x, step * A
    if length % size:
        more = n_chunks * size - length
        entering, rates = pad(entering, (0, 0, 0, 0, 0, more)), pad(rates, (0, 0, 0, more))
        B, C = (pad(w, (0, 0, 0, 0, 0, more)) for w in (B, C))
    # (B, chunks, groups, heads of a group, chunk, P or N)
    per_group = n_heads // n_groups
    values = entering.view(batch, n_chunks, size, n_groups, per_group, width).permute(
        0, 1, 3, 4, 2, 5
    )
    logs = rates.view(batch, n_chunks, size, n_groups, per_group).permute(0, 1, 3, 4, 2).cumsum(-1)
    keys, queries = (
        w.view(batch, n_chunks, size, n_groups, 1, n_states).permute(0, 1, 3, 4, 2, 5)
        for w in (B, C)
    )
    below = torch.ones(size, size, dtype=torch.bool).tril()
    decays = (logs[..., :, None] - logs[..., None, :]).masked_fill(~below, -torch.inf).exp()
    inside = ((queries @ keys.mT) * decays) @ values
    to_end = (logs[..., -1:] - logs).exp()
    states = (values * to_end[..., None]).mT @ keys  # (B, chunks, groups, heads, P, N)
    state, before = torch.zeros_like(states[:, 0]), []
    for k in range(n_chunks):
        before.append(state)
        state = logs[:, k, ..., -1:, None].exp() * state + states[:, k]
    across = (queries @ torch.stack(before, 1).mT) * logs.exp()[..., None]
    y = (inside + across).permute(0, 1, 4, 2, 3, 5).reshape(batch, -1, n_heads, width)
    return (y[:, :length] + x * D[:, None]) * silu(z)
