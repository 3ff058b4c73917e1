"""`--help`, of subcommands and of classes: what a user may choose among is there, and nothing else."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest

from touchstone import datamodules, lightning_modules

pytestmark = pytest.mark.usefixtures("here")


def option(text: str, name: str) -> str:
    """What a help says of an option, in one line."""
    found = re.search(rf"^  --{re.escape(name)} (.*?)(?=^  --|^\S|\Z)", text, flags=re.DOTALL | re.MULTILINE)
    assert found is not None, name
    return " ".join(found[1].split())


@pytest.fixture
def fit_help(run: Any) -> str:
    ended = run("fit", "--help")
    assert ended.code == 0
    return ended.out


def test_the_help_of_fit_names_every_module_and_data_module_and_no_part_of_the_command_line(fit_help: str) -> None:
    models, data, callbacks = (option(fit_help, name) for name in ("model", "data", "trainer.callbacks"))
    for name in ("Classifier", "LanguageModel"):
        assert f"touchstone.lightning_modules.{name}" in models
    for name in datamodules.__all__:
        is_data = name.endswith("DataModule")
        assert (f"touchstone.datamodules.{name}" in data) == is_data
    assert "lightning.Lightning" not in models + data
    assert "touchstone.callbacks.RobustAccuracy" in callbacks
    assert "lightning.pytorch.callbacks.EarlyStopping" in callbacks
    assert "touchstone.cli" not in fit_help


def test_groups_of_options_have_titles_in_words(fit_help: str) -> None:
    titles = re.findall(r"^(\S.*):$", fit_help, flags=re.MULTILINE)
    assert titles == [
        "options",
        "How long, how often and on what (Lightning's Trainer)",
        "What is trained: a net with its loss and its optimizer",
        "Where the batches come from",
        "With which weights it begins",
    ]


def test_the_help_of_a_checkpoint_says_what_is_true_here(run: Any, fit_help: str) -> None:
    of_test = run("test", "--help").out
    for text in (fit_help, of_test):
        said = option(text, "ckpt_path")
        assert "`last` or `best` of the newest run that has one" in said
        assert "--trainer.logger.init_args.version" in said
        assert "registry" not in said
        assert "Changes nothing" in option(text, "weights_only")
    assert "Without it they are those that the net is made with" in option(of_test, "ckpt_path")
    assert "Without it" not in option(fit_help, "ckpt_path")


OF_BOTH = ("touchstone.nets.SmallCNN", "touchstone.datamodules.augmentations.RandomFlip")


@pytest.mark.parametrize(
    ("asked", "key", "of_it", "of_others"),
    [
        ("--model.help=Classifier", "model.net", *OF_BOTH),
        pytest.param(
            "--data.help=ImagesDataModule",
            "data.augment",
            *reversed(OF_BOTH),
            marks=pytest.mark.skipif(sys.version_info < (3, 11), reason="there `Sequence[Module]` passes for a class"),
        ),
    ],
)
def test_the_help_of_a_class_lists_modules_of_touchstone_and_of_its_kind_alone(
    run: Any, asked: str, key: str, of_it: str, of_others: str
) -> None:
    ended = run("fit", *asked.split("="))
    assert ended.code == 0
    said = option(ended.out, key)
    assert of_it in said
    assert of_others.rpartition(".")[0] not in said
    assert "any other by its class path" in said
    assert not re.findall(r"(?<![\w.])(?:torch|torchvision|torchmetrics|lightning)\.[\w.]+", said)
    assert "touchstone.lightning_modules" not in said
    assert "<class" not in said
    assert len(ended.out.splitlines()) < 160


def test_optimizers_of_a_library_are_still_listed(run: Any) -> None:
    said = run("fit", "--model.help", "Classifier").out
    assert "torch.optim.AdamW" in option(said, "model.optimizer")
    assert "touchstone.lightning_modules.WarmupCosine" in option(said, "model.lr_scheduler")


@pytest.mark.parametrize("asked", [["--model.help"], ["--model.help", "Classifier", "--model.net.help"]])
def test_the_help_of_a_base_names_what_is_below_it(run: Any, asked: list[str]) -> None:
    ended = run("fit", *asked)
    assert ended.code == 0
    said = ended.out.partition("Below ")[2]
    expected = "touchstone.nets.SmallCNN" if len(asked) > 1 else "touchstone.lightning_modules.Classifier"
    assert expected in said
    assert not re.search(r"(?<![\w.])(torch|lightning)\.", said)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("--model.help Clasifier", "--model.help: 'Clasifier' is no class for it; there is Classifier, "),
        ("--model.help=Languag", "--model.help: 'Languag' is no class for it; there is LanguageModel, "),
        ("--model.help SmallCNN", "--model.help: 'SmallCNN' is no class for it; there is "),
        ("--data.help touchstone.datamodules.DigitsDatModule", "has no 'DigitsDatModule'; there is DigitsDataModule, "),
        ("--data.help touchstone.nets.SmallCNN", "is not a subclass of LightningDataModule; there is "),
        ("--modle.help Classifier", "there is no option --modle.help: "),
        ("--model.help LanguageModel --model.sampling.help", "there is no option --model.sampling.help: "),
        ("--model.net.help SmallCNN", "there is no option --model.net.help: only what is a class has help"),
        ("--model.help Classifier --model.net.help LSTM", "called LSTM, give the path of one: torch.nn."),
        ("--trainer.callbacks.help", "--trainer.callbacks.help: a class is needed; there is "),
        ("--trainer.callbacks.help RobustAcc", "'RobustAcc' is no class for it; there is RobustAccuracy, "),
        ("--model.help Classifier --model.net.help SmalCNN", "--model.net.help: 'SmalCNN' is no class for it; "),
        ("--model.help Classifier --model.net.help SmalCNN", "there is SmallCNN, "),
    ],
)
def test_a_class_that_is_none_is_refused_with_the_nearest_names_first(run: Any, asked: str, said: str) -> None:
    ended = run("fit", *asked.split())
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.first_line
    assert len(ended.err.splitlines()) <= 5


def test_classes_go_by_their_names_in_options_and_configs(run: Any) -> None:
    assert {"Classifier", "LanguageModel"} < set(lightning_modules.__all__)
    given = ["--model", "Classifier", "--model.net", "SmallCNN", "--data", "DigitsDataModule"]
    ended = run("fit", *given, "--print_config")
    assert ended.code == 0
    for path in ("lightning_modules.Classifier", "nets.SmallCNN", "datamodules.DigitsDataModule"):
        assert f"class_path: touchstone.{path}\n" in ended.out
