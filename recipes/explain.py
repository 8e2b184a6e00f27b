"""``tristate explain``: what a trained model's layers read, and what its answers rest on."""

import argparse
import shlex
from collections.abc import Iterable, Sequence
from functools import partial
from html import escape
from pathlib import Path
from typing import Any, NoReturn

import torch

from tristate.core.checkpoint import load_weights
from tristate.core.errors import UserError
from tristate.core.explain.page import layer_sections, saliency_section
from tristate.core.explain.subject import Subject
from tristate.core.training.report import Section, page_header, page_parts, whole_page
from tristate.recipes.builder import Experiment
from tristate.recipes.machine import versions
from tristate.recipes.session import hush
from tristate.recipes.summary import shown, subtitle
from tristate.recipes.usage import UsageError

ABOUT = """Writes explain.html: what the answers to a few test items rest on, how long the channels
of each layer remember, and what each layer reads (its hidden attention where that depends on the
input, its responses to an impulse and over frequency where it doesn't).

  tristate explain vision/vim_micro_fashion --ckpt_path runs/.../checkpoints/best.ckpt

Any --key value of the recipe goes with it, as in `tristate test`.
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def main(words: Sequence[str]) -> int:
    """Explain, and print where the page is."""
    options, settings = _parsed(words)
    hush()
    experiment = Experiment("explain", options.recipe, settings)
    # Nothing is trained or tested: there is no run.
    experiment.discard_empty_folder()
    task, checkpoint = experiment.model, Path(options.ckpt_path)
    weights = checkpoint.suffix == ".safetensors"
    load_weights(checkpoint, task.get_submodule("backbone") if weights else task)
    task.eval().requires_grad_(False)

    data = experiment.datamodule
    data.prepare_data()
    data.setup("test")
    subjects = task.subjects(_batches(data), options.items)
    sections = explained(task, subjects, data, options.layer)
    command = escape(shlex.join(["tristate", "explain", *words]))
    title = f"{experiment.config.recipe}, explained"
    facts = {"checkpoint": checkpoint.name, "items": str(len(subjects))}
    body = [
        page_header(title, subtitle(experiment), None, facts),
        *page_parts(sections),
        *page_parts([Section("Made with", f"<pre><code>{command}</code></pre>")]),
    ]
    target = options.out or _folder(checkpoint) / "explain.html"
    try:
        target.write_text(whole_page(title, body, {"versions": versions()}), encoding="utf-8")
    except OSError as error:
        raise UserError(f"can't write {target}: {error.strerror}") from error
    print(f"explained {shown(target.absolute())}")
    return 0


def _parsed(words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Our own words, checked, and the recipe's settings."""
    parser = _Parser(
        prog="tristate explain",
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("recipe", help="a name from `tristate list`, or a YAML file")
    parser.add_argument(
        "--ckpt_path", metavar="FILE", help="a run's checkpoint (.ckpt) or its weights.safetensors"
    )
    parser.add_argument("--layer", type=int, metavar="N", help="draw this layer alone, from 0 on")
    parser.add_argument("--items", type=int, default=4, metavar="K", help="test items (default: 4)")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="where to write (default: explain.html in the folder of the checkpoint's run)",
    )
    options, settings = parser.parse_known_args(words)
    if options.items < 1:
        raise UsageError(f"--items wants 1 at least, got {options.items}")
    if options.ckpt_path is None:
        raise UsageError("nothing to explain: name a checkpoint with --ckpt_path FILE")
    if not Path(options.ckpt_path).is_file():
        raise UsageError(f"there is no checkpoint {options.ckpt_path}")
    return options, settings


def explained(
    task: Any, subjects: Sequence[Subject], data: Any, layer: int | None
) -> list[Section]:
    """All sections of the page.

    Raises:
        UsageError: there is no such layer.
    """
    runs = [partial(subject.score, torch.ones(1, *subject.shape)) for subject in subjects]
    if not subjects:
        inputs = next(iter(_batches(data)))[0]
        runs = [partial(task.backbone, inputs[:1])]
    try:
        layers = layer_sections(task, runs, subjects[0] if subjects else None, layer)
    except IndexError as error:
        raise UsageError(str(error)) from error
    return [saliency_section(subjects), *layers]


def _batches(data: Any) -> Iterable[Any]:
    """Batches of the test data; where it is tested at several lengths, of the first."""
    loader = data.test_dataloader()
    return loader[0] if isinstance(loader, list) else loader


def _folder(checkpoint: Path) -> Path:
    """The folder of the run that left the checkpoint."""
    folder = checkpoint.parent
    return folder.parent if folder.name == "checkpoints" else folder
