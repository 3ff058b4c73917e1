"""What is wrong in a config or on the command line: named, with its place and the nearest valid name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from .command_lines import ATTACK, ROOT, TINY, line_of, with_value, write

pytestmark = pytest.mark.usefixtures("here")

# What is wrong in a config.

MISTAKES_IN_A_CONFIG = {
    "a key of the trainer": (with_value(3, "trainer", "max_epoch"), "max_epoch:", "'max_epochs'"),
    "a key of the config": (with_value({"a": 1}, "trainr"), "trainr:", "'trainer'"),
    "a key in the wrong place": (with_value(3, "max_epochs"), "^max_epochs:", "'trainer.max_epochs'"),
    "a key beside class_path": (with_value({}, "model", "init_arg"), "init_arg:", "'init_args'"),
    "a parameter of the model": (
        with_value(0.1, "model", "init_args", "label_smoothin"),
        "smoothin",
        "label_smoothing",
    ),
    "a parameter of an optimizer": (
        with_value(1, "model", "init_args", "optimizer", "init_args", "weight_deca"),
        "weight_deca",
        "'weight_decay'",
    ),
    "a parameter of a callback": (
        with_value(5, "trainer", "callbacks", 0, "init_args", "max_sample"),
        "max_sample:",
        "'max_samples'",
    ),
    "a parameter of an attack": (with_value(3, *ATTACK, "init_args", "treat"), "treat:", "'threat'"),
    "a parameter of a threat": (with_value(3, *ATTACK, "init_args", "threat", "init_args", "epz"), "epz:", "'eps'"),
    "a class": (with_value("touchstone.nets.SmalCNN", "model", "init_args", "net", "class_path"), "Smal", "'SmallCNN'"),
    "a class of torch": (
        with_value("torch.optim.AdamX", "model", "init_args", "optimizer", "class_path"),
        "AdamX",
        "'Adam",
    ),
    "a class of Lightning": (
        with_value("lightning.pytorch.callbacks.ModelCheckpont", "trainer", "callbacks", 1, "class_path"),
        "ModelCheckpont",
        "'ModelCheckpoint'",
    ),
    "a class of an attack": (with_value("touchstone.attacks.FGMS", *ATTACK, "class_path"), "FGMS", "'FGSM'"),
    "a class without its module": (with_value("Clasifier", "model", "class_path"), "Clasifier", "'Classifier'"),
    "a module": (with_value("touchstone.net.SmallCNN", "model", "init_args", "net", "class_path"), "net.S", "'nets'"),
    "a top module": (with_value("tochstone.nets.SmallCNN", "model", "class_path"), "tochstone", "'touchstone'"),
    "a folder of this project": (
        with_value("attacks.FGSM", *ATTACK, "class_path"),
        "FGSM",
        "'touchstone.attacks.FGSM'",
    ),
    "class_path": (
        {**TINY, "model": {"clas_path": TINY["model"]["class_path"], "init_args": TINY["model"]["init_args"]}},
        "clas_path",
        "'class_path'",
    ),
    "a choice": (with_value("b16-mixed", "trainer", "precision"), "precision:", "'bf16-mixed'"),
}


@pytest.mark.parametrize("mistake", MISTAKES_IN_A_CONFIG)
def test_a_misspelling_in_a_config_is_named_with_its_line_and_the_nearest_name(mistake: str, run: Any) -> None:
    config, text, nearest = MISTAKES_IN_A_CONFIG[mistake]
    name = write(config)
    ended = run("fit", "--config", name)
    assert ended.code == 2
    line = line_of(text.removeprefix("^")) if not text.startswith("^") else len(Path(name).read_text().splitlines())
    assert f"{name}, line {line}:" in ended.first_line
    assert nearest in ended.first_line
    assert len(ended.err.splitlines()) <= 5


WRONG_VALUES_IN_A_CONFIG = {
    "a text for a number": (with_value("abc", "trainer", "max_epochs"), "max_epochs", "an integer or null, got 'abc'"),
    "a number for a mapping": (with_value(3, "trainer"), "trainer", "must hold keys, got 3"),
    "a text for a rate": (
        with_value("fast", "model", "init_args", "optimizer", "init_args", "lr"),
        "lr: fast",
        "must be a number or Tensor, got 'fast'",
    ),
    "what a threat refuses": (
        with_value(-1, *ATTACK, "init_args", "threat", "init_args", "eps"),
        " eps:",
        "Linf(eps=...) must be > 0 and finite, got -1",
    ),
    "what a callback refuses": (
        with_value(0, "trainer", "callbacks", 0, "init_args", "every_n_epochs"),
        "every_n_epochs",
        "RobustAccuracy(every_n_epochs=...) must be >= 1, got 0",
    ),
    "what a data module refuses": (
        with_value({"batch_size": 0}, "data", "init_args"),
        "batch_size",
        "DigitsDataModule(batch_size=...) must be >= 1, got 0",
    ),
    "what a callback of Lightning refuses": (
        with_value("maxx", "trainer", "callbacks", 1, "init_args", "mode"),
        "mode: maxx",
        "`mode` can be",
    ),
    "what the trainer refuses": (with_value("gpuu", "trainer", "accelerator"), "accelerator", "'gpuu'"),
    "a key that stands below one whose name the message has too": (
        with_value(0, "trainer", "devices"),
        "devices: 0",
        "`Trainer(devices=0)`",
    ),
    "a value that the message repeats alone": (
        with_value("soon", "trainer", "max_time"),
        "max_time",
        "trainer.max_time: `Timer(duration='soon')` is not a valid duration",
    ),
    "null for a net": (with_value(None, "model", "init_args", "net"), " net:", "model.net must be Module, got null"),
    "null for an eps": (
        with_value(None, *ATTACK, "init_args", "threat", "init_args", "eps"),
        " eps:",
        "attacks.fgsm.threat.eps must be a number",
    ),
    "a class that is something else": (
        with_value("torch.nn.ReLU", "trainer", "callbacks", 1, "class_path"),
        "torch.nn.ReLU",
        "trainer.callbacks.1 must be Callback, ReLU is not",
    ),
}


@pytest.mark.parametrize("mistake", WRONG_VALUES_IN_A_CONFIG)
def test_a_wrong_value_in_a_config_is_named_with_its_line_and_what_is_allowed(mistake: str, run: Any) -> None:
    config, text, allowed = WRONG_VALUES_IN_A_CONFIG[mistake]
    name = write(config)
    ended = run("fit", "--config", name)
    assert ended.code == 2
    assert f"{name}, line {line_of(text)}:" in ended.first_line
    assert allowed in ended.first_line
    assert len(ended.err.splitlines()) <= 5


def test_a_missing_parameter_is_named(run: Any) -> None:
    ended = run("fit", "--config", write(with_value({}, *ATTACK, "init_args")))
    assert ended.code == 2
    assert f"line {line_of('touchstone.attacks.FGSM')}: FGSM needs the parameter 'threat'" in ended.first_line


@pytest.mark.parametrize("key", ["model", "data"])
def test_a_config_without_model_or_data_says_which_is_missing(key: str, run: Any) -> None:
    ended = run("fit", "--config", write({k: v for k, v in TINY.items() if k != key}))
    assert ended.code == 2
    assert f"no {key} is given" in ended.first_line
    assert f"`{key}:`" in ended.first_line


def test_a_config_that_stands_before_the_one_it_adds_to_is_told_where_it_goes(run: Any) -> None:
    part = {"model": {"init_args": {"strategy": {"class_path": "touchstone.lightning_modules.Free"}}}}
    arguments = ("--config", write(part, "part.yaml"), "--config", write(TINY))
    ended = run("fit", *arguments)
    assert ended.code == 2
    message = "part.yaml, line 1: model has init_args and no class_path: this config goes behind one that has it"
    assert ended.first_line == f"error: {message}"


FILES_THAT_ARE_NO_CONFIG = {
    "broken": (b"trainer:\n  max_epochs: 3\n  x: [1,\nmodel: 3\n", "line 5: this is not YAML"),
    "tabs": (b"trainer:\n\tmax_epochs: 3\n", "line 2: this is not YAML"),
    "empty": (b"", "is empty"),
    "only a comment": (b"# nothing\n", "holds keys"),
    "a list": (b"- a\n- b\n", "holds keys"),
    "a word": (b"abc\n", "holds keys"),
    "a key twice": (b"model: 3\ntrainer:\n  a: 1\n  a: 2\n", "line 4: the key 'a' stands here and in line 3"),
    "a key twice in a line": (b"model: {a: 1, b: 2, a: 3}\n", "line 1: the key 'a' stands here and in line 1"),
    "nested too deep": (b"model: " + 100_000 * b"[", "is nested too deep"),
    "binary": (bytes(range(256)), "is not a text file"),
}


@pytest.mark.parametrize("kind", FILES_THAT_ARE_NO_CONFIG)
def test_a_file_that_is_no_config_is_named_with_the_reason(kind: str, run: Any) -> None:
    content, reason = FILES_THAT_ARE_NO_CONFIG[kind]
    Path("x.yaml").write_bytes(content)
    ended = run("fit", "--config", "x.yaml")
    assert ended.code == 2
    assert "x.yaml" in ended.first_line
    assert reason in ended.first_line


def test_a_missing_config_is_named_with_the_nearest_file(run: Any) -> None:
    write(TINY, "digits.yaml")
    assert run("fit", "--config", "digit.yaml").first_line.endswith("does not exist; did you mean 'digits.yaml'?")
    assert run("fit", "--config", "else.yaml").first_line.endswith("'else.yaml' does not exist")


def test_a_missing_config_is_named_with_the_one_of_a_like_ending_or_in_a_folder_below(run: Any) -> None:
    Path("configs").mkdir()
    write(TINY, "configs/digits.yaml")
    for name in ("configs/digits.yml", "digits.yaml", "configs/digit.yml"):
        assert run("fit", "--config", name).first_line.endswith("does not exist; did you mean 'configs/digits.yaml'?")
    assert run("fit", "--config", "configs/digits.json").first_line.endswith("'configs/digits.json' does not exist")


@pytest.mark.parametrize(
    "arguments",
    [
        ["fit", "--config", "LONG"],
        ["fit", "LONG"],
        ["fit", "--config", "tiny.yaml", "--ckpt_path", "LONG"],
        ["test", "--config", "tiny.yaml", "--model.net", "LONG.yaml"],
        ["test", "--config", "tiny.yaml", "--model.net", "LONG.Net"],
        ["verify", "LONG"],
        ["gallery", "LONG"],
    ],
)
def test_a_name_too_long_for_any_file_is_a_usage_error(arguments: list[str], run: Any) -> None:
    write(TINY)
    Path("below").mkdir()
    Path("below/own.py").touch()
    ended = run(*(argument.replace("LONG", 300 * "n") for argument in arguments))
    assert (ended.code, ended.first_line[:7]) == (2, "error: ")
    assert 300 * "n" in ended.first_line


@pytest.mark.parametrize("text", ["!own 3", "!own [3]", "!own {a: 3}"])
def test_a_tag_that_nobody_knows_is_named_with_its_line(text: str, run: Any) -> None:
    Path("x.yaml").write_text(f"trainer:\n  max_epochs: {text}\n")
    ended = run("fit", "--config", "x.yaml")
    assert ended.code == 2
    assert ended.first_line.startswith("error: x.yaml, line 2: this is not YAML: could not determine a constructor")
    assert "'!own'" in ended.first_line


def test_a_link_that_leads_nowhere_is_not_what_was_meant(run: Any, here: Path) -> None:
    (here / "x.yaml").symlink_to("nowhere.yaml")
    assert run("fit", "--config", "x.yaml").first_line == "error: the config 'x.yaml' does not exist"


def test_a_folder_in_place_of_a_config_is_named(run: Any) -> None:
    Path("configs").mkdir()
    ended = run("fit", "--config", "configs")
    assert (ended.code, ended.first_line) == (2, "error: the config 'configs' is a folder, not a file")


def test_a_pipe_in_place_of_a_config_is_named_and_not_waited_for(run: Any) -> None:
    os.mkfifo("x.yaml")
    ended = run("fit", "--config", "x.yaml")
    assert (ended.code, ended.first_line) == (2, "error: the config 'x.yaml' is no file: it is read more than once")


def test_a_config_that_may_not_be_read_is_named(run: Any) -> None:
    Path(write(TINY)).chmod(0)
    if os.access("tiny.yaml", os.R_OK):
        pytest.skip("root reads every file")
    ended = run("fit", "--config", "tiny.yaml")
    assert ended.code == 2
    assert "'tiny.yaml' cannot be read" in ended.first_line


ENTRIES_THAT_FORM_NO_PASS = {
    "an attack's name": ({}, "two RobustAccuracy entries name an attack 'fgsm': names must be unique"),
    "an option": ({"seed": 3}, "RobustAccuracy(seed=...) must be the same for all entries of a trainer, or given to"),
}


@pytest.mark.parametrize("kind", ENTRIES_THAT_FORM_NO_PASS)
def test_an_appended_entry_that_forms_no_pass_with_the_first_is_named_with_its_line(kind: str, run: Any) -> None:
    options, message = ENTRIES_THAT_FORM_NO_PASS[kind]
    arguments = {"attacks": TINY["trainer"]["callbacks"][0]["init_args"]["attacks"], **options}
    entry = {"class_path": "touchstone.callbacks.RobustAccuracy", "init_args": arguments}
    callbacks = [{"class_path": "touchstone.callbacks.GradientNorm"}, entry]
    more = write({"trainer": {"callbacks+": callbacks}}, "more.yaml")
    ended = run("fit", "--config", write(TINY), "--config", more)
    assert ended.code == 2
    assert ended.first_line.startswith(f"error: more.yaml, line {line_of('RobustAccuracy', more)}: {message}")
    assert not Path("logs").exists()


# What is wrong on the command line.

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


OF_ONE_S_OWN = """
from typing import Any, Callable
import torch

class Net(torch.nn.Module):
    def __init__(self, act: TYPE, width: int = 3):
        super().__init__()
"""


@pytest.mark.parametrize("kind", ["Callable", "Callable | None", "Callable[..., Any]", "Callable[[int], Any]"])
@pytest.mark.parametrize(("act", "wrong"), [("torch.nn.ReLU", "model.net.width"), ("collections.deque", "model.net")])
def test_a_mistake_is_named_beside_a_function_of_any_type(act: str, wrong: str, kind: str, run: Any) -> None:
    Path("mine_of_calls.py").write_text("from __future__ import annotations\n" + OF_ONE_S_OWN.replace("TYPE", kind))
    net = {"class_path": "mine_of_calls.Net", "init_args": {"act": {"class_path": act}, "width": "nine"}}
    ended = run("fit", "--config", write(with_value(net, "model", "init_args", "net")))
    assert ended.code == 2
    assert ended.first_line.startswith("error: tiny.yaml, line ")
    assert wrong in ended.first_line
