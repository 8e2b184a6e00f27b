"""How a plan is chosen: the fastest, once, kept on disk, in bounded time; and when none is."""

import json
import time

import pytest
import torch

from tests.kernels.triton import no_triton
from tristate.kernels import cache
from tristate.kernels.triton import plan, tune
from tristate.kernels.triton.clock import HostClock, interleaved
from tristate.kernels.triton.launch import recording
from tristate.kernels.triton.plan import Tiles

pytestmark = no_triton

PLANS = ("slow", "fast", "broken")


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A GPU's stand-in: meta tensors, a processor's clock, and an empty folder."""
    monkeypatch.setattr(tune, "_places", {})
    monkeypatch.setattr(tune, "_choices", {})
    monkeypatch.setattr(tune, "_spent", 0.0)
    monkeypatch.setattr(tune, "device_name", lambda device: f"test {device.type}")
    monkeypatch.setattr(tune, "clock_of", lambda device: HostClock())
    monkeypatch.setattr(tune, "_folder", lambda: tmp_path)
    torch.use_deterministic_algorithms(False)
    yield tmp_path
    torch.use_deterministic_algorithms(True)


def new_process(monkeypatch):
    for table in ("_places", "_choices"):
        monkeypatch.setattr(tune, table, {})


def an_op(fails=()):
    """An op that notes by which plans it ran."""
    from triton.runtime.errors import OutOfResources

    ran = []

    @tune.tuned("op", lambda x, *options: PLANS)
    def op(plan, x, *options):
        ran.append(plan)
        if plan in fails:
            raise OutOfResources(2, 1, "shared memory")
        time.sleep(0.002 if plan == "slow" else 0)
        return plan

    return op, ran


def on(*shape):
    return torch.empty(*shape, device="meta")


def test_the_fastest_that_fits_is_taken_and_kept(machine, monkeypatch):
    op, ran = an_op(fails=("broken",))
    assert op(on(5, 7)) == "fast"
    assert set(ran) == set(PLANS)
    (path,) = machine.glob("*.json")
    kept = json.loads(path.read_text())
    assert kept["plans"] == list(PLANS) and kept["chosen"] == 1
    assert kept["ms"][0] > kept["ms"][1] and kept["ms"][2] is None
    # Sizes of the same kind, in this process and in the next one, are not timed again.
    for _ in range(2):
        ran.clear()
        assert op(on(6, 8)) == "fast"
        assert ran == ["fast"]
        new_process(monkeypatch)
    assert [x["op"] for x in tune.choices(torch.device("meta"))] == ["op"]
    assert not [*tune.choices(torch.device("cpu"))]


def test_other_kinds_are_timed(machine):
    op, ran = an_op()
    x = on(4, 16)
    for inputs in ((x,), (x.bfloat16(),), (on(5, 16),), (on(16, 4).T,), (x, True), (x, None)):
        ran.clear()
        op(*inputs)
        assert len(ran) > 1, inputs
    assert len([*machine.glob("*.json")]) == 6


@pytest.mark.parametrize("text", ["", "{}", '{"plans": ["a"], "chosen": 5}', "[1]"])
def test_a_damaged_file_is_made_again(text, machine, monkeypatch):
    op, ran = an_op()
    op(on(3))
    (path,) = machine.glob("*.json")
    path.write_text(text)
    new_process(monkeypatch)
    ran.clear()
    op(on(3))
    assert len(ran) > 1
    assert json.loads(path.read_text())["plans"] == list(PLANS)


def test_nowhere_to_write(machine, monkeypatch):
    blocked = machine / "file"
    blocked.write_text("")
    for broken in (lambda: blocked / "folder", lambda: (_ for _ in ()).throw(OSError("no room"))):
        new_process(monkeypatch)
        monkeypatch.setattr(tune, "_folder", broken)
        op, ran = an_op(fails=("broken",))
        assert op(on(3)) == "fast"
        ran.clear()
        assert op(on(3)) == "fast" and ran == ["fast"]
        assert len([*tune.choices(torch.device("meta"))]) == 1


def test_time_is_bounded(machine, monkeypatch):
    monkeypatch.setattr(tune, "SECONDS", 1e-3)
    op, ran = an_op()
    assert op(on(3)) == "slow"  # the default alone was run, and took longer than there was
    assert set(ran) == {"slow"}
    ran.clear()
    assert op(on(100)) == "slow" and ran == ["slow"]
    assert not [*machine.glob("*.json")]


def test_without_room_to_time_the_default_runs(machine, monkeypatch):
    def full(device):
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(tune, "clock_of", full)
    op, ran = an_op()
    assert op(on(3)) == "slow" and ran == ["slow"]
    assert not [*machine.glob("*.json")]


@pytest.mark.parametrize("how", ["variable", "deterministic", "cpu"])
def test_the_default_alone(how, machine, monkeypatch):
    if how == "variable":
        monkeypatch.setenv("TRISTATE_AUTOTUNE", "0")
    torch.use_deterministic_algorithms(how == "deterministic")
    op, ran = an_op()
    assert op(torch.ones(3) if how == "cpu" else on(3)) == "slow"
    assert ran == ["slow"]


def test_all_that_may_be_chosen_is_recorded(machine):
    op, ran = an_op()
    with recording():
        assert op(on(3)) == "slow"
    assert ran == list(PLANS) and not [*machine.glob("*.json")]


@pytest.mark.parametrize("warps", (1, 4, 8))
@pytest.mark.parametrize("channels", (1, 7, 8, 9, 100))
def test_halves_have_no_more_numbers_a_thread(channels, warps):
    tiles = plan.halves(plan.narrowed(Tiles(32, 64, warps), channels), "channels")
    assert len(set(tiles)) == len(tiles) <= 2
    first = tiles[0].channels / tiles[0].warps
    assert all(x.channels / x.warps <= first and x.channels >= 8 for x in tiles)


def test_calls_take_turns():
    ran = []
    calls = [lambda: (ran.append("a"), time.sleep(0.003)), lambda: ran.append("b")]
    slow, fast = interleaved(calls, HostClock(), rounds=3)
    assert ran == ["a", "b"] * 3
    assert slow > 3 > fast


def test_triton_finds_room(monkeypatch, tmp_path):
    from triton import knobs

    from tristate.kernels.triton import launch

    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with knobs.cache.scope():
        knobs.cache.dir = str(tmp_path / "own")
        launch.find_room.__wrapped__()
        assert knobs.cache.dir == str(tmp_path / "own")
        knobs.cache.dir = str(blocked / "folder")
        cache.folder.cache_clear()
        launch.find_room.__wrapped__()
        assert knobs.cache.dir.startswith(str(tmp_path / "tristate" / "triton"))
    cache.folder.cache_clear()
