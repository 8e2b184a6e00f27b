"""The scan of Mamba-2 on a GPU: from tensors to the kernels, and back."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tristate.kernels.ssd import triton_backward, triton_forward, triton_weights
from tristate.kernels.ssd.ops import triton_kept_shape, triton_part
from tristate.kernels.triton.carry import hand_on
from tristate.kernels.triton.launch import launch, strides
from tristate.kernels.triton.plan import power_of_two, programs_to_fill, share_out
from tristate.kernels.triton.segments import numbers

STEPS, STATES = 16, 4096
"""Steps of a tile, and the numbers of a state of which registers hold two."""


@dataclass(frozen=True)
class _Work:
    """What the kernels have in common.

    Attributes:
        grid: programs: blocks of channels of all heads, and chunks of time.
        parts: of a chunk: stretches of time between kept states.
        n_blocks: of a head's channels.
        arguments: of all kernels.
        of_heads: further ones of those that take a head each.
    """

    grid: tuple[int, int]
    parts: int
    n_blocks: int
    arguments: dict[str, Any]
    of_heads: dict[str, Any]


def _work(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    seq_idx: Tensor | None,
    dt_softplus: bool,
    dt_min: float,
    dt_max: float,
    reverse: bool,
) -> _Work:
    batch, length, n_heads, width = x.shape
    n_groups, n_states = B.shape[2:]
    block_n = max(16, power_of_two(n_states))
    block_p = max(32, min(64, power_of_two(width), STATES // block_n))
    n_blocks = -(-width // block_p)
    part = triton_part(B)
    n_chunks, n_parts = share_out(x, batch * n_heads * n_blocks, -(-length // part))
    segments = numbers(seq_idx, reverse, n_parts * part)
    if B.dtype != C.dtype:
        B, C = B.float(), C.float()
    arguments = {
        "x": x,
        "dt": dt,
        "A": A.float().contiguous(),
        "B": B,
        "C": C,
        "z": z,
        "bias": None if dt_bias is None else dt_bias.float().contiguous(),
        "segments": segments,
        "length": length,
        "n_places": 0 if segments is None else segments.shape[1],
        "n_heads": n_heads,
        "group_heads": n_heads // n_groups,
        "width": width,
        "n_states": n_states,
        "least": dt_min,
        "most": dt_max,
        **strides("x", x, "bthp"),
        **strides("dt", dt, "bth"),
        **strides("B", B, "btgn"),
        **strides("C", C, "btgn"),
        **strides("z", z, "bthp"),
        "SOFTPLUS": dt_softplus,
        "REVERSE": reverse,
        "KEPT": part // STEPS,
        "BLOCK_N": block_n,
        "BLOCK_P": block_p,
        "BLOCK_T": STEPS,
        "num_warps": 8 if block_n * block_p > 2048 else 4,
    }
    if D is not None:
        D = D.float()
        D = D if D.dim() == 2 else D[:, None].expand(n_heads, width)
    of_heads = {"D": D, **strides("D", D, "hp"), "n_blocks": n_blocks}
    return _Work((batch * n_heads * n_blocks, n_chunks), n_parts, n_blocks, arguments, of_heads)


def forward(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    initial_states: Tensor | None,
    seq_idx: Tensor | None,
    dt_softplus: bool,
    dt_min: float,
    dt_max: float,
    reverse: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Output, last states, nothing, and with ``keep`` the states before each part."""
    flags = dt_softplus, dt_min, dt_max, reverse
    work = _work(x, dt, A, B, C, D, z, dt_bias, seq_idx, *flags)
    batch, _, n_heads, width = x.shape
    out = x.new_empty(x.shape)
    states = batch, work.grid[1], n_heads, width, B.shape[3]
    leaving = x.new_empty(states, dtype=torch.float32)
    kept = x.new_empty(triton_kept_shape(x, B) if keep else (0,), dtype=torch.float32)
    given = {
        **work.arguments,
        **work.of_heads,
        **strides("out", out, "bthp"),
        "leaving": leaving,
        "n_tiles": work.parts * work.arguments["KEPT"],
    }
    entering = initial_states
    if work.grid[1] > 1:
        decays = leaving.new_empty(states[:3])
        summary = {"out": None, "kept": None, "decays": decays, "entering": None}
        launch(triton_forward.forward, work.grid, **given, **summary)
        entering = hand_on(decays, leaving, entering)
    launch(
        triton_forward.forward,
        work.grid,
        **given,
        out=out,
        kept=kept if keep else None,
        decays=None,
        entering=None if entering is None else entering.float().contiguous(),
    )
    return out, leaving[:, -1].contiguous(), x.new_empty(0, dtype=torch.float32), kept


