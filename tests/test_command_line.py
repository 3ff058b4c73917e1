"""The command line: what it prints, how it ends, and what it says about each mistake."""

from __future__ import annotations

import copy
import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import train
from touchstone.cli.given import Given, gather
from touchstone.cli.report_table import print_end, report_table
from touchstone.datamodules import DigitsDataModule
from touchstone.lightning_modules import Classifier
from touchstone.nets import SmallCNN

ROOT = Path(train.__file__).parent
DIGITS = ROOT / "configs" / "digits.yaml"
LINF: dict[str, Any] = {"class_path": "touchstone.attacks.Linf", "init_args": {"eps": 0.15}}
TINY: dict[str, Any] = {
    "seed_everything": 0,
    "trainer": {
        "max_epochs": 1,
        "accelerator": "cpu",
        "devices": 1,
        "limit_train_batches": 2,
        "log_every_n_steps": 1,
        "num_sanity_val_steps": 0,
        "logger": {
            "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
            "init_args": {"save_dir": "logs", "name": "tiny", "default_hp_metric": False},
        },
        "callbacks": [
            {
                "class_path": "touchstone.callbacks.RobustAccuracy",
                "init_args": {
                    "attacks": {"fgsm": {"class_path": "touchstone.attacks.FGSM", "init_args": {"threat": LINF}}},
                    "max_samples": 20,
                    "num_images": 0,
                },
            },
            {
                "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
                "init_args": {"monitor": "val/accuracy", "mode": "max", "filename": "best"},
            },
        ],
    },
    "model": {
        "class_path": "touchstone.lightning_modules.Classifier",
        "init_args": {
            "net": {"class_path": "touchstone.nets.SmallCNN", "init_args": {"width": 4, "hidden": 8}},
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.002}},
        },
    },
    "data": {"class_path": "touchstone.datamodules.DigitsDataModule"},
}
BEST = "logs/tiny/version_0/checkpoints/best.ckpt"

