"""What a run tells: a line as it begins, the page when it ends, the result as its last line."""

import os
import statistics
from pathlib import Path

from tristate.core.checkpoint import save_weights
from tristate.core.training.curves import read_curves
from tristate.core.training.report import Headline, write_report
from tristate.recipes.builder import Experiment

STAGES = {"test": "test", "val": "validation"}


def shown(path: Path) -> str:
    """A path as the user would type it: relative where that is shorter to read."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def announce(experiment: Experiment) -> None:
    """Say what is about to run, and where it writes."""
    if experiment.trainer.is_global_zero:
        where = f", writing to {shown(experiment.folder)}" if experiment.writes else ""
        print(f"{experiment.config.recipe}: {subtitle(experiment)}{where}", flush=True)


def result(experiment: Experiment, stage: str) -> tuple[str, str]:
    """The main metric of the last evaluation, as a label and a value with three digits."""
    name = experiment.model.main_metric
    value = float(experiment.trainer.callback_metrics[f"{stage}/{name}"])
    return f"{STAGES[stage]} {name.replace('_', ' ')}", f"{value:.3f}"


def conclude(experiment: Experiment, stage: str, page: Path | None) -> None:
    """Print the result as the last line."""
    if experiment.trainer.is_global_zero:
        line = " ".join(result(experiment, stage))
        print(f"{line}  report {shown(page)}" if page else line, flush=True)


def save_best(experiment: Experiment) -> None:
    """Write the backbone, as it was evaluated last, to ``weights.safetensors``."""
    if experiment.writes:
        backbone = experiment.model.get_submodule("backbone")
        save_weights(experiment.folder / "weights.safetensors", backbone)


def write_page(experiment: Experiment, stage: str, seconds: float | None) -> Path | None:
    """Write ``report.html`` after an evaluation on ``stage``; only the first process does.

    Args:
        experiment: evaluated.
        stage: ``"test"`` or ``"val"``.
        seconds: what training took; None when there was none.
    """
    if not experiment.writes:
        return None
    label, value = result(experiment, stage)
    return write_report(
        experiment.folder,
        title=experiment.config.recipe,
        subtitle=subtitle(experiment),
        headline=Headline(value, label),
        facts=_facts(experiment, seconds),
        sections=experiment.model.report_sections() if stage == "test" else (),
    )


def subtitle(experiment: Experiment) -> str:
    """The model and the data, in a few words."""
    about = experiment.config.about or {}
    if "model" in about and "data" in about:
        return f"{about['model']} on {about['data']}"
    return f"{type(experiment.model).__name__} on {type(experiment.datamodule).__name__}"


def _facts(experiment: Experiment, seconds: float | None) -> dict[str, str]:
    trainer, task = experiment.trainer, experiment.model
    facts = {"parameters": _count(sum(p.numel() for p in task.parameters() if p.requires_grad))}
    if seconds is not None:
        facts["training time"] = _duration(seconds)
        facts["epochs"] = str(trainer.current_epoch)
        facts["steps"] = _count(trainer.global_step)
        facts.update(_throughput(experiment.folder / "metrics.csv"))
    return facts


def _throughput(metrics: Path) -> dict[str, str]:
    """The median of every logged rate, such as ``train/images_per_second``."""
    rates = {}
    for name, stages in read_curves(metrics).items():
        unit, _, per = name.partition("_per_")
        if per and "train" in stages:
            median = statistics.median(value for _, value in stages["train"])
            rates["throughput"] = f"{_count(float(f'{median:.3g}'))} {unit}/{per[0]}"
    return rates


def _count(number: float) -> str:
    """``412345`` as ``412 k``."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= 10 * size or (number >= size and size > 1e3):
            return f"{number / size:.3g} {letter}"
    return f"{number:,.4g}"


def _duration(seconds: float) -> str:
    """``185`` as ``3 min 5 s``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
