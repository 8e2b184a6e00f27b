"""The CPU kernels' foundation: functions of vectors, the cache on disk, processes and threads."""

import multiprocessing
import os
import subprocess
import sys
import threading

import pytest
import torch

from tests.kernels.selective import problem
from tristate.kernels import cache
from tristate.kernels.backend import available_backends
from tristate.kernels.cpu import runtime
from tristate.kernels.selective import selective_scan

pytestmark = pytest.mark.skipif(
    "cpu" not in available_backends(), reason="this processor has no fused multiply-add vectors"
)

# Enough work for two threads.
BIG = {"batch": 2, "dim": 64, "n_states": 8}
KERNEL = """
from tristate.kernels.cpu.functions import softplus
from tristate.kernels.cpu.vector import jit, load, store

@jit
def work(task, source, target):
    store(target + 64 * task, softplus(load(source + 64 * task)))
"""
PROGRAM = """
import torch
from torch.nn.functional import silu, softplus
from tristate.kernels.cpu.runtime import Kernel
x, y, z = torch.linspace(-1, 1, 64), torch.empty(64), torch.empty(64)
work = Kernel("kernel", "work")
work(4, x.data_ptr(), y.data_ptr())
torch.testing.assert_close(y, softplus(x))
# What one row of arguments leaves, the next one finds.
work.rows(4, (y.data_ptr(), z.data_ptr()), (z.data_ptr(), y.data_ptr()))
torch.testing.assert_close(y, softplus(softplus(softplus(x))))
# Another kernel of the same name, in a file of the same name.
Kernel("other.kernel", "work")(4, x.data_ptr(), y.data_ptr())
torch.testing.assert_close(y, silu(x))
from tristate.kernels.cpu import compiler
print(compiler.cache_folder())
"""


def scan(length=600):
    tensors, _ = problem(length, **BIG)
    tensors["u"].requires_grad_()
    out = selective_scan(**tensors, delta_softplus=True, backend="cpu")
    out.sum().backward()
    return out.detach(), tensors["u"].grad


def check(answers=None):
    out, grad = scan()
    assert out.isfinite().all() and grad.isfinite().all()
    if answers is not None:
        answers.put((out.sum().item(), grad.sum().item()))


def same(got, wanted):
    return all(abs(a - b) <= 1e-4 * abs(b) + 1e-3 for a, b in zip(got, wanted, strict=True))


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("way", ("fork", "spawn"))
# A fork of a process with threads is what this is about.
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_child_processes_compute(way, two_threads):
    wanted = tuple(x.sum().item() for x in scan())
    context = multiprocessing.get_context(way)
    answers = context.Queue()
    children = [context.Process(target=_child, args=(answers,)) for _ in range(2)]
    for child in children:
        child.start()
    got = [answers.get(timeout=60) for _ in children]
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    assert all(same(one, wanted) for one in got)


def _child(answers):
    # As a DataLoader's worker does; PyTorch's own operators would wait for threads that are gone.
    torch.set_num_threads(1)
    check(answers)


def test_four_python_threads_at_once(two_threads):
    wanted = [x.sum().item() for x in scan()]
    found: list[bool] = []

    def work():
        for _ in range(5):
            found.append(same([x.sum().item() for x in scan()], wanted))

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert found == [True] * 20


def test_ordinary_threads_where_pytorch_has_no_team(two_threads, monkeypatch):
    wanted = scan()
    monkeypatch.setattr(runtime, "_team", lambda: runtime._team_of_python)
    for got, exact in zip(scan(), wanted, strict=True):
        assert torch.equal(got, exact)


def run(folder, **environment):
    (folder / "kernel.py").write_text(KERNEL)
    (folder / "other").mkdir(exist_ok=True)
    (folder / "other" / "kernel.py").write_text(KERNEL.replace("softplus", "silu"))
    path = os.pathsep.join([str(folder), *sys.path])
    variables = {**os.environ, "PYTHONPATH": path, **environment}
    command = [sys.executable, "-W", "error", "-c", PROGRAM]
    return subprocess.Popen(command, env=variables, text=True, stdout=subprocess.PIPE, cwd=folder)


def said(process):
    """What it printed, once it has ended well."""
    out = process.communicate(timeout=240)[0].strip()
    assert process.returncode == 0
    return out


def test_two_processes_compile_at_once(tmp_path):
    both = [run(tmp_path, XDG_CACHE_HOME=str(tmp_path)) for _ in range(2)]
    folders = {said(one) for one in both}
    assert len(folders) == 1
    (folder,) = folders
    assert folder.startswith(str(tmp_path))
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "tristate").rglob("*.nb[ic]")}
    assert len(kept) >= 2
    # What one run has left the next one takes: nothing new is written.
    assert said(run(tmp_path, XDG_CACHE_HOME=str(tmp_path))) == folder
    assert kept == {path: path.stat().st_mtime_ns for path in kept}


def test_no_home_to_write_to(tmp_path):
    # A file where the folder should be: not even root can write there.
    blocked = tmp_path / "file"
    blocked.write_text("")
    folder = said(run(tmp_path, XDG_CACHE_HOME=str(blocked), TMPDIR=str(tmp_path)))
    assert folder.startswith(str(tmp_path / "tristate-"))


def test_a_folder_that_others_could_write_to_is_not_used(tmp_path, monkeypatch):
    place = tmp_path / "a" / "b" / "c"
    assert cache.is_usable(place) and cache._is_own(place)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert not cache._is_own(place)


def test_functions_are_accurate_to_two_units_in_the_last_place():
    # A scan over one position is softplus(delta) * u * B * C, then times silu(z).
    x = torch.linspace(-80, 80, 16001)
    one = torch.ones(1, 1, x.numel())
    row, weight = x.view(1, -1, 1), torch.ones(1, 1, 1)
    A = torch.zeros(x.numel(), 1)
    ones = one.view(1, -1, 1)
    softplus = selective_scan(
        ones, row, A, weight, weight, delta_softplus=True, backend="cpu"
    ).flatten()
    exact = torch.nn.functional.softplus(x.double(), threshold=200)
    assert ((softplus - exact) / exact).abs().max() < 5e-7
    silu = selective_scan(ones, ones, A, weight, weight, z=row, backend="cpu").flatten()
    exact = torch.nn.functional.silu(x.double())
    assert ((silu - exact) / exact)[x != 0].abs().max() < 5e-7
    # Two positions: the decay exp(dt A) between them, for dt A from -80 to 0.
    steps = torch.ones(1, 8001, 2)
    impulse = torch.tensor([1.0, 0.0]).expand(1, 8001, 2)
    rates = torch.linspace(-80, 0, 8001)[:, None]
    decay = selective_scan(
        impulse, steps, rates, weight.expand(1, 1, 2), weight.expand(1, 1, 2), backend="cpu"
    )[0, :, 1]
    exact = rates[:, 0].double().exp()
    # The product with log2(e) is rounded: exp(x) is off by |x| units more.
    allowed = 2e-7 + 1.2e-7 * rates[:, 0].abs()
    assert (((decay - exact) / exact).abs() <= allowed).all()
