"""The verbs that train and evaluate: ``run``, ``fit``, ``validate``, ``test``, ``predict``."""

import time
from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch.callbacks import ModelCheckpoint

from tristate.core.checkpoint import load_weights
from tristate.recipes.builder import Experiment
from tristate.recipes.session import session
from tristate.recipes.summary import conclude, save_best, write_page
from tristate.recipes.usage import UsageError


def run(words: Sequence[str]) -> int:
    """Train, test the best checkpoint, write the report; the last line printed is the result."""
    with session("run", words) as experiment:
        seconds = _fit(experiment)
        _evaluate(experiment, "test", _best(experiment))
        save_best(experiment)
        conclude(experiment, "test", write_page(experiment, "test", seconds))
    return 0


def fit(words: Sequence[str]) -> int:
    """Train, and write a report of the curves and the best checkpoint on the validation data."""
    with session("fit", words) as experiment:
        seconds = _fit(experiment)
        _evaluate(experiment, "validate", _best(experiment))
        save_best(experiment)
        conclude(experiment, "val", write_page(experiment, "val", seconds))
    return 0


def validate(words: Sequence[str]) -> int:
    """Evaluate on the validation data."""
    with session("validate", words) as experiment:
        _evaluate(experiment, "validate", _given(experiment))
        conclude(experiment, "val", None)
    return 0


def test(words: Sequence[str]) -> int:
    """Evaluate on the test data and write a report."""
    with session("test", words) as experiment:
        _evaluate(experiment, "test", _given(experiment))
        conclude(experiment, "test", write_page(experiment, "test", None))
    return 0


def predict(words: Sequence[str]) -> int:
    """Write predictions into the run's folder."""
    with session("predict", words) as experiment:
        _evaluate(experiment, "predict", _given(experiment))
    return 0


def _fit(experiment: Experiment) -> float:
    """Train, and return what it took in seconds."""
    _check(experiment)
    began = time.monotonic()
    experiment.trainer.fit(
        experiment.model,
        datamodule=experiment.datamodule,
        ckpt_path=experiment.config.ckpt_path,
        weights_only=True,
    )
    return time.monotonic() - began


def _best(experiment: Experiment) -> str | None:
    """The best checkpoint of this run; None where none was written, for the weights as they are."""
    kept = experiment.trainer.checkpoint_callbacks
    paths = [c.best_model_path for c in kept if isinstance(c, ModelCheckpoint)]
    return next(filter(None, paths), None)


def _given(experiment: Experiment) -> str | None:
    """The checkpoint that was named; None where the recipe names pretrained weights instead."""
    path = experiment.config.ckpt_path
    if path is None and not experiment.config.model.init_args.get("pretrained"):
        raise UsageError(
            "nothing to evaluate: name a checkpoint with --ckpt_path FILE, "
            "or weights with --model.pretrained"
        )
    _check(experiment)
    return path


def _check(experiment: Experiment) -> None:
    """Refuse a checkpoint that is damaged, unsafe or of another model, before anything starts."""
    path = experiment.config.ckpt_path
    if path is None:
        return
    if Path(path).suffix == ".safetensors":
        raise UsageError(
            f"{path} holds weights alone, and --ckpt_path takes a checkpoint (.ckpt): "
            f"name weights with --model.pretrained {path}"
        )
    load_weights(path, experiment.model)


def _evaluate(experiment: Experiment, verb: str, ckpt_path: str | None) -> None:
    getattr(experiment.trainer, verb)(
        experiment.model,
        datamodule=experiment.datamodule,
        ckpt_path=ckpt_path,
        weights_only=True,
        **({} if verb == "predict" else {"verbose": False}),
    )
