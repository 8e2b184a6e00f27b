"""What only whole processes show: two that train together, and Ctrl-C."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PACKAGE = str(Path(__file__).parents[2] / ".pkg")
ENVIRONMENT = {**os.environ, "PYTHONPATH": PACKAGE, "OMP_NUM_THREADS": "1"}

PATIENCE = 900  # seconds, on a machine that is busy with other things

# Lightning starts the other processes by the same script and words.
SCRIPT = "import sys\nfrom tristate.recipes.cli import main\nsys.exit(main())\n"


@contextmanager
def started(folder: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """The command in a process of its own, which does not outlive the block."""
    script = folder / "tristate_command.py"
    script.write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, str(script), *words],
        cwd=folder,
        env=ENVIRONMENT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A group of its own: the processes that it starts go with it.
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.slow
def test_two_processes_leave_one_run(tmp_path):
    ddp = ["--trainer.strategy=ddp", "--trainer.devices=2", "--trainer.accelerator=cpu"]
    with started(tmp_path, "run", "smoke/vision", *ddp) as process:
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    last = out.splitlines()[-1].split()
    assert last[:2] == ["test", "accuracy"]
    assert out.count("test accuracy") == out.count("epoch 2") == 1
    (folder,) = tmp_path.glob("runs/smoke/vision/*")
    assert tmp_path / last[4] == folder / "report.html"
    assert (folder / "checkpoints" / "best.ckpt").is_file()


@pytest.mark.slow
def test_ctrl_c_tells_how_to_go_on(tmp_path):
    with started(tmp_path, "run", "smoke/vision", "--trainer.max_epochs=100000") as process:
        deadline = time.monotonic() + PATIENCE
        while not list(tmp_path.glob("runs/*/*/*/checkpoints/last.ckpt")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    (sentence,) = [line for line in err.splitlines() if line.startswith("tristate: ")]
    assert "interrupted" in sentence and "Traceback" not in err
    # The command in the sentence goes on where the run was stopped.
    words = sentence.split("`")[1].split()
    assert words[:2] == ["tristate", "run"]
    steps = ["--trainer.max_epochs=100000", "--trainer.max_time=00:00:00:01"]
    with started(tmp_path, *words[1:], *steps) as process:
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert out.splitlines()[-1].startswith("test accuracy")
    assert len(list(tmp_path.glob("runs/smoke/vision/*"))) == 2
