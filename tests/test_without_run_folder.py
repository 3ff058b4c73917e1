"""Runs without a run folder, or in one that was there before: what is the user's is left alone, and not shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .command_lines import TINY, with_value, write

WITHOUT_FOLDER = [["--trainer.logger", "false"], ["--trainer.fast_dev_run", "2"]]


@pytest.mark.parametrize("options", WITHOUT_FOLDER)
def test_a_failed_run_leaves_the_current_folder_alone_and_does_not_claim_what_lies_in_it(
    options: list[str], run: Any, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = with_value(1e30, "model", "init_args", "optimizer", "init_args", "lr")
    config["trainer"]["callbacks"] = None
    name = str(Path(write(config)).resolve())
    (here / "empty").mkdir()
    monkeypatch.chdir(here / "empty")
    assert run("fit", "--config", name, *options).code == 1
    assert (here / "empty").is_dir()
    Path("thesis.txt").write_text("mine")
    ended = run("fit", "--config", name, *options)
    assert ended.code == 1
    assert "what was written until then" not in ended.err


@pytest.mark.parametrize("subcommand", ["fit", "validate", "test"])
@pytest.mark.parametrize("options", WITHOUT_FOLDER)
def test_what_was_measured_is_shown_and_the_current_folder_is_not_called_that_of_the_run(
    subcommand: str, options: list[str], run: Any, here: Path
) -> None:
    name = write(with_value(TINY["trainer"]["callbacks"][:1], "trainer", "callbacks"))  # none that writes checkpoints
    ended = run(subcommand, "--config", name, *options, "--trainer.enable_checkpointing", "false")
    assert ended.code == 0, ended.err
    assert f"20 {'test' if subcommand == 'test' else 'validation'} samples" in ended.out
    assert ended.out.count("worst case") == 1
    assert "run folder" not in ended.out
    assert [path.name for path in here.iterdir()] == [name]


def test_a_folder_that_was_there_before_a_run_that_wrote_nothing_stays_and_is_not_claimed(run: Any) -> None:
    Path("mine.py").write_text(
        "from touchstone.datamodules import DigitsDataModule\n"
        "class Data(DigitsDataModule):\n"
        "    def prepare_data(self): raise OSError('no network')\n"
    )
    config = with_value("mine.Data", "data", "class_path")
    config["trainer"]["logger"]["init_args"] |= {"save_dir": "kept", "name": "", "version": ""}
    Path("kept").mkdir()
    assert run("fit", "--config", write(config)).code == 1
    assert Path("kept").is_dir()
    Path("kept/thesis.txt").write_text("mine")
    assert "what was written until then" not in run("fit", "--config", write(config)).err
