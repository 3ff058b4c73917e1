"""`CommandLine`: LightningCLI whose errors are one line and whose runs end with a table."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.plugins.io import CheckpointIO
from lightning.pytorch.utilities.model_helpers import is_overridden

import touchstone.datamodules
import touchstone.datamodules.augmentations
import touchstone.lightning_modules  # noqa: F401  # like the others: what is loaded goes by its name, and help shows it
from touchstone.attacks import frozen_eval
from touchstone.callbacks import ExactResume, LogsMayFail, Predictions, RunRecord
from touchstone.callbacks.not_finite import NotFinite
from touchstone.callbacks.parts.passes.no_pass import refuse_empty_training

from ..runs.durable import DurableCheckpointIO
from ..runs.find_checkpoint import FoundCheckpoint, step_of
from ..runs.run_folder import run_folder
from .checkpoint_errors import check_checkpoint, explain_mismatch
from .class_help import Parser, explain_class_help
from .given import Given, check_configs, merge_given, replaced_callbacks
from .jobs import JOBS
from .loader import install_loader
from .log_folder import about_log_folder
from .mistakes import UsageError
from .noise import NOISE, NOISE_OUTSIDE_FIT, quieten, silent_writers, warnings_in_a_line
from .option_help import describe_options
from .other_processes import EndTogether, say_what_ended
from .outcome import close_bars, note_what_is_left, show_end, shows_own_table
from .own_folder import claim_folder
from .own_signals import OwnSignals
from .parameters_to_train import ParametersToTrain
from .progress_bar import EpochLines
from .refused_late import refused_late
from .resuming import go_on_from, keep_version, name_checkpoint, note
from .stop_after_step import StopAfterStep
from .stopping import Stopping
from .subcommand import check_subcommand, explain_order
from .target import aim_callbacks, check_target
from .trainer_checks import check_common_pass, check_trainer_counts
from .usage_errors import explain, in_one_line

NEEDED_LOADERS = {"fit": "train", "validate": "val", "test": "test", "predict": "predict"}
HELP = {
    "fit": "Trains, and measures on the validation samples along the way.",
    "validate": "Measures on the validation samples.",
    "test": "Measures on the test samples.",
    "predict": "Computes predictions, and whatever pictures the config asks for.",
}
DESCRIPTION = f"Trains, attacks and looks at networks. Beside the subcommands: {', '.join(JOBS.values())}."


class CommandLine(LightningCLI):
    """Parses a command line, runs it, and prints what it has found.

    Args:
        arguments: a subcommand and its options.
        stopping: knows of the signals that end the run.
        then_test: whether `fit` is followed by a test of the best checkpoint.
        shows_folder: whether the end says where everything lies.

    Raises:
        UsageError: the arguments, or the files that they name, are wrong.
    """

    def __init__(
        self, arguments: Sequence[str], stopping: Stopping, *, then_test: bool = False, shows_folder: bool = True
    ) -> None:
        self.arguments = list(arguments)
        check_subcommand(arguments, list(LightningCLI.subcommands()), beside=JOBS)
        install_loader()
        quieten(NOISE if arguments[0] == "fit" else NOISE + NOISE_OUTSIDE_FIT)
        self.stopping, self.then_test, self.shows_folder = stopping, then_test, shows_folder
        self.goes_on: FoundCheckpoint | None = None  # in the folder of an earlier run, with its checkpoint
        if arguments[0] in self.subcommands():
            check_configs(arguments[1:])
        # A user's own program, which builds no CommandLine, keeps its formats.
        with silent_writers(), warnings_in_a_line():
            super().__init__(
                args=self.arguments,
                parser_class=Parser,
                save_config_callback=RunRecord,
                trainer_defaults={"enable_model_summary": False},  # `fit` says in a line what is trained
                parser_kwargs={"exit_on_error": False, "allow_abbrev": False, "description": DESCRIPTION},
                auto_configure_optimizers=False,
            )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The subcommand that the arguments begin with, or all: a parser for each takes its time."""
        every, first = LightningCLI.subcommands(), self.arguments[0]
        return {first: every[first]} if first in every else every

    def _add_subcommands(self, parser: LightningArgumentParser, **kwargs: Any) -> None:
        """Describes them in a sentence each, where Lightning takes the first line of a docstring, whole or not."""
        own = {"allow_abbrev": False}  # jsonargparse has them from the parser above only since 4.53
        super()._add_subcommands(
            parser, **{name: {**kwargs.get(name, {}), **own, "description": HELP[name]} for name in HELP}
        )
        for choice in parser._subcommands_action._choices_actions:  # type: ignore[union-attr]
            choice.help = HELP[choice.dest]
        for name, of_subcommand in self._subcommand_parsers.items():
            describe_options(of_subcommand, name)

    # What the user gave.

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--num_threads",
            type=PositiveInt | None,
            default=None,
            help="CPU threads of torch, null for its own choice; a small net is fastest with one.",
        )
        parser.add_argument(
            "--target",
            type=int | str | None,
            default=None,
            help="Class that the callbacks with a target aim at, by its number, its name or a part of its "
            "name; what fits several is refused with their names.",
        )

    def before_instantiate_classes(self) -> None:
        if (num_threads := self._get(self.config, "num_threads")) is not None:
            torch.set_num_threads(num_threads)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        try:
            self.config = parser.parse_args(args)
        except Exception as error:
            raise self._explained(error) from error
        subcommand = self.config.subcommand
        aim_callbacks(self.config[subcommand])
        self.goes_on = name_checkpoint(self.config[subcommand], to_fit=subcommand == "fit")
        checkpoint = self.config[subcommand].get("ckpt_path")
        check_checkpoint(checkpoint, to_fit=subcommand == "fit")
        if replaced := replaced_callbacks(self.arguments[self.arguments.index(subcommand) + 1 :]):
            note(replaced)
        if subcommand != "fit" and checkpoint is None:
            note("no --ckpt_path is given: the weights are those that the net is made with, pretrained or random")

    def _set_seed(self) -> None:
        try:
            super()._set_seed()
        except ValueError as error:
            given = merge_given(self.arguments[1:]).value.get("seed_everything")
            where = "" if given is None else f"{given.place}: "
            raise UsageError(f"{where}seed_everything: {error}") from error

    def instantiate_classes(self) -> None:
        trainer = self._get(self.config, "trainer")
        trainer = trainer if isinstance(trainer, Namespace) else Namespace()  # a wrong value: explained below
        self._callbacks, trainer.callbacks = trainer.get("callbacks"), None
        try:
            super().instantiate_classes()
        except UsageError:
            raise
        except Exception as error:
            raise self._explained(error, construct=True) from error
        finally:
            trainer.callbacks = self._callbacks
        check_target(self._get(self.config, "target"), self.datamodule)
        hook = f"{NEEDED_LOADERS[str(self.subcommand)]}_dataloader"
        if is_overridden(hook, self.model):
            return
        if self.datamodule is None:
            raise UsageError(
                f"no data is given: a config needs `data:` with a class_path, since the model has no {hook}()"
            )
        if not is_overridden(hook, self.datamodule):
            raise UsageError(f"{type(self.datamodule).__name__} has no {hook}(), which {self.subcommand} needs")

    def _explained(self, error: Exception, *, construct: bool = False) -> UsageError:
        given = self._given()
        if given is None:
            return explain_order(self.arguments, in_one_line(error), self._subcommand_parsers)
        parser = self._subcommand_parsers[self.arguments[0]]
        of_help = None if construct else explain_class_help(parser, self.arguments[1:], error)
        return of_help or explain(parser, given, error, construct=construct)

    def _given(self) -> Given | None:
        """What was given to the subcommand; None where options stand before it, whose places are not known."""
        subcommand, *options = self.arguments
        return merge_given(options) if subcommand in self._subcommand_parsers else None

    def _dump_config(self) -> None:
        """What a module may save as its hyperparameters; Lightning checks again what was just parsed, for long."""
        if not hasattr(self, "config_dump"):
            parser, config = self._parser(self.subcommand), self.config[self.subcommand]
            text = parser.dump(config, skip_link_targets=False, skip_unset=False, skip_validation=True)
            self.config_dump = yaml.safe_load(text)

    def _parse_ckpt_path(self) -> None:
        """Nothing, where Lightning would construct the classes that a checkpoint names: it is data."""

    def instantiate_callbacks(self) -> Any:
        """The callbacks, on random states of their own: a net inside one must not change how the model begins."""
        parser = self._subcommand_parsers[str(self.subcommand)]
        with frozen_eval(torch.nn.Identity()):
            return parser.instantiate(Namespace(trainer=Namespace(callbacks=self._callbacks))).trainer.callbacks

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = self._get(self.config_init, "trainer")
        check_trainer_counts(config, self._given())
        callbacks = _as_list(self.instantiate_callbacks())
        check_common_pass(callbacks, self._given())
        defaults: list[tuple[type, bool, Callable[[], Callback]]] = [
            (ProgressBar, config.enable_progress_bar is not False, EpochLines),
            (BasePredictionWriter, self.subcommand == "predict", Predictions),
            (ExactResume, True, ExactResume),
            (NotFinite, self.subcommand == "fit", partial(NotFinite, waits=False)),
        ]
        callbacks += [make() for kind, is_due, make in defaults if is_due and not _holds(callbacks, kind)]
        ours = [LogsMayFail(), OwnSignals(), StopAfterStep(self.stopping), ParametersToTrain()]
        config.callbacks = [EndTogether(), *callbacks, *ours]
        plugins = _as_list(config.get("plugins"))
        if not _holds(plugins, CheckpointIO):
            config.plugins = [*plugins, DurableCheckpointIO()]
        if config.logger is False:  # then the run has no folder, and the current one may hold a config.yaml
            self.save_config_callback = None
        if self.goes_on is not None:
            self.save_config_kwargs = {**self.save_config_kwargs, "overwrite": True}
        trainer = super().instantiate_trainer(**kwargs)
        say_what_ended(trainer)
        if self.goes_on is not None:
            self.config[self.subcommand].ckpt_path = None  # the folder keeps the config of a run that never stopped
            keep_version(self.config[self.subcommand], self.goes_on)
        return trainer

    # The run. LightningCLI calls the method of the subcommand's name, and `before_` it where there is one.

    def before_fit(self) -> None:
        """Lets the logs go on, where the run does: a disk that refuses it is no mistake in the config."""
        if self.goes_on is not None:
            go_on_from(self.goes_on, self.trainer)

    def fit(self, **arguments: Any) -> None:
        """Trains, and tests the best checkpoint where `then_test` says so."""
        self._run(self._fit, arguments)

    def validate(self, **arguments: Any) -> None:
        """Measures on the validation samples."""
        self._run(self.trainer.validate, self._without_second_table(arguments))

    def test(self, **arguments: Any) -> None:
        """Measures on the test samples."""
        self._run(self.trainer.test, self._without_second_table(arguments))

    def predict(self, **arguments: Any) -> None:
        """Computes predictions."""
        self._run(self.trainer.predict, arguments)

    def _fit(self, **arguments: Any) -> None:
        checkpoint = arguments.get("ckpt_path")
        step = None if checkpoint is None else step_of(Path(checkpoint))
        self.trainer.fit(**arguments)
        refuse_empty_training(self.trainer)
        if self.trainer.global_step == step:
            note(
                f"nothing was trained: {checkpoint} is the end of a run of {self.trainer.current_epoch} epochs; "
                "raise --trainer.max_epochs to go on"
            )
        if self.then_test:
            again = {"model": self.model, "datamodule": self.datamodule, "ckpt_path": "best"}
            self.trainer.test(**self._without_second_table(again))

    def _without_second_table(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Silences Lightning's, where this project shows its own and a run folder has what that leaves out.

        The table of `RobustLanguage` is of the texts that were attacked, and not of all.
        """
        return {**arguments, "verbose": False} if shows_own_table(self.trainer) else arguments

    def _run(self, job: Callable[..., Any], arguments: dict[str, Any]) -> None:
        started, folder, made = time.time(), None, list[Path]()
        arguments = {**arguments, "weights_only": True}  # a checkpoint is data, and runs no code
        try:
            made = claim_folder(self.trainer)
            folder = run_folder(self.trainer)  # where nothing is logged, none: the current one is the user's
            if folder is not None and not os.path.exists(folder):
                made = [folder]
            job(**arguments)
        except BaseException as error:
            close_bars()
            if "state_dict" in str(error) and (problem := explain_mismatch(arguments.get("ckpt_path"), self.model)):
                raise problem from error
            refusal = refused_late(error) or about_log_folder(error, folder, self._get(self.config, "trainer.logger"))
            fit = self.config[self.subcommand] if job == self._fit else None
            note_what_is_left(refusal or error, folder, started, made=made, fit=fit)
            if refusal is not None:
                raise refusal from error
            raise
        is_measurement = self.subcommand in ("validate", "test")
        are_figures_shown = is_measurement and not shows_own_table(self.trainer)
        show_end(self.trainer, started, shows_folder=self.shows_folder, are_figures_shown=are_figures_shown)


def _as_list(given: Any) -> list[Any]:
    """What a config may give as a list, as one alone, or not at all."""
    return list(given) if isinstance(given, list) else [] if given is None else [given]


def _holds(things: Sequence[object], kind: type) -> bool:
    return any(isinstance(thing, kind) for thing in things)
