"""`--ckpt_path last`: which checkpoint that is, and what going on with it does to the folder of its run."""

from __future__ import annotations

import copy
import os
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from touchstone.cli.resuming import _advice
from touchstone.runs.durable import DurableCheckpointIO
from touchstone.runs.find_checkpoint import FoundCheckpoint, find_checkpoint, folder_of, runs_with_checkpoint, step_of

from .command_lines import BEST, TINY, fitted_in, write

pytestmark = pytest.mark.usefixtures("here")


def written(folder: Path, version: int, name: str, age: int = 0, step: int | None = None) -> Path:
    path = folder / f"version_{version}" / "checkpoints" / f"{name}.ckpt"
    DurableCheckpointIO().save_checkpoint({"name": name, "version": version, "global_step": step}, path)
    os.utime(path, (1_000_000 - age,) * 2)
    return path


def test_last_is_the_newest_good_checkpoint_and_best_is_nothing_else(here: Path) -> None:
    assert find_checkpoint(here, "last") is None
    oldest = written(here, 9, "last")
    best, last, other = written(here, 10, "best", age=2), written(here, 10, "last"), written(here, 10, "other", age=1)
    (here / "version_11").mkdir()  # a run that has only just begun
    assert find_checkpoint(here, "last") == FoundCheckpoint(last, 10, ())
    assert find_checkpoint(here, "best") == FoundCheckpoint(best, 10, ())
    for expected, damaged in ((other, last), (best, other), (oldest, best)):
        damaged.write_bytes(b"")
        found = find_checkpoint(here, "last")
        assert found is not None
        assert found.path == expected
        assert found.damaged[0] == f"{last} is damaged: it is empty"
    with pytest.raises(ValueError, match=f"{best} is damaged: it is empty"):
        find_checkpoint(here, "best")
    oldest.write_bytes(b"")
    with pytest.raises(ValueError, match="is damaged: it is empty, and so are 3 others"):
        find_checkpoint(here, "last")


def test_last_is_the_one_of_most_steps_whatever_its_name(here: Path) -> None:
    last, counted = written(here, 0, "last", age=9, step=1), written(here, 0, "last-v1", age=5, step=8)
    best, touched = written(here, 0, "best", age=5, step=8), written(here, 0, "v2", step=2)
    assert find_checkpoint(here, "last") in (FoundCheckpoint(counted, 0, ()), FoundCheckpoint(best, 0, ()))
    newest = written(here, 0, "last", age=5, step=8)
    assert find_checkpoint(here, "last") == FoundCheckpoint(newest, 0, ())
    for path in (newest, counted, best):
        path.write_bytes(path.read_bytes()[:-9])
    found = find_checkpoint(here, "last")
    assert found is not None
    assert found.path == touched
    assert found.damaged[0].startswith(f"{last} is damaged: ")


def test_of_a_given_version_no_other_run_is_looked_into(here: Path) -> None:
    old, new = written(here, 3, "last"), written(here, 4, "last")
    (here / "mine" / "checkpoints").mkdir(parents=True)
    named = Path(shutil.copy(new, here / "mine" / "checkpoints"))
    assert find_checkpoint(here, "last") == FoundCheckpoint(new, 4, ())
    assert find_checkpoint(here, "last", 3) == FoundCheckpoint(old, 3, ())
    assert find_checkpoint(here, "last", "mine") == FoundCheckpoint(named, "mine", ())
    assert find_checkpoint(here, "best", "mine") is find_checkpoint(here, "last", 5) is None


TABLE = "lightning.pytorch.loggers.CSVLogger"
LAST = {"class_path": "ModelCheckpoint", "init_args": {"filename": "last", "enable_version_counter": False}}


def with_last(*loggers: str) -> Any:
    """The tiny config that keeps its last checkpoint, and logs by these."""
    config = copy.deepcopy(TINY)
    config["trainer"]["callbacks"] = [*config["trainer"]["callbacks"][1:], LAST]  # without attacks: a third of the time
    if loggers:
        options = {"save_dir": "logs", "name": "tiny"}
        config["trainer"]["logger"] = [{"class_path": name, "init_args": options} for name in loggers]
    return config


@pytest.fixture(scope="module")
def with_last_fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `with_last()` was fitted, to be copied."""
    return fitted_in(tmp_path_factory.mktemp("fitted"), with_last())


@pytest.fixture(scope="module")
def with_table_fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of `with_last(TABLE)`."""
    return fitted_in(tmp_path_factory.mktemp("fitted"), with_last(TABLE))


