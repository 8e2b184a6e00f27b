"""Problems for the gated delta rule: inputs of every kind that it takes, and cotangents."""

from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, normalize

# More than a block of 16 and a rest, of keys and of values.
D_KEY, D_VALUE = 19, 35

KINDS = {
    "gated": {},
    "no gate": {"gate": ""},
    "gate by key": {"gate": "key"},
    "rate by value": {"by_value": True, "d_key": 16},
    "product": {"n": 3, "d_key": 8, "d_value": 12},
    "product, all by channel": {"n": 2, "gate": "key", "by_value": True, "d_value": 7},
    "one channel": {"d_key": 1, "d_value": 1},
    "64 channels": {"d_key": 64, "d_value": 64, "batch": 1, "heads": 1},
}


def problem(
    length: int,
    *,
    layout: str = "heads-last",
    batch: int = 2,
    heads: int = 2,
    d_key: int = D_KEY,
    d_value: int = D_VALUE,
    n: int = 1,
    gate: str = "head",
    by_value: bool = False,
    initial: bool = True,
) -> tuple[dict[str, Tensor | None], dict[str, Tensor]]:
    """Inputs in float32, and cotangents of the output and the last state.

    Args:
        length: tokens.
        layout: how q, k and v lie in memory: ``"heads-last"``, ``"time-last"`` (heads before time)
            or ``"slice"``, parts of one tensor.
        batch: sequences.
        heads: of each.
        d_key: key channels.
        d_value: value channels.
        n: corrections a token.
        gate: ``"head"``, ``"key"``, or ``""`` for none.
        by_value: rates by value channel.
        initial: whether there is an initial state.
    """
    generator = torch.Generator().manual_seed(1000 * length + 10 * d_key + d_value)
    randn = partial(torch.randn, generator=generator)

    def sequence(steps: int, channels: int) -> Tensor:
        x = randn(batch, steps, heads, channels)
        if layout == "time-last":
            return x.transpose(1, 2).contiguous().transpose(1, 2)
        return torch.cat([x, x], 3)[..., :channels] if layout == "slice" else x

    keys = sequence(n * length, d_key)
    shape = (batch, n * length, heads, d_value) if by_value else (batch, n * length, heads)
    gates = {"head": (batch, length, heads), "key": (batch, length, heads, d_key)}
    tensors = {
        "q": sequence(length, d_key),
        "k": normalize(keys, dim=3),
        "v": sequence(n * length, d_value),
        "beta": 2 * randn(*shape).sigmoid(),
        "g": logsigmoid(randn(*gates[gate]) + 2) if gate else None,
        "initial_state": randn(batch, heads, d_key, d_value) if initial else None,
    }
    cotangents = {
        "out": randn(batch, length, heads, d_value),
        "last": randn(batch, heads, d_key, d_value),
    }
    return tensors, cotangents
