"""A disk that is full or read-only: what was good stays, the logs stay readable, and a training outlives its logs."""

from __future__ import annotations

import json
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from touchstone.runs.durable import damage

from .command_lines import with_value, write

PARTS = """
import subprocess
import lightning.pytorch as pl

class Refuse(pl.Callback):
    def __init__(self, how: str):
        self.how = how
    def on_train_epoch_start(self, trainer, module):
        if trainer.current_epoch == 2 and self.how == "full":
            with open("disk/rest", "wb", buffering=0) as file:
                try:
                    while True:
                        file.write(bytes(4096))
                except OSError:
                    pass
        elif trainer.current_epoch == 2:
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


def fitted(run: Any, how: str, *, saves: bool) -> Any:
    """A run of four epochs, which fills its disk, or makes it read-only, after two of them."""
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
    return run("fit", "--config", write(config))


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
        ended = fitted(run, how, saves=True)
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
        ended = fitted(run, how, saves=False)
    assert ended.code == 0
    assert "epoch 4/4" in ended.out
    said = [str(warning.message) for warning in caught if "logs are lost" in str(warning.message)]
    assert said == [f"logs are lost ({REASONS[how]}): the training goes on without them"]
    check_logs_are_readable()
