"""From a recipe and the words after it to a task, its data and a trainer, all checked."""

import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, set_parsing_settings
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from tristate.core.errors import UserError
from tristate.core.training.task import Task
from tristate.recipes import catalog
from tristate.recipes.callbacks import Bar, Lines, Record, checkpoints
from tristate.recipes.sentences import explain, keys_of_class, keys_of_parser
from tristate.recipes.usage import UsageError


class Experiment(LightningCLI):
    """Lightning's command line without its verbs: it parses a recipe, checks it and builds.

    Args:
        verb: what will be done; only ``run`` and ``fit`` write checkpoints.
        recipe: name of a recipe, or path of a YAML file.
        words: settings laid over the recipe, ``--key value``.

    After construction ``model`` (the task), ``datamodule``, ``trainer``, ``folder`` (of this run,
    made and empty), ``resolved`` (the whole configuration as YAML) and ``config`` are there.

    Raises:
        UsageError: the recipe or a setting is not understood.
        UserError: a constructor refuses what it is given.
    """

    def __init__(self, verb: str, recipe: str, words: Sequence[str]) -> None:
        self.verb, self.command = verb, ["tristate", verb, recipe, *words]
        self.path = path = catalog.find(recipe)
        name = path.stem if path == Path(recipe) else recipe
        set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
        super().__init__(
            Task,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,
            seed_everything_default=0,
            trainer_defaults={"enable_model_summary": False},
            parser_kwargs={
                "prog": f"tristate {verb} {recipe}",
                "description": "Every setting is a key; --config FILE lays another file over.",
                # "omegaconf" would resolve ${...} before the overrides.
                "parser_mode": "omegaconf+",
                "allow_abbrev": False,
                "exit_on_error": False,
            },
            args=[f"--recipe={name}", f"--config={path}", *words],
            run=False,
            auto_configure_optimizers=False,
            # The task keeps its own arguments in the checkpoint.
            load_from_checkpoint_support=False,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the keys that are no constructor's, and hand the data's facts to the task."""
        parser.add_argument(
            "--about", type=dict[str, Any] | None, default=None, help="for the list"
        )
        parser.add_argument("--recipe", type=str, help="name of the run's folder")
        parser.add_argument("--out", type=str, default="runs", help="folder that collects the runs")
        parser.add_argument(
            "--ckpt_path", type=str | None, default=None, help="checkpoint to resume or evaluate"
        )
        parser.link_arguments("data.facts", "model.init_args.facts", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, and tell an error in one sentence."""
        try:
            self.config = parser.parse_args(args)
        except ArgumentError as error:
            raise UsageError(explain(str(error), self._keys())) from error
        _read_values(self.config, args)
        checkpoint = self.config.ckpt_path
        if checkpoint is not None and not Path(checkpoint).is_file():
            raise UsageError(f"there is no checkpoint {checkpoint}")

    def _keys(self) -> list[str]:
        """All keys of this recipe, as far as it can be read, for the nearest one."""
        keys = keys_of_parser(self.parser)
        with suppress(yaml.YAMLError, AttributeError, ImportError, KeyError, TypeError, ValueError):
            recipe = yaml.safe_load(self.path.read_text(encoding="utf-8"))
            for group in ("model", "data"):
                names = keys_of_class(recipe[group]["class_path"])
                keys += [f"{group}.{name}" for name in names]
        return keys

    def instantiate_classes(self) -> None:
        """Build data, task and trainer; what a constructor refuses is one sentence, too."""
        try:
            # As Lightning's own, which still calls jsonargparse by a deprecated name.
            self.config_init = self.parser.instantiate(self.config)
            self.model, self.datamodule = self.config_init.model, self.config_init.data
            self.trainer = self.instantiate_trainer()
        except (
            ValueError,
            TypeError,
            KeyError,
            FileNotFoundError,
            MisconfigurationException,
        ) as error:
            raise UserError(_cause(error)) from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer, with the callbacks and the logger that all recipes share."""
        self.resolved = self.parser.dump(self.config, skip_unset=False)
        self.folder = _new_folder(Path(self.config.out).absolute() / self.config.recipe)
        group = self.folder.parent
        settings = self.config.trainer
        callbacks: list[Callback] = [
            Record(self.command, self.resolved, self.config.seed_everything)
        ]
        if self.verb not in ("run", "fit"):
            kwargs["enable_checkpointing"] = False
        elif settings.enable_checkpointing is not False:
            callbacks += checkpoints(self.model, self.folder)
        if settings.enable_progress_bar is not False:
            callbacks.append(Bar() if sys.stdout.isatty() else Lines())
        self.trainer_defaults["callbacks"] = callbacks
        csv = CSVLogger(group.parent, name=group.name, version=self.folder.name)
        others = self.config_init.trainer.logger or []
        loggers = [csv, *(others if isinstance(others, list) else [others])]
        try:
            return super().instantiate_trainer(
                logger=loggers, default_root_dir=self.folder, **kwargs
            )
        except BaseException:
            self.discard_empty_folder()
            raise

    @property
    def writes(self) -> bool:
        """Whether this process leaves files: the first one does, but not in a trial run."""
        return self.trainer.is_global_zero and not self.config.trainer.fast_dev_run

    def discard_empty_folder(self) -> None:
        """Remove the run's folder if nothing was written into it."""
        with suppress(OSError):
            self.folder.rmdir()


def _read_values(config: Any, words: Sequence[str]) -> None:
    """Numbers and the like that words set deep in ``config``, which the parser leaves as text.

    It reads the value of a key of a dictionary (``--model.backbone_args.n_layers 2``), but not that
    of one in a dictionary in a dictionary (``--model.backbone_args.mixer_args.d_state 4``).
    """
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, equals, given = word.partition("=")
        *path, last = name.removeprefix("--").split(".")
        node, value = config, given if equals else following
        for part in path:
            if not hasattr(node, "get"):
                break
            node = node if part in node else node.get("init_args", node)
            node = node.get(part)
        if isinstance(node, dict) and node.get(last) == value:
            with suppress(yaml.YAMLError):
                node[last] = yaml.safe_load(value)


def _cause(error: BaseException) -> str:
    """What the constructor itself said: jsonargparse wraps it in an account of the types."""
    while error.__cause__ and str(error).lstrip().startswith(("Does not validate", "Parser key")):
        error = error.__cause__
    # str() of a KeyError puts its sentence in quotes.
    sentence = error.args[0] if isinstance(error, KeyError) else error
    return " ".join(str(sentence).split())


def _new_folder(group: Path) -> Path:
    """A new folder in ``group``, named after the time; only the first process makes it."""
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    # The other processes take the name from the first one, through the trainer.
    return _make_folder(group, stamp) or group / stamp


@rank_zero_only
def _make_folder(group: Path, stamp: str) -> Path:
    """The folder ``stamp`` in ``group``, or ``stamp_2`` and so on where there is one."""
    folder, n = group / stamp, 1
    while True:
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            n += 1
            folder = group / f"{stamp}_{n}"
        except OSError as error:
            raise UserError(f"can't make the run's folder {folder}: {error.strerror}") from error
