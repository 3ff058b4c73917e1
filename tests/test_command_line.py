"""The command line: what a run prints, how it ends, and what it leaves behind."""

from __future__ import annotations

import csv
import errno
import os
import re
import sys
from contextlib import redirect_stderr
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import train
from touchstone.cli.command_line import HELP
from touchstone.cli.jobs import JOBS
from touchstone.cli.log_folder import about_log_folder
from touchstone.datamodules import DigitsDataModule
from touchstone.lightning_modules import Classifier
from touchstone.nets import SmallCNN

from .command_lines import ATTACK, BEST, ROOT, TINY, with_value, write
from .resumed_runs import PARTS

pytestmark = pytest.mark.usefixtures("here")


def test_fit_ends_with_one_table_and_where_everything_lies(run: Any) -> None:
    ended = run("fit", "--config", write(TINY))
    assert ended.code == 0
    assert ended.err == ""
    assert ended.out.count("worst case") == 1
    assert "20 validation samples" in ended.out
    assert "fgsm" in ended.out
    assert "run folder: logs/tiny/version_0" in ended.out
    assert "tensorboard --logdir logs" in ended.out
    assert re.search("epoch 1/1  clean .*  robust .*  loss ", ended.out)
    assert "litlogger" not in ended.out
    assert Path(BEST).is_file()


def test_a_training_that_diverges_ends_with_an_error_that_says_where(run: Any) -> None:
    config = with_value(1e30, "model", "init_args", "optimizer", "init_args", "lr")
    ended = run("fit", "--config", write(config))
    assert ended.code == 1
    assert re.search(r"at step 1 the loss is (nan|inf): .*; it is batch 1 of epoch 0, of the samples \d+, ", ended.err)
    assert len(ended.err.splitlines()) <= 5


def test_a_training_goes_on_with_what_is_not_finite_where_the_config_says_so(run: Any) -> None:
    config = with_value(1e30, "model", "init_args", "optimizer", "init_args", "lr")
    config["trainer"]["callbacks"] = [{"class_path": "touchstone.callbacks.NotFinite", "init_args": {"policy": "keep"}}]
    with pytest.warns(UserWarning, match="NotFinite: at step 1 .*; training goes on with it"):
        ended = run("fit", "--config", write(config))
    assert ended.code == 0


@pytest.mark.filterwarnings("ignore:Total length of `.*` across ranks is zero")
def test_a_training_without_samples_fails_without_any_callback_that_measures(run: Any, here: Path) -> None:
    (here / "mine.py").write_text(
        "from torch.utils.data import DataLoader\n"
        "from touchstone.datamodules import DigitsDataModule\n"
        "class Empty(DigitsDataModule):\n"
        "    def train_dataloader(self):\n"
        "        return DataLoader([])\n"
    )
    ended = run("fit", "--config", write(TINY), "--data", "mine.Empty", "--trainer.callbacks", "null")
    assert ended.code == 1
    assert ended.first_line.startswith("error: nothing was trained: the training data have no batch")


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


def test_a_language_model_shows_its_figures_in_the_lines_of_epochs_and_at_the_end(run: Any, here: Path) -> None:
    config = yaml.safe_load((ROOT / "configs" / "text.yaml").read_text())
    Path("text.txt").write_text("The square of 12 is 144.\n" * 40)
    (measures,) = [c for c in config["trainer"]["callbacks"] if c["class_path"].endswith("RobustLanguage")]
    measures["init_args"]["max_samples"] = 2
    config["trainer"] |= {"callbacks": [measures], "max_epochs": 1, "limit_val_batches": 1, "log_every_n_steps": 1}
    config["data"]["init_args"] |= {"files": ["text.txt"], "token_folder": "tokens", "context": 16, "batch_size": 4}
    fitted = run("fit", "--config", write(config))
    assert re.search(r"^epoch 1/1  loss \d.*val/loss \d", fitted.out, re.MULTILINE)
    validated = run("validate", "--config", "tiny.yaml")
    assert (fitted.code, validated.code) == (0, 0)
    for shown in ("2 validation texts", "val/loss", "val/perplexity", "val/bits_per_character "):
        assert shown in validated.out


def test_a_stop_begins_a_line_of_its_own_below_an_open_bar_and_says_nothing_of_lightnings(run: Any) -> None:
    Path("mine.py").write_text(PARTS)
    callbacks = [{"class_path": "mine.StopAt", "init_args": {"step": 0}}]
    callbacks.append({"class_path": "lightning.pytorch.callbacks.TQDMProgressBar"})
    with redirect_stderr(sys.stdout):  # one after the other, as in a terminal
        ended = run("fit", "--config", write(with_value(callbacks, "trainer", "callbacks")))
    assert ended.code == 143
    assert "Epoch 0:" in ended.out
    assert "\nstopped by SIGTERM\n" in ended.out
    assert "weights_only" not in ended.out


def test_help_describes_each_subcommand_in_a_whole_sentence(run: Any) -> None:
    printed = " ".join(run("--help").out.split())
    ends = [*HELP, "$"]
    for name, after in pairwise(ends):
        (said,) = re.findall(rf" {name} ([A-Z][^.]*\.)(?: {after}|$)", printed)
        assert said in " ".join(run(name, "--help").out.split())


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
    assert ended.first_line.startswith("error: RobustAccuracy: attack 'fgsm'")
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