def backward(
    grad_out: Tensor,
    grad_last: Tensor | None,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    initial_states: Tensor | None,
    seq_idx: Tensor | None,
    y: Tensor,
    kept: Tensor,
    dt_softplus: bool,
    dt_min: float,
    dt_max: float,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the first nine inputs, in their dtypes; empty where one is absent."""
    flags = dt_softplus, dt_min, dt_max, reverse
    work = _work(x, dt, A, B, C, D, z, dt_bias, seq_idx, *flags)
    batch, length, n_heads, width = x.shape
    n_chunks = work.grid[1]

    def exact(*shape: int) -> Tensor:
        return x.new_empty(shape, dtype=torch.float32)

    dx = x.new_empty(x.shape)
    dz = None if z is None else z.new_empty(z.shape)
    ddt = exact(work.n_blocks, batch, length, n_heads)
    dA = exact(batch, n_chunks, n_heads, work.n_blocks)
    dbias = None if dt_bias is None else torch.empty_like(dA)
    dD = None if D is None else exact(batch, n_chunks, n_heads, width)
    outgoing = exact(batch, n_chunks, n_heads, width, B.shape[3])
    slopes = torch.empty_like(kept)
    given = {
        **work.arguments,
        **work.of_heads,
        "grad_out": grad_out,
        "kept": kept,
        "ddt": ddt,
        "dz": dz,
        "dA": dA,
        "dD": dD,
        "dbias": dbias,
        "slopes": slopes,
        "outgoing": outgoing,
        "n_parts": work.parts,
        **strides("grad", grad_out, "bthp"),
        **strides("dx", dx, "bthp"),
        **strides("dz", dz, "bthp"),
    }
    incoming = grad_last
    if n_chunks > 1:
        decays = exact(batch, n_chunks, n_heads)
        summary = {"dx": None, "decays": decays, "incoming": None}
        launch(triton_backward.backward, work.grid, **given, **summary)
        incoming = hand_on(decays, outgoing, incoming, back=True)
    launch(
        triton_backward.backward,
        work.grid,
        **given,
        dx=dx,
        decays=None,
        incoming=None if incoming is None else incoming.float().contiguous(),
    )
    dB, dC = _of_weights(work.arguments, grad_out, kept, slopes)
    none = x.new_empty(0)
    if dD is not None:
        dD = dD.sum((0, 1))
    return (
        dx,
        ddt.sum(0).to(dt.dtype),
        dA.sum((0, 1, 3)).to(A.dtype),
        dB.to(B.dtype),
        dC.to(C.dtype),
        none if D is None or dD is None else (dD if D.dim() == 2 else dD.sum(1)).to(D.dtype),
        none.clone() if dz is None else dz,
        none.clone()
        if dt_bias is None or dbias is None
        else dbias.sum((0, 1, 3)).to(dt_bias.dtype),
        none.clone()
        if initial_states is None
        else outgoing[:, 0].contiguous().to(initial_states.dtype),
    )


def _of_weights(
    arguments: dict[str, Any], grad_out: Tensor, kept: Tensor, slopes: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradients of ``B`` and ``C``, in float32."""
    batch, length, n_groups, n_states = arguments["B"].shape
    group_heads = arguments["group_heads"]
    n_tiles = -(-length // STEPS)
    sizes = {"BLOCK_N": min(32, arguments["BLOCK_N"]), "BLOCK_P": min(32, arguments["BLOCK_P"])}
    # Heads of a group are shared out where their sums leave programs idle.
    wanted = programs_to_fill(kept) // max(1, batch * n_groups * n_tiles)
    split_heads = -(-group_heads // max(1, min(group_heads, wanted)))
    n_splits = -(-group_heads // split_heads)
    shape = batch, n_groups, n_splits, length, n_states
    dB, dC = kept.new_empty(shape), kept.new_empty(shape)
    launch(
        triton_weights.weights,
        (batch * n_groups * n_splits, n_tiles, -(-n_states // sizes["BLOCK_N"])),
        **{**arguments, **sizes},
        grad_out=grad_out,
        kept=kept,
        slopes=slopes,
        dB=dB,
        dC=dC,
        n_groups=n_groups,
        split_heads=split_heads,
        **strides("grad", grad_out, "bthp"),
    )
    dB, dC = (x.sum(2).transpose(1, 2).contiguous() for x in (dB, dC))
    return dB, dC
