"""Programs that leave this package: as a pt2 file that loads without it, or as ONNX.

>>> program = torch.export.export(model, (x,))
>>> program = program.run_decompositions(decompositions())
>>> torch.onnx.export(program, f="model.onnx", dynamo=True)
"""

from collections.abc import Callable
from typing import Any

import torch


def decompositions() -> dict[Any, Callable[..., Any]]:
    """How each of this package's ops, and PyTorch's composite ones, are made of PyTorch's own.

    A scan becomes one loop (ONNX: one ``Scan`` node), whatever the length.
    """
    from tristate.kernels.attention import export as attention
    from tristate.kernels.conv import export as conv
    from tristate.kernels.cross import export as cross
    from tristate.kernels.delta import export as delta
    from tristate.kernels.grouped import export as grouped
    from tristate.kernels.linear import export as linear
    from tristate.kernels.longconv import export as longconv
    from tristate.kernels.norm import export as norm
    from tristate.kernels.rwkv import export as rwkv
    from tristate.kernels.selective import export as selective
    from tristate.kernels.ssd import export as ssd
    from tristate.kernels.ssm_kernel import export as ssm_kernel

    table: dict[Any, Callable[..., Any]] = dict(torch.export.default_decompositions())
    scans = (selective, cross, linear, ssd, delta, attention, rwkv)
    for module in (*scans, conv, grouped, longconv, ssm_kernel, norm):
        table.update(module.decompositions())
    return table
