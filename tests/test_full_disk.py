"""A disk that is full or read-only: what was good stays, the logs stay readable, and a training outlives its logs."""

from __future__ import annotations

import copy
import json
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.trainer.states import TrainerFn
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from touchstone.callbacks import LogsMayFail
from touchstone.runs.durable import damage
from touchstone.runs.logs import LostLogs, fit_may_lose, may_be_lost
from touchstone.runs.whole_files import write_together, write_whole

from .command_lines import TINY, with_value, write

PARTS = """
import subprocess
from pathlib import Path
import lightning.pytorch as pl

class Refuse(pl.Callback):
    def __init__(self, how: str):
        self.how = how
    def on_train_epoch_start(self, trainer, module):
        if trainer.current_epoch == 2:
            self.refuse()
    def on_test_epoch_start(self, trainer, module):
        self.refuse()
    def refuse(self):
        Path("disk/logs/tiny/version_0/report_1.json").touch()  # as of a second loader
        if self.how == "full":
            with open("disk/rest", "wb", buffering=0) as file:
                try:
                    while True:
                        file.write(bytes(4096))
                except OSError:
                    pass
        else:
            subprocess.run(["mount", "-o", "remount,ro", "disk"], check=True)
"""
REASONS = {"full": "No space left on device", "read-only": "Read-only file system"}
RUN = Path("disk/logs/tiny/version_0")


@pytest.fixture
def disk(here: Path) -> Iterator[Path]:
    """A small disk of its own, in the current folder."""
    folder = here / "disk"
    folder.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no disk can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def refused(run: Any, how: str, *, saves: bool = False, subcommand: str = "fit") -> Any:
    """A run whose disk fills, or becomes read-only, after two of four epochs, or before a test."""
    Path("mine.py").write_text(PARTS)
    config = with_value("disk/logs", "trainer", "logger", "init_args", "save_dir")
    callbacks = config["trainer"]["callbacks"]
    callbacks[0]["init_args"]["num_images"] = 2
    callbacks[0]["init_args"]["images_every_n_epochs"] = 1
    callbacks[1] = {"class_path": "mine.Refuse", "init_args": {"how": how}}
    if saves:
        last = {"filename": "last", "enable_version_counter": False}
        callbacks.append({"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": last})
    config["trainer"].update(max_epochs=4, enable_checkpointing=saves)
    return run(subcommand, "--config", write(config))


def check_logs_are_readable() -> None:
    report = json.loads((RUN / "report.json").read_text())
    assert report["num_samples"] == 20
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = EventAccumulator(str(RUN), size_guidance={"scalars": 0}).Reload()
    assert len(found.Scalars("val/loss")) >= 2
    assert not list(RUN.rglob("*.part"))


