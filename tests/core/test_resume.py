"""A run that is stopped and resumed goes on as if it had not been stopped, to the last bit."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.core.toy import LIGHTNING, Diary, ToyData, make_task, make_trainer

pytestmark = [pytest.mark.filterwarnings(line) for line in LIGHTNING]

BATCHES = 20  # of the whole run


class Stop(Exception):
    pass


def stop():
    raise Stop


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The diary and the last weights of the run that nobody stops."""
    diary, task = Diary(), make_task()
    make_trainer(tmp_path_factory.mktemp("whole"), diary).fit(task, ToyData())
    assert len(diary.train) == BATCHES and len(diary.val) == 4
    return diary, task.state_dict()


def resume(folder, checkpoint, whole, **data):
    """Go on from ``checkpoint`` and compare losses and weights with the whole run."""
    diary, task = Diary(), make_task()
    with torch.no_grad():
        next(task.parameters()).fill_(7.0)  # whatever stands here must not count
    trainer = make_trainer(folder / "resumed", diary)
    trainer.fit(task, ToyData(**data), ckpt_path=checkpoint)
    first = BATCHES - len(diary.train)
    assert 0 < first < BATCHES
    assert diary.train == whole[0].train[first:]
    assert diary.val == whole[0].val[-len(diary.val) :]
    for name, value in whole[1].items():
        assert torch.equal(task.state_dict()[name], value), name
    return first


# Epochs have five batches: inside of one, at its ends, after one step and before the last.
@pytest.mark.parametrize(
    ("which", "end_after"),
    [*(("last", n) for n in (2, 3, 5, 6, 10, 13, 19)), *(("epoch", n) for n in (5, 6, 10, 19))],
)
def test_resumes_after_a_stop(tmp_path, whole, which, end_after):
    with pytest.raises(Stop):
        trainer = make_trainer(tmp_path, Diary(end_after, stop))
        trainer.fit(make_task(), ToyData())
    first = resume(tmp_path, tmp_path / f"{which}.ckpt", whole)
    assert first == (end_after // 2 * 2 if which == "last" else end_after // 5 * 5)


def test_resumes_after_a_kill(tmp_path, whole):
    root = Path(__file__).parents[2]
    paths = os.pathsep.join([str(root), str(root / ".pkg")])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.core.toy", str(tmp_path), "13"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == -9, done.stderr.decode()
    assert resume(tmp_path, tmp_path / "last.ckpt", whole) == 12


def test_workers_change_nothing(tmp_path, whole):
    with pytest.raises(Stop):
        trainer = make_trainer(tmp_path, Diary(8, stop))
        trainer.fit(make_task(), ToyData(workers=1))
    assert resume(tmp_path, tmp_path / "last.ckpt", whole, workers=1) == 8


def test_seed_is_kept(tmp_path, whole):
    with pytest.raises(Stop):
        trainer = make_trainer(tmp_path, Diary(8, stop))
        trainer.fit(make_task(), ToyData())
    resume(tmp_path, tmp_path / "last.ckpt", whole, seed=99)