def test_fit_goes_on_with_last_in_the_folder_of_its_run(run: Any, with_last_fitted: Path) -> None:
    name = write(with_last())
    assert run("fit", "--config", name, "--ckpt_path", "last").first_line == (
        "error: --ckpt_path last: no run in 'logs/tiny' has a checkpoint of this name"
    )
    shutil.copytree(with_last_fitted, ".", dirs_exist_ok=True)
    again = run("fit", "--config", name, "--ckpt_path", "last", "--trainer.max_epochs", "2")
    assert (again.code, again.err) == (0, "note: --ckpt_path last is logs/tiny/version_0/checkpoints/last.ckpt\n")
    assert [folder.name for folder in Path("logs/tiny").iterdir()] == ["version_0"]
    assert torch.load("logs/tiny/version_0/checkpoints/last.ckpt", weights_only=True)["epoch"] == 1
    ended = run("fit", "--config", name, "--ckpt_path", "last")
    assert "nothing was trained" in ended.err
    tested = run("test", "--config", name, "--ckpt_path", "best")
    assert tested.err == f"note: --ckpt_path best is {BEST}\n"
    assert "run folder: logs/tiny/version_1" in tested.out
    named = run("test", "--config", name, "--ckpt_path", "best", "--trainer.logger.init_args.version", "mine")
    assert named.err == f"note: --ckpt_path best is {BEST}\n"
    assert "run folder: logs/tiny/mine" in named.out


@pytest.mark.parametrize("root", [(), ("--trainer.default_root_dir", "mine"), ("--trainer.default_root_dir", "~/mine")])
def test_a_run_goes_on_that_says_nothing_of_loggers(
    run: Any, root: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(Path.cwd()))
    config = with_last()
    config["trainer"]["logger"] = None
    given = ("fit", "--config", write(config), *root)
    assert run(*given).code == 0
    (found,) = Path().glob("**/lightning_logs")
    ended = run(*given, "--ckpt_path", "last", "--trainer.max_epochs", "2")
    assert ended.code == 0
    assert ended.err.startswith("note: --ckpt_path last is ")
    assert f"{found}/version_0/checkpoints/last.ckpt" in ended.err
    assert [folder.name for folder in found.iterdir()] == ["version_0"]


def test_the_config_of_a_folder_in_which_a_fit_went_on_is_that_of_a_new_run(run: Any, with_last_fitted: Path) -> None:
    shutil.copytree(with_last_fitted, ".", dirs_exist_ok=True)
    kept = Path("logs/tiny/version_0/config.yaml")
    before = kept.read_text()
    assert run("fit", "--config", str(kept), "--ckpt_path", "last").code == 0
    assert kept.read_text() == before
    assert run("test", "--config", str(kept), "--ckpt_path", "last").code == 0
    assert run("fit", "--config", str(kept)).code == 0
    assert sorted(folder.name for folder in Path("logs/tiny").iterdir()) == ["version_0", "version_1", "version_2"]
    ended = run("test", "--config", str(kept), "--trainer.logger.version", "0", "--ckpt_path", "last")
    assert ended.code == 1
    assert "error: logs/tiny/version_0 has the config of an earlier run, " in ended.err


@pytest.mark.parametrize("loggers", [[TABLE], [TABLE, TINY["trainer"]["logger"]["class_path"]]])
def test_a_table_of_curves_goes_on_where_its_checkpoint_was_written(run: Any, loggers: list[str]) -> None:
    name = write(with_last(*loggers))
    assert run("fit", "--config", name).code == 0
    table = Path("logs/tiny/version_0/metrics.csv")
    first = table.read_text().splitlines()
    later = ",".join("7" if key == "step" else "0" for key in first[0].split(","))  # of steps that are taken again
    table.write_text("\n".join([*first, later, "0,0."]))  # and one that was not written to its end
    assert run("fit", "--config", name, "--ckpt_path", "last", "--trainer.max_epochs", "2").code == 0
    both = table.read_text().splitlines()
    assert both[: len(first)] == first
    assert len(both) == 2 * len(first) - 1


