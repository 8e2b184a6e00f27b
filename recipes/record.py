"""What a run was: versions, seed, command and device, in ``versions.json`` beside its config."""

import json
import os
import platform
import shlex
from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer

import tristate

PACKAGES = ("torch", "torchvision", "torchaudio", "lightning", "timm", "numba", "triton", "numpy")


def write_record(
    folder: Path, command: Sequence[str], config: str, seed: Any, trainer: Trainer
) -> None:
    """Write ``config.yaml`` and ``versions.json`` into ``folder``.

    Args:
        folder: of the run.
        command: the words that started it.
        config: the resolved configuration, as YAML.
        seed: of the random generators.
        trainer: knows the device and the number of processes.
    """
    (folder / "config.yaml").write_text(config, encoding="utf-8")
    record = {
        "command": shlex.join(command),
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "seed": seed,
        "device": _device(trainer),
        "versions": {
            "tristate": tristate.__version__,
            "python": platform.python_version(),
            **{name: found for name in PACKAGES if (found := _version(name))},
        },
        "platform": platform.platform(),
    }
    text = json.dumps(record, indent=2, ensure_ascii=False)
    (folder / "versions.json").write_text(text + "\n", encoding="utf-8")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _device(trainer: Trainer) -> str:
    """Such as ``AMD EPYC 7763, 2 cores, 2 threads``, with the number of processes where several."""
    device = trainer.strategy.root_device
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        threads = torch.get_num_threads()
        name = f"{_processor()}, {cores} cores, {threads} thread{'s' if threads > 1 else ''}"
    return name if trainer.world_size == 1 else f"{trainer.world_size} x {name}"


def _processor() -> str:
    """The model name of the processor, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())
