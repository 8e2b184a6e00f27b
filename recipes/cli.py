"""The command ``tristate``: a table of verbs, each imported when it is used."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

from tristate import __version__
from tristate.core.errors import UserError
from tristate.kernels.registry import nearest
from tristate.recipes.usage import UsageError


@dataclass(frozen=True)
class Verb:
    """A word after ``tristate``.

    Attributes:
        target: ``"module:function"``; the function takes the remaining words and returns the status.
        usage: what follows the verb.
        about: what it does, for the overview.
    """

    target: str
    usage: str
    about: str


VERBS = {
    "run": Verb(
        "tristate.recipes.train:run",
        "RECIPE [--key value ...]",
        "train a recipe, test its best checkpoint, write report.html",
    ),
    "fit": Verb("tristate.recipes.train:fit", "RECIPE [--key value ...]", "train a recipe"),
    "validate": Verb(
        "tristate.recipes.train:validate",
        "RECIPE --ckpt_path FILE",
        "evaluate a checkpoint on the validation data",
    ),
    "test": Verb(
        "tristate.recipes.train:test",
        "RECIPE --ckpt_path FILE",
        "evaluate a checkpoint on the test data and write report.html",
    ),
    "predict": Verb(
        "tristate.recipes.train:predict",
        "RECIPE --ckpt_path FILE",
        "write the predictions of a checkpoint to a file",
    ),
    "list": Verb("tristate.recipes.catalog:show", "[--json]", "show the recipes"),
    "copy": Verb(
        "tristate.recipes.catalog:copy", "RECIPE [FILE]", "write a recipe beside you, to edit it"
    ),
    "bench": Verb("tristate.recipes.bench:main", "kernels [--json FILE]", "measure this machine"),
}


def overview() -> str:
    """What ``tristate`` prints when asked for help."""
    rows = [(f"tristate {name} {verb.usage}", verb.about) for name, verb in VERBS.items()]
    width = max(len(usage) for usage, _ in rows)
    lines = [f"  {usage:<{width}}  {about}" for usage, about in rows]
    return "\n".join(
        [
            f"tristate {__version__}: state-space models for vision, audio and genomics",
            "",
            *lines,
            "",
            "RECIPE is a name from `tristate list` or a YAML file. `tristate VERB --help` tells more.",
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
        print(f"tristate {__version__}")
        return 0
    if name not in VERBS:
        raise UsageError(f"unknown verb {name!r}; {nearest(name, VERBS)}")
    module, _, function = VERBS[name].target.partition(":")
    return getattr(import_module(module), function)(rest)


def main(argv: Sequence[str] | None = None) -> int:
    """The console script: exit status 0, 1 for what went wrong, 2 for a wrong command line."""
    try:
        return dispatch(sys.argv[1:] if argv is None else argv)
    except UserError as error:
        print(f"tristate: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        print("tristate: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader (`head`, `less`) has seen enough. Python would complain at exit while flushing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