def test_a_fit_that_is_refused_the_checkpoint_leaves_the_folder_of_its_run_as_it_was(
    run: Any, with_table_fitted: Path
) -> None:
    shutil.copytree(with_table_fitted, ".", dirs_exist_ok=True)
    folder = Path("logs/tiny/version_0")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    ended = run("fit", "--config", "tiny.yaml", "--ckpt_path", "last", "--model.net.width", "2")
    assert ended.code == 2
    assert "has the shape (4, 1, 3, 3), and (2, 1, 3, 3)" in ended.err
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_table_of_curves_that_cannot_be_written_is_not_lost(
    run: Any, with_table_fitted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(with_table_fitted, ".", dirs_exist_ok=True)
    table = Path("logs/tiny/version_0/metrics.csv")
    before = table.read_text()
    monkeypatch.setattr(CSVLogger, "save", Mock(side_effect=OSError(28, "No space left on device")))
    assert run("fit", "--config", "tiny.yaml", "--ckpt_path", "last", "--trainer.max_epochs", "2").code > 0
    assert table.with_suffix(".old").read_text() == before


@pytest.mark.parametrize(
    ("given", "folder", "names_it"),
    [
        ([], "version_0", "--ckpt_path last --trainer.logger.init_args.version 0"),
        (["--trainer.logger.init_args.version", "mine"], "mine", "--ckpt_path last"),
        (["--config", "table.yaml"], "version_0", "--ckpt_path logs/tiny/version_0/checkpoints/last.ckpt"),
    ],
)
def test_the_line_to_go_on_goes_on_with_its_run_where_there_are_newer_ones(
    run: Any, given: list[str], folder: str, names_it: str
) -> None:
    Path("mine.py").write_text(
        "from pathlib import Path\n"
        "from lightning.pytorch import Callback\n"
        "class Breaks(Callback):\n    def on_fit_end(self, *_):\n"
        "        if not Path('held').exists(): raise RuntimeError('out of luck')\n"
    )
    config = with_last()
    config["trainer"]["callbacks"].append({"class_path": "mine.Breaks"})
    write({"trainer": {"logger": with_last(TABLE)["trainer"]["logger"]}}, "table.yaml")
    broken = run("fit", "--config", write(config), *given)
    hints = [line for line in broken.err.splitlines() if line.startswith("to go on: ")]
    assert hints == [f"to go on: python train.py fit --config logs/tiny/{folder}/config.yaml {names_it}"]
    Path("held").touch()
    kept = Path("logs/tiny", folder, "config.yaml")
    before = kept.read_text()
    assert run("fit", "--config", "tiny.yaml", "--trainer.logger.init_args.version", "5").code == 0
    newer = {path: path.stat().st_mtime_ns for path in Path("logs/tiny/version_5").rglob("*")}
    resumed = run(*hints[0].split("train.py ")[1].split())
    assert resumed.code == 0
    assert f"nothing was trained: logs/tiny/{folder}/checkpoints/last.ckpt" in resumed.err
    assert kept.read_text() == before
    assert newer == {path: path.stat().st_mtime_ns for path in Path("logs/tiny/version_5").rglob("*")}
    ended = run("fit", "--config", "tiny.yaml", "--trainer.logger.init_args.version", "no", "--ckpt_path", "last")
    assert "'logs/tiny/no', which the logger's version names, has no checkpoint of this name; " in ended.first_line


def test_where_the_first_logger_has_no_runs_a_file_is_named_to_go_on_with(run: Any) -> None:
    Path("mine.py").write_text(
        "from lightning.pytorch import Callback\n"
        "from lightning.pytorch.loggers import TensorBoardLogger\n"
        "class Mine(TensorBoardLogger): pass\n"
        "class Breaks(Callback):\n    def on_fit_end(self, *_): raise RuntimeError('out of luck')\n"
    )
    config = with_last("mine.Mine")
    config["trainer"]["callbacks"].append({"class_path": "mine.Breaks"})
    ended = run("fit", "--config", write(config))
    folder = "logs/tiny/version_0"
    to_go_on = f"to go on: python train.py fit --config {folder}/config.yaml --ckpt_path {folder}/checkpoints/last.ckpt"
    assert to_go_on in ended.err.splitlines()
    ended = run("fit", "--config", "tiny.yaml", "--ckpt_path", "last")
    assert ended.code == 2
    assert ended.first_line.endswith("trainer.logger has none as its first: name a file")


def test_runs_whose_folders_have_names_are_named_with_the_option_that_takes_one(run: Any, fitted: Path) -> None:
    shutil.copytree(fitted, ".", dirs_exist_ok=True)
    Path("logs/tiny/version_0").rename("logs/tiny/mine")
    for subcommand, name, option in (
        ("validate", "best", "--ckpt_path logs/tiny/mine/checkpoints/best.ckpt"),
        ("fit", "last", "--trainer.logger.init_args.version mine"),
    ):
        command = [subcommand, "--config", "tiny.yaml", "--ckpt_path", name]
        ended = run(*command)
        assert (ended.code, ended.first_line) == (
            2,
            f"error: --ckpt_path {name}: no run in 'logs/tiny' whose folder has a number, version_N, has a checkpoint "
            f"of this name; 'mine' has one: name the run, as by {option}",
        )
        assert run(*command, *option.split()).code == 0


@pytest.mark.parametrize("folder", ["version_007", "version_12"])
def test_the_version_that_is_advised_is_that_of_the_run(tmp_path: Path, folder: str) -> None:
    for name in (folder, "version_other", "with_last"):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
        torch.save({"global_step": 3}, tmp_path / name / "checkpoints" / "last.ckpt")
    with patch("touchstone.runs.find_checkpoint.step_of", wraps=step_of) as opened:
        others, path = runs_with_checkpoint(tmp_path, "last")
    assert opened.call_count == 1
    assert others == [folder, "version_other", "with_last"]
    assert path is not None
    advised = _advice(others, path, by_version=True).rpartition(" ")[2]
    version = int(advised) if advised.isdecimal() else advised  # as the option takes it
    assert folder_of(tmp_path, version) == path.parent.parent


def test_a_damaged_last_is_named_and_the_newest_good_one_is_taken(run: Any, fitted: Path) -> None:
    shutil.copytree(fitted, ".", dirs_exist_ok=True)
    Path(BEST).with_name("last.ckpt").write_bytes(b"")
    ended = run("validate", "--config", "tiny.yaml", "--ckpt_path", "last")
    assert ended.code == 0
    assert ended.err.splitlines() == [
        "note: logs/tiny/version_0/checkpoints/last.ckpt is damaged: it is empty",
        f"note: --ckpt_path last is {BEST}",
    ]
