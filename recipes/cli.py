"""The command ``tristate``: a table of verbs, each imported when it is used."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

import tristate
from tristate.core.errors import UserError
from tristate.kernels.registry import nearest
from tristate.recipes.usage import Interrupted, UsageError


@dataclass(frozen=True)
class Verb:
    """A word after ``tristate``.

    Attributes:
        target: ``"module:function"``, which takes the remaining words and returns the exit status.
        usage: what follows the verb.
        about: what it does, in a line.
        help: the rest of ``tristate VERB --help``; None where the function has its own.
    """

    target: str
    usage: str
    about: str
    help: str | None = ""


SETTINGS = """
RECIPE            a name from `tristate list`, or a YAML file (`tristate copy` makes one)
--model.KEY V     change a setting; --data.KEY and --trainer.KEY likewise
--config FILE     lay another YAML file over the recipe
--ckpt_path FILE  a checkpoint, to go on from it or to evaluate it
--out DIR         collect the runs there (default: runs)

`tristate VERB RECIPE --help` lists the trainer's keys, `--model.help CLASS` and
`--data.help CLASS` those of a class.
"""

VERBS = {
    "run": Verb(
        "tristate.recipes.train:run",
        "RECIPE [--key value ...]",
        "train a recipe, test its best checkpoint, write report.html",
        SETTINGS,
    ),
    "fit": Verb(
        "tristate.recipes.train:fit", "RECIPE [--key value ...]", "train a recipe", SETTINGS
    ),
    "validate": Verb(
        "tristate.recipes.train:validate",
        "RECIPE --ckpt_path FILE",
        "evaluate a checkpoint on the validation data",
        SETTINGS,
    ),
    "test": Verb(
        "tristate.recipes.train:test",
        "RECIPE --ckpt_path FILE",
        "evaluate a checkpoint on the test data, write report.html",
        SETTINGS,
    ),
    "predict": Verb(
        "tristate.recipes.train:predict",
        "RECIPE --ckpt_path FILE",
        "write the predictions of a checkpoint to a file",
        SETTINGS,
    ),
    "explain": Verb(
        "tristate.recipes.explain:main",
        "RECIPE --ckpt_path FILE",
        "draw what a model's layers read, and what its answers rest on",
        None,
    ),
    "compare": Verb(
        "tristate.recipes.compare:main",
        "RECIPE --vary KEY=A,B,...",
        "run a recipe for each value of settings: a table, a plot",
        None,
    ),
    "list": Verb("tristate.recipes.catalog:show", "[--json]", "show the recipes"),
    "copy": Verb(
        "tristate.recipes.catalog:copy", "RECIPE [FILE]", "write a recipe beside you, to edit it"
    ),
    "bench": Verb(
        "tristate.recipes.bench:main", "kernels [--json FILE]", "measure this machine", None
    ),
    "doctor": Verb(
        "tristate.recipes.doctor:main", "[--json FILE]", "check every op on this machine", None
    ),
    "aot": Verb(
        "tristate.recipes.aot:main",
        "[--target GPU] [--json FILE]",
        "compile the GPU kernels for GPUs that aren't here",
        None,
    ),
}

_STATUS: dict[type[UserError], int] = {UsageError: 2, Interrupted: 130}


def overview() -> str:
    """What ``tristate`` prints when asked for help."""
    rows = [(f"tristate {name} {verb.usage}", verb.about) for name, verb in VERBS.items()]
    width = max(len(usage) for usage, _ in rows)
    return "\n".join(
        [
            f"tristate {tristate.__version__}: state-space models for vision, audio and genomics",
            "",
            *(f"  {usage:<{width}}  {about}" for usage, about in rows),
            "",
            "RECIPE: a name from `tristate list`, or a YAML file. More: `tristate VERB --help`.",
        ]
    )


def dispatch(words: Sequence[str]) -> int:
    """Run the verb that ``words`` begin with and return the exit status.

    Raises:
        UserError: something that the user can mend.
    """
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    name, *rest = words
    if name in ("-V", "--version", "version"):
        print(f"tristate {tristate.__version__}")
        return 0
    if name not in VERBS:
        raise UsageError(f"unknown verb {name!r}; {nearest(name, VERBS)}")
    verb = VERBS[name]
    if verb.help is not None and rest in (["-h"], ["--help"]):
        print(f"tristate {name} {verb.usage}: {verb.about}\n{verb.help}", end="")
        return 0
    module, _, function = verb.target.partition(":")
    return getattr(import_module(module), function)(rest)


def main(argv: Sequence[str] | None = None) -> int:
    """The console script: exit status 0, 1 for what went wrong, 2 for a wrong command line."""
    try:
        return dispatch(sys.argv[1:] if argv is None else argv)
    except UserError as error:
        print(f"tristate: {error}", file=sys.stderr)
        return _STATUS.get(type(error), 1)
    except KeyboardInterrupt:
        print("tristate: interrupted", file=sys.stderr)
        return _STATUS[Interrupted]
    except BrokenPipeError:
        # The reader (`head`, `less`) has seen enough. Python would complain at exit while flushing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