Config = Any


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def first_line(self) -> str:
        return self.err.splitlines()[0]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder; what a command does to the imports is undone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("attacks", "mine"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    def command(*arguments: str) -> Ended:
        capsys.readouterr()
        code = train.main(arguments)
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return command


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the tiny config was fitted once."""
    folder = tmp_path_factory.mktemp("fitted")
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert train.main(["fit", "--config", write(TINY)]) == 0
    finally:
        os.chdir(before)
    return folder


def write(config: Config, name: str = "tiny.yaml") -> str:
    Path(name).write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return name


def with_value(value: Any, *keys: str | int) -> Config:
    """The tiny config with another value at a key; the last key may be new."""
    config = copy.deepcopy(TINY)
    inner = config
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    return config


def line_of(text: str, name: str = "tiny.yaml") -> int:
    lines = Path(name).read_text(encoding="utf-8").splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


# What is wrong in a config.

ATTACK = ("trainer", "callbacks", 0, "init_args", "attacks", "fgsm")
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


FILES_THAT_ARE_NO_CONFIG = {
    "broken": (b"trainer:\n  max_epochs: 3\n  x: [1,\nmodel: 3\n", "line 5: this is not YAML"),
    "tabs": (b"trainer:\n\tmax_epochs: 3\n", "line 2: this is not YAML"),
    "empty": (b"", "is empty"),
    "only a comment": (b"# nothing\n", "holds keys"),
    "a list": (b"- a\n- b\n", "holds keys"),
    "a word": (b"abc\n", "holds keys"),
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


def test_a_folder_in_place_of_a_config_is_named(run: Any) -> None:
    Path("configs").mkdir()
    ended = run("fit", "--config", "configs")
    assert (ended.code, ended.first_line) == (2, "error: the config 'configs' is a folder, not a file")


def test_a_config_that_may_not_be_read_is_named(run: Any) -> None:
    Path(write(TINY)).chmod(0)
    if os.access("tiny.yaml", os.R_OK):
        pytest.skip("root reads every file")
    ended = run("fit", "--config", "tiny.yaml")
    assert ended.code == 2
    assert "'tiny.yaml' cannot be read" in ended.first_line


# What is wrong on the command line.

MISTAKES_ON_THE_COMMAND_LINE = {
    "a key": (["--trainer.max_epocs=3"], "trainer has no key 'max_epocs'; did you mean 'max_epochs'?"),
    "a key cut short": (["--trainer.max_epoch", "3"], "'max_epoch'; did you mean 'max_epochs'?"),
    "a group": (["--modle.width", "3"], "'modle'; did you mean 'model'?"),
    "a parameter": (["--model.label_smoothin", "3"], "'label_smoothin'; did you mean 'label_smoothing'?"),
    "a parameter, in full": (["--model.init_args.label_smoothin", "3"], "did you mean 'label_smoothing'?"),
    "a parameter further in": (["--model.net.init_args.widht", "3"], "SmallCNN has no parameter 'widht'"),
    "a class": (["--model", "Clasifier"], "did you mean 'Classifier'?"),
    "an appended class": (["--trainer.callbacks+=ModelCheckpoin"], "did you mean 'ModelCheckpoint'?"),
    "a class without its module": (["--trainer.callbacks+=Zuversicht"], "is named with its module, MODULE.Zuversicht"),
    "a value": (["--trainer.max_epochs", "abc"], "trainer.max_epochs must be an integer or null, got 'abc'"),
    "a refused value": (["--model.label_smoothing", "2"], "Classifier(label_smoothing=...) must be in [0, 1), got 2"),
}


@pytest.mark.parametrize("mistake", MISTAKES_ON_THE_COMMAND_LINE)
def test_a_mistake_on_the_command_line_is_named_with_the_nearest_name(mistake: str, run: Any) -> None:
    arguments, message = MISTAKES_ON_THE_COMMAND_LINE[mistake]
    ended = run("fit", "--config", write(TINY), *arguments)
    assert ended.code == 2
    assert ended.first_line.startswith("error: command line: ")
    assert message in ended.first_line
    assert len(ended.err.splitlines()) <= 5


def test_an_unknown_subcommand_is_named_with_the_nearest(run: Any) -> None:
    ended = run("fitt", "--config", "x.yaml")
    assert (ended.code, ended.first_line) == (2, "error: there is no subcommand 'fitt'; did you mean 'fit'?")


def test_options_without_a_subcommand_are_an_error_that_lists_the_subcommands(run: Any) -> None:
    ended = run("--config", "x.yaml")
    assert ended.code == 2
    assert "no subcommand is given" in ended.first_line
    assert "fit, validate, test, predict" in ended.first_line


def test_an_option_without_its_value_is_named(run: Any) -> None:
    ended = run("fit", "--config", write(TINY), "--trainer.max_epochs")
    assert ended.code == 2
    assert "--trainer.max_epochs" in ended.first_line


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


# Checkpoints.


def test_a_checkpoint_that_is_none_is_named(run: Any, here: Path) -> None:
    name = write(TINY)
    Path("text.ckpt").write_text("no checkpoint")
    torch.save({"a": 1}, "other.ckpt")
    torch.save({"state_dict": {}}, "whole.ckpt")
    Path("cut.ckpt").write_bytes(Path("whole.ckpt").read_bytes()[:200])
    for path, reason in {
        "texd.ckpt": "does not exist; did you mean 'text.ckpt'?",
        str(here): "is a folder",
        "text.ckpt": "is no checkpoint",
        "other.ckpt": "has no state_dict",
        "cut.ckpt": "is no checkpoint, or a damaged one",
    }.items():
        ended = run("test", "--config", name, "--ckpt_path", path)
        assert ended.code == 2
        assert path in ended.first_line
        assert reason in ended.first_line
        assert len(ended.err.splitlines()) <= 5


@pytest.mark.parametrize("subcommand", ["fit", "test"])
def test_a_checkpoint_of_another_model_is_named_with_the_first_difference(
    subcommand: str, run: Any, fitted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(fitted)
    arguments = (subcommand, "--config", "tiny.yaml", "--ckpt_path", BEST, "--trainer.logger", "false")
    ended = run(*arguments, "--model.net.width", "2")
    assert ended.code == 2
    assert BEST in ended.first_line
    assert "'net.features.0.weight' has the shape (4, 1, 3, 3), and (2, 1, 3, 3) in this model" in ended.first_line


# Runs.


def test_fit_ends_with_one_table_and_where_everything_lies(run: Any) -> None:
    ended = run("fit", "--config", write(TINY))
    assert ended.code == 0
    assert ended.err == ""
    assert ended.out.count("worst case") == 1
    assert "20 validation samples" in ended.out
    assert "fgsm" in ended.out
    assert "run folder: logs/tiny/version_0" in ended.out
    assert "tensorboard --logdir logs" in ended.out
    assert "epoch 1/1  loss " in ended.out
    assert "litlogger" not in ended.out
    assert Path(BEST).is_file()


@pytest.mark.parametrize(("subcommand", "samples"), [("validate", "validation"), ("test", "test")])
def test_an_evaluation_shows_one_table_and_no_second_one(
    subcommand: str, samples: str, run: Any, fitted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(fitted)
    ended = run(subcommand, "--config", "tiny.yaml", "--ckpt_path", BEST)
    assert (ended.code, ended.err) == (0, "")
    assert f"20 {samples} samples" in ended.out
    assert "DataLoader 0" not in ended.out


def test_without_robust_accuracy_lightning_shows_its_own_table_and_no_old_report(
    run: Any, fitted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(fitted)
    arguments = ("test", "--config", "tiny.yaml", "--ckpt_path", BEST, "--trainer.callbacks", "null")
    Path("report.json").write_text("{}")
    os.utime("report.json", (0, 0))
    ended = run(*arguments, "--trainer.logger", "false")
    assert ended.code == 0
    assert "worst case" not in ended.out
    assert "test/accuracy" in ended.out


def test_predict_ends_with_zero(run: Any, fitted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(fitted)
    assert run("predict", "--config", "tiny.yaml", "--ckpt_path", BEST).code == 0


def test_several_configs_and_appended_callbacks_are_merged_as_lightning_says(run: Any) -> None:
    write({"trainer": {"callbacks+": [{"class_path": "lightning.pytorch.callbacks.LearningRateMonitor"}]}}, "more.yaml")
    ended = run("fit", "--config", write(TINY), "--config", "more.yaml", "--trainer.max_epochs", "7", "--print_config")
    assert ended.code == 0
    printed = yaml.safe_load(ended.out)
    assert printed["trainer"]["max_epochs"] == 7
    classes = [callback["class_path"].split(".")[-1] for callback in printed["trainer"]["callbacks"]]
    assert classes == ["RobustAccuracy", "ModelCheckpoint", "LearningRateMonitor"]


def test_a_value_error_of_a_callback_ends_the_run_with_its_message_first(run: Any, here: Path) -> None:
    (here / "mine.py").write_text(
        "from dataclasses import dataclass\n"
        "from touchstone.attacks import Attack, Objective, Threat, Untargeted\n"
        "@dataclass(frozen=True)\n"
        "class Cheat(Attack):\n"
        "    threat: Threat\n"
        "    objective: Objective = Untargeted()\n"
        "    def perturb(self, model, x, y, rng):\n"
        "        return 1 - x\n"
    )
    ended = run("fit", "--config", write(with_value("mine.Cheat", *ATTACK, "class_path")))
    assert ended.code == 1
    assert ended.first_line.startswith("error: attack 'fgsm'")
    assert len(ended.err.splitlines()) <= 5


def test_the_users_own_attack_in_the_current_folder_is_found_even_where_its_folder_is_called_attacks(
    run: Any, here: Path
) -> None:
    (here / "attacks").mkdir()
    (here / "attacks" / "__init__.py").write_text("from touchstone.attacks import FGSM\nclass Mine(FGSM): ...\n")
    ended = run("fit", "--config", write(with_value("attacks.Mine", *ATTACK, "class_path")))
    assert (ended.code, ended.err) == (0, "")


def test_no_module_of_this_project_is_loaded_under_two_names(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    name = str(Path(write(with_value("attacks.FGSM", *ATTACK, "class_path"))).resolve())
    monkeypatch.chdir(ROOT)
    ended = run("fit", "--config", name)
    assert ended.code == 2
    assert "did you mean 'touchstone.attacks.FGSM'?" in ended.first_line
    assert sys.modules["attacks"] is None


def test_a_broken_module_of_the_user_is_named_with_its_error(run: Any, here: Path) -> None:
    (here / "mine.py").write_text("import nonexistent_package\n")
    ended = run("fit", "--config", write(with_value("mine.Net", "model", "init_args", "net", "class_path")))
    assert ended.code == 2
    assert "mine cannot be imported: No module named 'nonexistent_package'" in ended.first_line


def test_a_file_in_place_of_the_log_folder_fails_the_run_and_is_named(run: Any) -> None:
    Path("logs").write_text("in the way")
    ended = run("fit", "--config", write(TINY))
    assert ended.code == 1
    assert "logs is a file" in ended.err
    assert len(ended.err.splitlines()) <= 5
    assert Path("logs").read_text() == "in the way"


def test_a_log_folder_that_may_not_be_written_fails_the_run_and_is_named(run: Any) -> None:
    name = write(TINY)
    Path("logs").mkdir(mode=0o500)
    if os.access("logs", os.W_OK):
        pytest.skip("root writes everywhere")
    ended = run("fit", "--config", name)
    assert ended.code == 1
    assert "Permission denied" in ended.first_line


# The tree of what was given.


def test_options_are_merged_into_the_tree_as_jsonargparse_merges_them() -> None:
    write(
        {"model": {"class_path": "a.B", "init_args": {"x": 1, "y": 1e-3}}, "trainer": {"callbacks": ["a.C"]}}, "a.yaml"
    )
    tree = gather(["--config", "a.yaml", "--model.x=2", "--trainer.callbacks+=a.D", "--trainer.callbacks.z", "3"])
    assert tree.plain() == {
        "model": {"class_path": "a.B", "init_args": {"x": 2, "y": 1e-3}},
        "trainer": {"callbacks": ["a.C", {"class_path": "a.D", "init_args": {"z": 3}}]},
    }
    assert tree.value["model"].value["class_path"].place == "a.yaml, line 2"
    assert tree.value["model"].value["init_args"].value["x"].place == "command line"


def test_another_class_drops_the_arguments_of_the_first() -> None:
    old = Given({"class_path": Given("a.B", ""), "init_args": Given({"x": Given(1, "")}, "")}, "")
    new = Given({"class_path": Given("a.C", "")}, "")
    assert old.updated(new).plain() == {"class_path": "a.C"}


# The table.


def test_the_table_names_each_threat_where_they_differ_and_prints_warnings(capsys: Any) -> None:
    attack = {"robust_accuracy": 0.5, "ci95": [0.4, 0.6], "success": 0.25, "num_backwards": 160, "threat": "Linf(0.1)"}
    report = {
        "stage": "test",
        "num_samples": 100,
        "clean_accuracy": 0.8,
        "clean_ci95": [0.7, 0.9],
        "worst_case": 0.5,
        "worst_case_ci95": [0.4, 0.6],
        "attacks": {"one": attack, "two": {**attack, "threat": "L2(1.0)"}},
        "warnings": ["the gradient of [1, 2] is zero"],
    }
    print_end(Path("logs/x"), report, None)
    out = capsys.readouterr().out
    assert "L2(1.0)" in out
    assert "the gradient of [1, 2] is zero" in out
    assert "tensorboard" not in out
    table = report_table(report)
    assert list(table.columns[4].cells) == ["", "2.0", "2.0", ""]  # 160 gradients for the 80 samples that were right
    assert list(table.columns[2].cells)[0] == "70.0 - 90.0 %"


def test_a_config_that_takes_callbacks_away_is_noted(run: Any) -> None:
    Path("more.yaml").write_text("trainer:\n  callbacks:\n  - GradientNorm\n")
    ended = run("fit", "--config", write(TINY), "--config", "more.yaml")
    assert ended.code == 0
    assert ended.first_line == (
        "note: more.yaml, line 2: trainer.callbacks replaces the 2 callbacks of tiny.yaml; `callbacks+:` would append "
        "to them"
    )
    Path("more.yaml").write_text("trainer:\n  callbacks+:\n  - GradientNorm\n")
    assert run("fit", "--config", "tiny.yaml", "--config", "more.yaml").err == ""


@pytest.mark.parametrize("subcommand", ["validate", "test", "predict"])
def test_weights_that_no_checkpoint_gave_are_noted(subcommand: str, run: Any) -> None:
    ended = run(subcommand, "--config", write(TINY))
    assert ended.code == 0
    assert ended.first_line == "note: no --ckpt_path is given: the weights are those that the net begins with"


def test_a_missing_dependency_is_named_with_what_to_do(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "touchstone.cli.command_line", None)

    def fail(*_: Any) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(train, "_import_as_the_user_does", fail)
    ended = run("fit")
    assert ended.code == 1
    assert ended.first_line == f"error: torch is not installed for {sys.executable}"
    assert "make train" in ended.err
    assert "pip install -r requirements.txt" in ended.err


def test_the_hint_names_the_subcommand_that_was_given(run: Any) -> None:
    assert "python train.py test --help" in run("test", "--config", write(TINY), "--trainer.max_epocs=3").err


def test_predictions_are_written_as_a_table(run: Any, fitted: Path) -> None:
    ended = run("predict", "--config", write(TINY), "--ckpt_path", str(fitted / BEST))
    assert ended.code == 0
    assert "predictions: logs/tiny/version_0/predictions.csv" in ended.out
    with Path("logs/tiny/version_0/predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    data = DigitsDataModule()
    data.setup("test")
    x, _ = data.test.tensors
    module = Classifier(SmallCNN(width=4, hidden=8))
    module.load_state_dict(torch.load(fitted / BEST, weights_only=True)["state_dict"])
    with torch.no_grad():
        expected = module.eval()(x).softmax(1)
    assert [row["sample"] for row in rows] == [str(i) for i in range(300)]
    assert [row["class_1"] for row in rows] == [str(c) for c in expected.argmax(1).tolist()]
    assert float(rows[7]["probability_1"]) == pytest.approx(float(expected[7].max()), abs=1e-4)


# Real processes.


def process(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "train.py"), *arguments]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8", env=environment
    )


@pytest.mark.parametrize(("number", "saves_last"), [(signal.SIGINT, True), (signal.SIGTERM, False)])
def test_a_signal_ends_a_run_with_its_exit_code_and_keeps_what_was_written(
    number: signal.Signals, saves_last: bool
) -> None:
    config = with_value(10_000, "trainer", "max_epochs")
    if saves_last:
        last = {"class_path": "ModelCheckpoint", "init_args": {"filename": "last", "enable_version_counter": False}}
        config["trainer"]["callbacks"].append(last)
    name = write(config)
    with process("fit", "--config", name) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        for line in running.stdout:
            if line.startswith("epoch 2/"):
                break
        running.send_signal(number)
        running.stdout.read()
        lines = running.stderr.read().splitlines()
        assert running.wait(60) == 128 + number
    assert lines[0] == f"stopped by {number.name}"
    assert "logs/tiny/version_0" in lines[1]
    torch.load(BEST, weights_only=True)
    if saves_last:
        assert lines[2].startswith("to go on: python train.py ")
        resumed = subprocess.run(
            [sys.executable, str(ROOT / "train.py"), *lines[2].split("train.py ")[1].split(), "--trainer.max_epochs=3"],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert (resumed.returncode, resumed.stderr) == (0, "")


def test_a_second_signal_ends_the_process_at_once() -> None:
    script = (
        "import time; from touchstone.cli.stopping import Stopping\n"
        "with Stopping():\n"
        "    try: print('ready', flush=True); time.sleep(60)\n"
        "    finally: print('closing', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        for line in ("ready\n", "closing\n"):
            assert running.stdout.readline() == line
            running.send_signal(signal.SIGINT)
        assert running.wait(20) == 130


def test_a_signal_while_python_imports_ends_with_its_exit_code() -> None:
    with process("--help") as running:
        time.sleep(0.7)
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=60)
    assert (running.returncode, err) == (130, "stopped by SIGINT\n")


def test_a_usage_error_of_a_real_process_is_all_that_stands_on_stderr() -> None:
    with process("fit", "--config", write(with_value(3, "trainer", "max_epoch"))) as running:
        out, err = running.communicate(timeout=60)
    assert (running.returncode, out) == (2, "")
    assert err.startswith("error: tiny.yaml, line ")
    assert len(err.splitlines()) <= 5


@pytest.mark.slow
def test_without_arguments_it_fits_and_tests_digits_and_shows_one_table() -> None:
    with process() as running:
        out, err = running.communicate(timeout=280)
    assert (running.returncode, err) == (0, "")
    assert out.count("worst case") == 1
    assert "300 test samples" in out
    assert "epoch 20/20" in out
    assert {"config.yaml", "report.json", "verdicts.npz"} <= {
        path.name for path in Path("logs/digits/version_0").iterdir()
    }
