"""Numbers of 16 bits as the CPU kernels read and write them, on old processors too."""

import os
import subprocess
import sys

import pytest

from tristate.kernels.backend import available_backends

KERNEL = """
from tristate.kernels.cpu.tiles import load_row, store_row
from tristate.kernels.cpu.vector import jit, load, store

@jit
def widen(task, kind, source, target):
    store(target + 64 * task, load_row(kind, source + 32 * task))

@jit
def narrow(task, kind, source, target):
    store_row(kind, target + 32 * task, load(source + 64 * task))
"""
PROGRAM = """
import torch
from tristate.kernels.cpu.runtime import Kernel

widen, narrow = Kernel("kernel", "widen"), Kernel("kernel", "narrow")
for kind, dtype in ((1, torch.bfloat16), (2, torch.float16)):
    halves = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(dtype)
    wide = torch.empty(halves.shape)
    widen(halves.numel() // 16, kind, halves.data_ptr(), wide.data_ptr())
    torch.testing.assert_close(wide, halves.float(), rtol=0, atol=0, equal_nan=True)
    # Every number, what lies half way to the next one and just beside that, and anything at all.
    finite = wide[wide.isfinite()].sort().values
    middles = (finite[1:] / 2 + finite[:-1] / 2)
    bits = torch.randint(-(1 << 31), 1 << 31, (1 << 16,), dtype=torch.int32)
    beside = [torch.nextafter(middles, middles + sign * torch.inf) for sign in (-1, 1)]
    numbers = torch.cat([wide, middles, *beside, bits.view(torch.float32)])
    numbers = numbers[: numbers.numel() // 16 * 16].contiguous()
    narrowed = torch.empty(numbers.shape, dtype=dtype)
    narrow(numbers.numel() // 16, kind, numbers.data_ptr(), narrowed.data_ptr())
    torch.testing.assert_close(narrowed, numbers.to(dtype), rtol=0, atol=0, equal_nan=True)
print("right")
"""


@pytest.mark.skipif(
    "cpu" not in available_backends(), reason="this processor has no fused multiply-add vectors"
)
@pytest.mark.parametrize("processor", ("this one", "x86-64"))
def test_16_bits_are_read_and_rounded_as_pytorch_does(processor, tmp_path):
    if processor != "this one" and os.uname().machine != "x86_64":
        pytest.skip("this is no x86-64")
    generic = {"NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": ""}
    (tmp_path / "kernel.py").write_text(KERNEL)
    variables = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]),
        "XDG_CACHE_HOME": str(tmp_path),
        **(generic if processor != "this one" else {}),
    }
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=variables, text=True, capture_output=True, cwd=tmp_path
    )
    assert process.stdout.split() == ["right"], process.stderr
