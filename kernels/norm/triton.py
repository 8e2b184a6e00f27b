"""The fused norms on a GPU: from tensors to the kernels, and back."""

import torch
from torch import Tensor

from tristate.kernels.norm import triton_kernels
from tristate.kernels.triton import plan
from tristate.kernels.triton.launch import launch
from tristate.kernels.triton.plan import Tiles
from tristate.kernels.triton.tune import tuned


def _plans(n_channels: int, numbers: int) -> tuple[Tiles, ...]:
    """Blocks of some rows, and the warps that hold them: so many that nothing is spilled."""
    width = plan.power_of_two(n_channels)
    rows = max(1, min(32, numbers // width))
    tile = Tiles(rows, width, warps=max(1, min(16, rows * width // 256)))
    return plan.halves(tile, "steps", least=1)


def _add_plans(x: Tensor, *_: object) -> tuple[Tiles, ...]:
    return _plans(x.shape[-1], 4096)


def _add_backward_plans(grad_out: Tensor, *_: object) -> tuple[Tiles, ...]:
    return _plans(grad_out.shape[-1], 2048)


def _gated_plans(
    x: Tensor, weight: Tensor, z: Tensor | None, eps: float, group_size: int, *_: object
) -> tuple[Tiles, ...]:
    return _plans(group_size, 4096)


def _gated_backward_plans(
    grad_out: Tensor,
    x: Tensor,
    weight: Tensor,
    z: Tensor | None,
    eps: float,
    group_size: int,
    *_: object,
) -> tuple[Tiles, ...]:
    return _plans(group_size, 2048)


def _blocks(tile: Tiles) -> dict[str, int]:
    return {"BLOCK_R": tile.steps, "BLOCK_D": tile.channels, "num_warps": tile.warps}


def _shared_out(x: Tensor, n_rows: int, block_rows: int, n_groups: int = 1) -> tuple[int, int]:
    """How many programs share the rows, and the blocks of each."""
    n_blocks = -(-n_rows // block_rows)
    each = -(-n_blocks // max(1, plan.programs_to_fill(x) * 4 // n_groups))
    return -(-n_blocks // max(1, each)), each


@tuned("add_norm", _add_plans)
def add_norm(
    tile: Tiles,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    rms: bool,
    eps: float,
    residual_dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """``(out, total)``; ``total`` is empty where it would be ``x`` itself."""
    values = x.contiguous()
    n_channels = x.shape[-1]
    n_rows = x.numel() // n_channels if n_channels else 0
    out = x.new_empty(x.shape)
    is_same = residual is None and x.dtype == residual_dtype
    total = x.new_empty((0,) if is_same else x.shape, dtype=residual_dtype)
    launch(
        triton_kernels.add_norm,
        (-(-n_rows // tile.steps),),
        x=values,
        weight=weight.contiguous(),
        bias=None if bias is None else bias.contiguous(),
        residual=None if residual is None else residual.contiguous(),
        out=out,
        total=None if is_same else total,
        n_rows=n_rows,
        n_channels=n_channels,
        eps=eps,
        RMS=rms,
        **_blocks(tile),
    )
    return out, total


@tuned("add_norm_backward", _add_backward_plans)
def add_norm_backward(
    tile: Tiles,
    grad_out: Tensor,
    grad_total: Tensor,
    total: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    rms: bool,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the sum, of ``weight``, of ``bias``."""
    n_channels = total.shape[-1]
    n_rows = total.numel() // n_channels if n_channels else 0
    n_programs, each = _shared_out(total, n_rows, tile.steps)
    dtotal = total.new_empty(total.shape)
    dweight, dbias = (
        total.new_empty(n_programs, n_channels, dtype=torch.float32) for _ in range(2)
    )
    launch(
        triton_kernels.add_norm_backward,
        (n_programs,),
        grad_out=grad_out.contiguous(),
        grad_total=grad_total.contiguous() if grad_total.numel() else None,
        total=total.contiguous(),
        weight=weight.contiguous(),
        dtotal=dtotal,
        dweight=dweight,
        dbias=dbias,
        n_rows=n_rows,
        n_channels=n_channels,
        n_blocks=each,
        eps=eps,
        RMS=rms,
        **_blocks(tile),
    )
    bias_dtype = weight.dtype if bias is None else bias.dtype
    return dtotal, dweight.sum(0).to(weight.dtype), dbias.sum(0).to(bias_dtype)


@tuned("gated_rms_norm", _gated_plans)
def gated_rms_norm(
    tile: Tiles,
    x: Tensor,
    weight: Tensor,
    z: Tensor | None,
    eps: float,
    group_size: int,
    norm_before_gate: bool,
) -> Tensor:
    """See the public function."""
    n_groups = x.shape[-1] // group_size
    n_rows = x.numel() // x.shape[-1]
    out = x.new_empty(x.shape)
    launch(
        triton_kernels.gated,
        (-(-n_rows // tile.steps), n_groups),
        x=x.contiguous(),
        weight=weight.contiguous(),
        z=None if z is None else z.contiguous(),
        out=out,
        n_rows=n_rows,
        n_channels=group_size,
        n_groups=n_groups,
        eps=eps,
        BEFORE=norm_before_gate,
        **_blocks(tile),
    )
    return out


@tuned("gated_rms_norm_backward", _gated_backward_plans)
def gated_rms_norm_backward(
    tile: Tiles,
    grad_out: Tensor,
    x: Tensor,
    weight: Tensor,
    z: Tensor | None,
    eps: float,
    group_size: int,
    norm_before_gate: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of ``x``, ``weight`` and ``z``; the last is empty without one."""
    n_groups = x.shape[-1] // group_size
    n_rows = x.numel() // x.shape[-1]
    n_programs, each = _shared_out(x, n_rows, tile.steps, n_groups)
    dx = x.new_empty(x.shape)
    dz = x.new_empty(0) if z is None else z.new_empty(z.shape)
    dweight = x.new_empty(n_programs, x.shape[-1], dtype=torch.float32)
    launch(
        triton_kernels.gated_backward,
        (n_programs, n_groups),
        grad_out=grad_out.contiguous(),
        x=x.contiguous(),
        weight=weight.contiguous(),
        z=None if z is None else z.contiguous(),
        dx=dx,
        dweight=dweight,
        dz=dz,
        n_rows=n_rows,
        n_channels=group_size,
        n_groups=n_groups,
        n_blocks=each,
        eps=eps,
        BEFORE=norm_before_gate,
        **_blocks(tile),
    )
    return dx, dweight.sum(0).to(weight.dtype), dz
