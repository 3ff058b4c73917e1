"""What is wrong on the command line: named, with the nearest valid name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .command_lines import ATTACK, ROOT, TINY, line_of, with_value, write

pytestmark = pytest.mark.usefixtures("here")


MISTAKES_ON_THE_COMMAND_LINE = {
    "a key": (["--trainer.max_epocs=3"], "trainer has no key 'max_epocs'; did you mean 'max_epochs'?"),
    "a key cut short": (["--trainer.max_epoch", "3"], "'max_epoch'; did you mean 'max_epochs'?"),
    "the option of configs": (["--confg", "x"], "there is no key 'confg'; did you mean 'config'?"),
    "the option of configs, with a file": (["--confg", "tiny.yaml"], "no key 'confg'; did you mean 'config'?"),
    "the option of configs, short": (["--cfg=tiny.yaml"], "no key 'cfg'; did you mean 'config'?"),
    "a group": (["--modle.width", "3"], "'modle'; did you mean 'model'?"),
    "a parameter": (["--model.label_smoothin", "3"], "'label_smoothin'; did you mean 'label_smoothing'?"),
    "a parameter, in full": (["--model.init_args.label_smoothin", "3"], "did you mean 'label_smoothing'?"),
    "a parameter further in": (["--model.net.init_args.widht", "3"], "SmallCNN has no parameter 'widht'"),
    "a class": (["--model", "Clasifier"], "did you mean 'Classifier'?"),
    "an appended class": (["--trainer.callbacks+=ModelCheckpoin"], "did you mean 'ModelCheckpoint'?"),
    "a class without its module": (["--trainer.callbacks+=Zuversicht"], "is named with its module, MODULE.Zuversicht"),
    "a class of another kind": (["--model.strategy", "PGD"], "model.strategy must be Strategy or null, PGD is not"),
    "a class without its parameter": (["--model.strategy", "TRADES"], "TRADES needs the parameter 'attack'"),
    "a class for a function": (
        ["--model.optimizer", "torch.optim.SGDD"],
        "torch.optim has no 'SGDD'; did you mean 'SGD'?",
    ),
    "a class for a function without its parameter": (
        ["--model.lr_scheduler", "torch.optim.lr_scheduler.StepLR"],
        "StepLR needs the parameter 'step_size'",
    ),
    "a class among several types that shares its name": (
        ["--model.lr_scheduler", "ReduceLROnPlateau"],
        "classes are called ReduceLROnPlateau, give the path of one: torch",
    ),
    "a class that shares its name": (
        ["--model.optimizer", "SGD"],
        "classes are called SGD, give the path of one: torch",
    ),
    "such a class, with options": (["--model.optimizer=SGD", "--model.optimizer.lr=1"], "classes are called SGD, give"),
    "a value": (["--trainer.max_epochs", "abc"], "trainer.max_epochs must be an integer or null, got 'abc'"),
    "a refused value": (["--model.label_smoothing", "2"], "Classifier(label_smoothing=...) must be in [0, 1), got 2"),
    "a number that is a text": (["--num_threads", "abc"], "num_threads must be an integer above 0 or null, got 'abc'"),
    "null": (["--model.init_args.label_smoothing", "null"], "model.label_smoothing must be a number, got null"),
    "null for a class": (["--model.init_args.net", "null"], "model.net must be Module, got null"),
    "a count of 0": (["--trainer.accumulate_grad_batches", "0"], "trainer.accumulate_grad_batches must be an integer "),
    "an interval of 0": (["--trainer.val_check_interval", "0"], "trainer.val_check_interval must be an integer above"),
    "a refused seed": (["--seed_everything", "-5"], "seed_everything: -5 is not in bounds"),
}


@pytest.mark.parametrize("mistake", MISTAKES_ON_THE_COMMAND_LINE)
def test_a_mistake_on_the_command_line_is_named_with_the_nearest_name(mistake: str, run: Any) -> None:
    arguments, message = MISTAKES_ON_THE_COMMAND_LINE[mistake]
    ended = run("fit", "--config", write(TINY), *arguments)
    assert ended.code == 2
    assert ended.first_line.startswith("error: command line: ")
    assert message in ended.first_line
    assert len(ended.err.splitlines()) <= 5


@pytest.mark.parametrize("place", ["the command line", "the config"])
def test_what_the_constructor_of_a_class_named_alone_raises_stands_where_it_is_named(place: str, run: Any) -> None:
    Path("mine.py").write_text(
        "from torch import nn\nclass Net(nn.Module):\n    def __init__(self): raise RuntimeError('out of luck')\n"
    )
    options = ["--model.net", "mine.Net"] if place == "the command line" else []
    ended = run(
        "fit", "--config", write(TINY if options else with_value("mine.Net", "model", "init_args", "net")), *options
    )
    where = "command line" if options else f"tiny.yaml, line {line_of('mine.Net')}"
    assert (ended.code, ended.first_line) == (2, f"error: {where}: model.net: out of luck")


def test_options_of_a_class_that_is_not_named_say_how_to_name_it(run: Any) -> None:
    ended = run("fit", "--model.optimizer", "Adam", "--model.label_smoothing", "0.1")
    keys, way_out = "'optimizer', 'label_smoothing'", "name it by --model CLASS, or by class_path in a config"
    assert (ended.code, ended.first_line) == (2, f"error: command line: model has {keys} and no class: {way_out}")
    ended = run("fit", "--config", write(with_value({"eps": 0.1}, *ATTACK, "init_args", "threat")))
    assert ended.first_line.endswith("threat has 'eps' and no class: name it by class_path")


def test_a_value_that_only_the_parser_knows_to_be_wrong_is_named_by_its_key(run: Any) -> None:
    ended = run("fit", "--config", write(TINY), "--trainer.callbacks", "{}")
    assert (ended.code, ended.first_line[:32]) == (2, "error: trainer.callbacks: Expect")


def test_an_unknown_subcommand_is_named_with_the_nearest(run: Any) -> None:
    ended = run("fitt", "--config", "x.yaml")
    assert (ended.code, ended.first_line) == (2, "error: there is no subcommand 'fitt'; did you mean 'fit'?")
    assert run("gallry").first_line == "error: there is no subcommand 'gallry'; did you mean 'gallery'?"


def test_options_without_a_subcommand_are_an_error_that_lists_the_subcommands(run: Any) -> None:
    ended = run("--config", "x.yaml")
    assert ended.code == 2
    assert "no subcommand is given" in ended.first_line
    assert "fit, validate, test, predict" in ended.first_line


@pytest.mark.parametrize(
    "options",
    [
        ["--config", "tiny.yaml"],
        ["--trainer.max_epochs", "1"],
        ["--num_threads=1"],
        ["--config", "test"],
        ["--seed_everything", "-1"],
    ],
)
def test_options_before_the_subcommand_are_answered_with_the_order_that_is_right(options: list[str], run: Any) -> None:
    write(TINY)
    ended = run(*options, "fit", "--trainer.logger", "false")
    order = " ".join(["fit", *options, "--trainer.logger", "false"])
    assert ended.code == 2
    assert ended.first_line == f"error: options go behind the subcommand: python train.py {order}"


def test_an_option_without_its_value_is_named(run: Any) -> None:
    ended = run("fit", "--config", write(TINY), "--trainer.max_epochs")
    assert ended.code == 2
    assert "--trainer.max_epochs" in ended.first_line
    for arguments in (["--config"], ["--config="], ["--config", "--trainer.max_epochs=3"]):
        ended = run("fit", *arguments)
        assert (ended.code, ended.first_line) == (2, "error: --config needs a file, such as configs/digits.yaml")


def test_a_config_without_the_option_is_answered_with_the_option(run: Any) -> None:
    name = write(TINY)
    ended = run("fit", name)
    assert ended.code == 2
    assert f"did you mean '--config {name}'?" in ended.first_line


def test_traceback_shows_the_whole_error_and_the_explanation_last(run: Any) -> None:
    ended = run("--traceback", "fit", "--config", write(with_value("abc", "trainer", "max_epochs")))
    assert ended.code == 2
    assert ended.err.startswith("Traceback")
    assert "must be an integer or null, got 'abc'" in "\n".join(ended.err.splitlines()[-5:])


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        ("{temperature: 0.5, topk: 3}", "sampling has no key 'topk'; did you mean 'top_k'?"),
        ("{temperature: 0.5, top_k: few}", "sampling.top_k must be an integer or null, got 'few'"),
    ],
)
def test_a_mistake_inside_an_option_that_is_a_group_of_options_is_named(sampling: str, message: str, run: Any) -> None:
    ended = run("fit", "--config", str(ROOT / "configs" / "text.yaml"), f"--model.init_args.sampling={sampling}")
    assert ended.code == 2
    assert ended.first_line == f"error: command line: {message}"


@pytest.mark.parametrize(
    ("arguments", "subcommand"),
    [
        (["fit", "--config", "no.yaml", "--trainer.logger.init_args.name", "test"], "fit"),
        (["predict", "--config", "no.yaml"], "predict"),
        (["--config=no.yaml", "validate"], "validate"),
        (["fti", "--trainer.logger.init_args.name", "test"], "fit"),
    ],
)
def test_the_hint_is_about_the_subcommand_and_not_about_a_value_of_its_name(
    arguments: list[str], subcommand: str, run: Any
) -> None:
    ended = run(*arguments)
    assert ended.code == 2
    assert f"(python train.py {subcommand} --help lists the keys;" in ended.err


def test_a_value_that_a_group_of_options_refuses_is_named_where_it_was_given(run: Any) -> None:
    given = ("fit", "--config", str(ROOT / "configs" / "text.yaml"), "--model.init_args.sampling.temperature=-1")
    ended = run(*given)
    assert ended.code == 2
    assert ended.first_line.startswith("error: command line: Sampling(temperature=...) must be >= 0 and finite, got -1")
