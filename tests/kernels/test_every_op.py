"""All ops alike where programs are odd: forked, with threads, on a processor without AVX2."""

import multiprocessing
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from tests.kernels.every_op import OPS, check, computed
from tristate.kernels.backend import available_backends

ROOT = Path(__file__).parents[2]

needs_kernels = pytest.mark.skipif(
    "cpu" not in available_backends(), reason="this processor has no fused multiply-add vectors"
)


def run(*words, **environment):
    """What a fresh Python says, line by line."""
    path = os.pathsep.join([str(ROOT), *sys.path])
    variables = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment}
    process = subprocess.run(
        [sys.executable, *words], env=variables, text=True, capture_output=True, cwd=ROOT
    )
    assert process.returncode == 0, process.stderr
    return process.stdout.splitlines()


COMPARE = """
import sys
from tests.kernels.every_op import check
for name in sys.argv[1:]:
    check(name)
    print(name)
"""


def on_plain_x86(folder, *names):
    """Compile for the first of all 64-bit processors of its kind, and compare."""
    generic = {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": ""}
    assert run("-c", COMPARE, *names, **generic, XDG_CACHE_HOME=str(folder)) == list(names)


x86 = pytest.mark.skipif(os.uname().machine != "x86_64", reason="this is no x86-64")


@needs_kernels
@x86
def test_kernels_are_right_without_fused_multiply_add(tmp_path):
    # Every fma is a call of a function then: kernels are not chosen, but this one is not wrong.
    on_plain_x86(tmp_path, "add_norm")


@needs_kernels
@x86
@pytest.mark.slow
@pytest.mark.parametrize("name", OPS)
def test_every_kernel_is_right_without_fused_multiply_add(name, tmp_path):
    on_plain_x86(tmp_path, name)


WITHOUT_AVX2 = """
import sys
from tests.kernels.every_op import OPS, check, computed
from tristate.kernels import available_backends
assert "cpu" not in available_backends()
for name in OPS:
    check(name, "auto")
    try:
        computed(name, "cpu")
    except ValueError as error:
        assert "can't run on this machine" in str(error), error
    else:
        raise AssertionError(name)
assert "numba" not in sys.modules
print("right")
"""


def test_without_avx2_every_op_is_left_to_pytorch():
    assert run("-c", WITHOUT_AVX2, ATEN_CPU_CAPABILITY="default") == ["right"]


@needs_kernels
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_computes_every_op():
    wanted = {name: computed(name, "cpu") for name in OPS}
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=_compare, args=(wanted, answers))
    child.start()
    assert answers.get(timeout=120) == []
    child.join(60)
    assert child.exitcode == 0


def _compare(wanted, answers):
    # As a DataLoader's worker does; PyTorch's own operators would wait for threads that are gone.
    torch.set_num_threads(1)
    answers.put([name for name, results in wanted.items() if not _same(name, results)])


def _same(name, wanted):
    got = computed(name, "cpu")
    return all(torch.allclose(got[k], x, rtol=1e-4, atol=1e-4) for k, x in wanted.items())


@needs_kernels
def test_threads_compute_every_op_at_once():
    wanted = {name: computed(name, "cpu") for name in OPS}
    wrong, ended = [], []

    def work(names):
        wrong.extend(name for name in names if not _same(name, wanted[name]))
        ended.append(True)

    names = list(OPS)
    workers = [threading.Thread(target=work, args=(names[k:] + names[:k],)) for k in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong and ended == [True] * 4


@needs_kernels
@pytest.mark.parametrize("name", OPS)
def test_every_op_equals_its_reference(name):
    check(name)


@needs_kernels
@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("name", OPS)
def test_the_default_dtype_changes_nothing(name, backend):
    # Lightning sets it while a model with weights in bfloat16 trains, transformers while one loads.
    # Kernels that reckon with float32 would write past the end of what they got.
    wanted = plainly_computed(name, backend, torch.float32)
    got = plainly_computed(name, backend, torch.bfloat16)
    for mine, theirs in zip(got, wanted, strict=True):
        assert mine.dtype == theirs.dtype
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0, equal_nan=True)


def plainly_computed(name, backend, default):
    """Outputs, and the gradients of their squares, under this default dtype."""
    op, inputs, options = OPS[name]
    tensors = inputs()
    leaves = {k: x.detach().requires_grad_() for k, x in tensors.items() if x is not None}
    torch.set_default_dtype(default)
    try:
        outputs = op(**{**tensors, **leaves}, **options, backend=backend)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        total = sum(x.abs().square().sum() for x in outputs)
        return [*outputs, *torch.autograd.grad(total, list(leaves.values()))]
    finally:
        torch.set_default_dtype(torch.float32)