@pytest.mark.parametrize("how", REASONS)
def test_a_checkpoint_that_cannot_be_written_ends_the_run_and_leaves_the_last_good_one(
    how: str, run: Any, disk: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ended = refused(run, how, saves=True)
    assert ended.code == 1
    lines = ended.err.splitlines()
    assert lines[0].startswith(f"error: {REASONS[how]}: ")
    assert "last.ckpt" in lines[0]
    assert len(lines) <= 5
    last = RUN / "checkpoints" / "last.ckpt"
    assert damage(last) is None
    assert torch.load(last, weights_only=True)["epoch"] == 1
    check_logs_are_readable()


@pytest.mark.parametrize("how", REASONS)
def test_logs_that_cannot_be_written_are_one_warning_and_no_end(how: str, run: Any, disk: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        ended = refused(run, how, saves=False)
    assert ended.code == 0
    assert "epoch 4/4" in ended.out
    said = [str(warning.message) for warning in caught if "logs are lost" in str(warning.message)]
    assert said == [f"logs are lost ({REASONS[how]}): the run goes on without them"]
    assert "no table: the last report could not be written" in ended.out
    assert "worst case" not in ended.out
    assert (RUN / "report_1.json").is_file()
    check_logs_are_readable()


@pytest.mark.parametrize("logger", ["TensorBoardLogger", "CSVLogger"])
def test_a_run_that_begins_on_a_full_disk_fails_and_leaves_what_was_there(logger: str, run: Any, disk: Path) -> None:
    config = copy.deepcopy(TINY)
    config["trainer"]["logger"] = {
        "class_path": f"lightning.pytorch.loggers.{logger}",
        "init_args": {"save_dir": "disk/logs", "name": "tiny"},
    }
    name, kept = write(config), RUN / "config.yaml"
    assert run("fit", "--config", name).code == 0
    before = kept.read_bytes()
    fill(disk)
    for options in (["--ckpt_path", "last", "--trainer.max_epochs", "2"], []):
        ended = run("fit", "--config", name, *options)
        lines = [line for line in ended.err.splitlines() if not line.startswith("note: ")]
        assert ended.code == 1
        assert lines[0].startswith(f"error: {REASONS['full']}")
        assert "None" not in lines[0]
        assert len(lines) <= 5
    assert kept.read_bytes() == before
    assert not (RUN.with_name("version_1") / kept.name).exists()


def fill(disk: Path) -> None:
    with suppress(OSError), (disk / "rest").open("ab", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_a_table_of_metrics_that_cannot_be_written_is_one_warning_and_no_end(disk: Path) -> None:
    logger = CSVLogger(str(disk), flush_logs_every_n_steps=1)
    trainer = pl.Trainer(logger=logger, accelerator="cpu")
    LogsMayFail().setup(trainer, pl.LightningModule(), "fit")
    logger.log_metrics({"a": 1.0}, step=0)
    (disk / "rest").write_bytes(bytes(4096))
    fill(disk)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for step in range(1, 400):
            logger.log_metrics({"a": float(step)}, step=step)
    assert [str(warning.message) for warning in caught] == [
        "logs are lost (No space left on device): the run goes on without them"
    ]
    (disk / "rest").unlink()
    logger.log_metrics({"a": 400.0}, step=400)
    rows = (Path(logger.log_dir) / "metrics.csv").read_text().splitlines()
    assert rows[:2] == ["a,step", "1.0,0"]
    assert rows[-1] == "400.0,400"


@pytest.mark.parametrize("how", REASONS)
def test_a_test_whose_report_cannot_be_written_ends_with_the_error(how: str, run: Any, disk: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ended = refused(run, how, subcommand="test")
    assert ended.code == 1
    [line] = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert line == f"error: {REASONS[how]}: {RUN / 'verdicts.npz'}"


def test_every_trainer_of_a_process_warns_once_of_lost_logs(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for trainer in (pl.Trainer(logger=False, accelerator="cpu"), pl.Trainer(logger=False, accelerator="cpu")):
            for name in ("one.png", "two.png"):
                with may_be_lost(trainer):
                    write_whole(tmp_path / "file" / name, "")
    assert len([warning for warning in caught if "logs are lost" in str(warning.message)]) == 2


def test_of_files_that_belong_together_none_is_replaced_where_one_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "verdicts.npz").write_text("older")
    with pytest.raises(OSError, match=r"file/report\.json") as caught:
        write_together({tmp_path / "verdicts.npz": "newer", tmp_path / "file" / "report.json": "newer"})
    assert caught.value.filename == str(tmp_path / "file" / "report.json")
    assert (tmp_path / "verdicts.npz").read_text() == "older"
    assert {path.name for path in tmp_path.iterdir()} == {"file", "verdicts.npz"}


@pytest.mark.filterwarnings("ignore:logs are lost")
def test_a_report_is_no_longer_lost_once_it_is_written_again(tmp_path: Path) -> None:
    trainer, path = pl.Trainer(logger=False, accelerator="cpu"), tmp_path / "run" / "report.json"
    trainer.state.fn = TrainerFn.FITTING
    path.parent.touch()
    with fit_may_lose(trainer, path):
        write_whole(path, "first")
    assert LostLogs.of(trainer).files == {path}
    path.parent.unlink()
    trainer.state.fn = TrainerFn.TESTING
    with fit_may_lose(trainer, path):
        write_whole(path, "second")
    assert not LostLogs.of(trainer).files