LEAVING = """
import sys
from touchstone.nets import SmallCNN

class Made(SmallCNN):
    def __init__(self):
        sys.exit(0)

class Called(SmallCNN):
    def forward(self, x):
        sys.exit(7)
"""


@pytest.mark.parametrize("name", ["Made", "Called"])
def test_a_net_that_leaves_the_program_has_failed_and_is_named(name: str, run: Any, here: Path) -> None:
    (here / "mine.py").write_text(LEAVING)
    ended = run("fit", "--config", write(TINY), "--model.net", f"mine.{name}")
    lines = [line for line in ended.err.splitlines() if not line.startswith("warning: ")]
    assert (ended.code, lines[0][:17]) == (1, "error: SystemExit")
    assert "mine.py, line" in ended.err


def test_a_file_in_place_of_the_log_folder_fails_the_run_and_is_named(run: Any) -> None:
    Path("logs").write_text("in the way")
    ended = run("fit", "--config", write(TINY))
    assert ended.code == 1
    assert "logs is a file" in ended.err
    assert len(ended.err.splitlines()) <= 5
    assert Path("logs").read_text() == "in the way"


@pytest.mark.parametrize(
    ("options", "key"),
    [
        (["--trainer.logger.save_dir", "taken/below"], "trainer.logger.init_args.save_dir"),
        (["--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", "taken"], "trainer.logger.init_args.save_dir"),
        (["--trainer.logger", "true", "--trainer.default_root_dir", "taken"], "trainer.default_root_dir"),
        (
            ["--trainer.logger", "[{class_path: CSVLogger, init_args: {save_dir: taken}}]"],
            "trainer.logger.0.init_args.save",
        ),
    ],
)
def test_a_folder_for_logs_that_cannot_be_made_is_named_with_the_key_that_sets_it(
    options: list[str], key: str, run: Any
) -> None:
    Path("taken").write_text("a file")
    ended = run("fit", "--config", write(TINY), *options)
    assert ended.code == 1
    assert ended.first_line.startswith(f"error: the folder for logs, which {key}")
    assert re.search(r"sets, cannot be made: (Not a directory|File exists): .*taken", ended.first_line)
    assert len(ended.err.splitlines()) <= 5


def test_a_current_folder_that_was_removed_is_named(run: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "removed").mkdir()
    monkeypatch.chdir(here / "removed")
    (here / "removed").rmdir()
    ended = run("fit", "--config", str(here / "tiny.yaml"))
    assert (ended.code, ended.first_line) == (1, "error: No such file or directory: the current folder")


def test_a_folder_for_logs_whose_name_is_too_long_is_named(run: Any) -> None:
    ended = run("fit", "--config", write(TINY), "--trainer.logger.name", 300 * "n")
    assert ended.code == 1
    assert ended.first_line.startswith(f"error: File name too long: logs/{300 * 'n'}")
    assert len(ended.err.splitlines()) <= 5


def test_another_folder_that_cannot_be_read_is_not_taken_for_that_of_the_logs(tmp_path: Path) -> None:
    wanted = tmp_path / "logs/run"
    error = IsADirectoryError(errno.EISDIR, "Is a directory", str(tmp_path))
    assert about_log_folder(error, wanted, None) is None
    missing = FileNotFoundError(errno.ENOENT, "No such file or directory", str(tmp_path / "logs"))
    assert "the folder for logs" in str(about_log_folder(missing, wanted, None))


def test_a_log_folder_that_may_not_be_written_fails_the_run_and_is_named(run: Any) -> None:
    name = write(TINY)
    Path("logs").mkdir(mode=0o500)
    if os.access("logs", os.W_OK):
        pytest.skip("root writes everywhere")
    ended = run("fit", "--config", name)
    assert ended.code == 1
    assert "Permission denied" in ended.first_line


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
    assert (
        ended.first_line
        == "note: no --ckpt_path is given: the weights are those that the net is made with, pretrained or random"
    )


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


@pytest.mark.parametrize("job", JOBS)
def test_the_jobs_beside_lightnings_explain_themselves(job: str, run: Any) -> None:
    ended = run(job, "--help")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith(f"usage: python train.py {job} ")
    assert f"(python train.py {job} --help says what it takes" in run(job, "--nonsense").err


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


@pytest.mark.parametrize("option", [("--model.net.dropout", "null"), ("--model.net.init_args.dropout=null",)])
def test_null_for_an_option_of_a_class_in_a_class_is_null(run: Any, option: tuple[str, ...]) -> None:
    """As it is in YAML; a net with an option that may be null, and one that may be a text or null."""
    Path("mine.py").write_text(
        "import touchstone.nets\nfrom typing import Literal\n"
        "class Net(touchstone.nets.SmallCNN):\n"
        "    def __init__(self, name: str | None = 'a', dropout: Literal['some'] | None = 'some'):\n"
        "        super().__init__(width=4)\n"
        "        print('made with', repr(name), repr(dropout))\n"
    )
    name = write(TINY)
    ended = run("validate", "--config", name, "--model.net", "mine.Net", *option, "--model.net.name", "null")
    assert ended.code == 0, ended.err
    assert "made with None None" in ended.out
