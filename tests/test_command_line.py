"""The command line: what a run prints, how it ends, and what it leaves behind."""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch.utils.data import DataLoader

import train
from touchstone.attacks import FGSM, Linf
from touchstone.callbacks import RobustAccuracy
from touchstone.cli.given import Given, gather
from touchstone.cli.jobs import JOBS
from touchstone.cli.report_table import print_end, read_report, report_table
from touchstone.datamodules import DigitsDataModule
from touchstone.lightning_modules import Classifier
from touchstone.nets import SmallCNN

from .command_lines import ATTACK, BEST, ROOT, TINY, with_value, write
from .lightning_programs import trainer

pytestmark = pytest.mark.usefixtures("here")

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


def test_reports_of_further_data_loaders_are_named(tmp_path: Path, capsys: Any) -> None:
    class Twice(DigitsDataModule):
        def test_dataloader(self) -> list[DataLoader]:  # type: ignore[override]
            return [super().test_dataloader(), super().val_dataloader()]

    attacks = {"fgsm": FGSM(threat=Linf(eps=0.1))}
    for data, is_named in ((DigitsDataModule(), False), (Twice(), True)):
        run = trainer(tmp_path, RobustAccuracy(attacks, max_samples=20, num_images=0))
        run.test(Classifier(SmallCNN()), datamodule=data, verbose=False)
        folder = Path(run.log_dir)  # type: ignore[arg-type]
        print_end(folder, read_report(folder / "report.json", 0), None)
        said = "the table is of the first data loader; of the others: report_1.json" in capsys.readouterr().out
        assert said == is_named


def test_a_language_model_has_a_table_in_bits_per_character(capsys: Any) -> None:
    report = {
        "stage": "val",
        "num_texts": 50,
        "bits_per_character/clean": 2.5,
        "bits_per_character/flips_before": 2.4,
        "bits_per_character/flips": 3.1234,
        "attack_success/flips": 0.26,
        "attacks": {"flips": {"threat": "TokenFlips(3)", "num_backwards": 75}},
    }
    print_end(None, None, None, language=report)
    out = capsys.readouterr().out
    assert "50 validation texts, bits per character" in out
    assert "every attack within TokenFlips(3)" in out
    row = next(line for line in out.splitlines() if "flips" in line)
    assert [cell.strip() for cell in row.strip("│").split("│")] == ["flips", "2.400", "3.123", "26.0 %", "1.5"]


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


# Real processes.


def process(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "train.py"), *arguments]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8", env=environment
    )


@pytest.mark.parametrize(
    ("number", "saves_last"), [(signal.SIGINT, True), pytest.param(signal.SIGTERM, False, marks=pytest.mark.slow)]
)
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
        note = "note: --ckpt_path last is logs/tiny/version_0/checkpoints/last.ckpt\n"
        assert (resumed.returncode, resumed.stderr) == (0, note)


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
