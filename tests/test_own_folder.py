"""Runs that begin at the same time have a folder each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from touchstone.cli.own_folder import claim_folder
from touchstone.datamodules import DigitsDataModule

from .command_lines import TINY, after_two_steps, write


@after_two_steps
def test_a_run_that_begins_while_another_prepares_its_data_has_a_folder_of_its_own(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = []

    def another_begins(data: DigitsDataModule) -> None:
        begun.append(TensorBoardLogger("logs", "tiny").version)

    monkeypatch.setattr(DigitsDataModule, "prepare_data", another_begins)
    assert run("fit", "--config", write(TINY)).code == 0
    assert begun == [1]
    assert sorted(path.name for path in Path("logs/tiny").iterdir()) == ["version_0"]


@pytest.mark.parametrize("kind", [TensorBoardLogger, CSVLogger])
def test_of_two_that_have_counted_the_same_runs_the_second_counts_again(kind: type, tmp_path: Path) -> None:
    first, second = (Trainer(logger=kind(tmp_path, "mine"), accelerator="cpu") for _ in range(2))
    claims = [claim_folder(first)]
    logger: Any = second.logger
    versions = iter([0])
    count = logger._get_next_version
    logger._get_next_version = lambda: next(versions, count())  # the first count is from before the other run
    claims.append(claim_folder(second))
    assert claims == [[tmp_path / "mine" / "version_0", tmp_path / "mine"], [tmp_path / "mine" / "version_1"]]
    assert [Path(trainer.log_dir or "").name for trainer in (first, second)] == ["version_0", "version_1"]
    assert (tmp_path / "mine" / "version_1").is_dir()


def test_a_folder_that_the_config_names_or_that_cannot_be_made_is_left_to_the_run(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "version_0").write_text("a file")
    (tmp_path / "other").write_text("a file")
    for name, options in (("mine", {"version": 3}), ("mine", {"version": "named"}), ("mine", {}), ("other", {})):
        assert not claim_folder(Trainer(logger=TensorBoardLogger(tmp_path, name, **options), accelerator="cpu"))
    assert not claim_folder(Trainer(logger=False, accelerator="cpu"))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["mine", "other", "version_0"]


@pytest.mark.parametrize(("place", "num_processes"), [("mine", 2), ("memory://mine", 1)])
def test_what_several_processes_share_or_lies_elsewhere_is_left_to_the_run(
    place: str, num_processes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert not claim_folder(Trainer(logger=TensorBoardLogger(place), accelerator="cpu", devices=num_processes))
    assert not list(tmp_path.iterdir())


def test_a_run_that_fails_while_it_prepares_its_data_leaves_no_folder(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(data: DigitsDataModule) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(DigitsDataModule, "prepare_data", fails)
    assert "out of luck" in run("fit", "--config", write(TINY)).err
    assert not Path("logs").exists()
