"""What is wrong in a config: named, with its place and the nearest valid name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .command_lines import ATTACK, TINY, line_of, with_value, write

pytestmark = pytest.mark.usefixtures("here")


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
