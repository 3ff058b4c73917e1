"""Checkpoints: written whole or not at all, found by name, and looked at before they are loaded."""

from __future__ import annotations

import copy
import os
import random
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from touchstone.runs.durable import DurableCheckpointIO, damage
from touchstone.runs.find_checkpoint import FoundCheckpoint, find_checkpoint

from .command_lines import BEST, LINF, ROOT, TINY, with_value, write

pytestmark = pytest.mark.usefixtures("here")

# Looked at before they are loaded.


def test_a_checkpoint_that_is_none_is_named(run: Any, here: Path) -> None:
    name = write(TINY)
    Path("text.ckpt").write_text("no checkpoint")
    torch.save({"a": 1}, "other.ckpt")
    torch.save({"state_dict": {}}, "whole.ckpt")
    Path("cut.ckpt").write_bytes(Path("whole.ckpt").read_bytes()[:200])
    for path, reason in {
        "texd.ckpt": "does not exist; did you mean 'text.ckpt'?",
        "text.ckp": "does not exist; did you mean 'text.ckpt'?",
        str(here): "is a folder",
        "": "--ckpt_path needs a file, last or best",
        os.devnull: "is no file",
        "text.ckpt": "is no checkpoint",
        "other.ckpt": "has no state_dict",
        "whole.ckpt": "is no Lightning checkpoint: it has no pytorch-lightning_version; weights alone go into a net",
        "cut.ckpt": "is no checkpoint, or a damaged one",
    }.items():
        ended = run("test", "--config", name, "--ckpt_path", path)
        assert ended.code == 2
        assert path in ended.first_line
        assert reason in ended.first_line
        assert len(ended.err.splitlines()) <= 5


def test_weights_alone_are_tested_and_not_trained_further(run: Any, fitted: Path) -> None:
    stored = torch.load(fitted / BEST, weights_only=True)
    kept = ("state_dict", "pytorch-lightning_version", "epoch", "global_step")  # by save_weights_only
    torch.save({key: stored[key] for key in kept}, "weights.ckpt")
    assert run("test", "--config", write(TINY), "--ckpt_path", "weights.ckpt", "--trainer.logger=false").code == 0
    ended = run("fit", "--config", "tiny.yaml", "--ckpt_path", "weights.ckpt")
    assert ended.code == 2
    assert ended.first_line.startswith("error: the checkpoint 'weights.ckpt' holds weights alone, ")
    assert not Path("logs").exists()


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


def test_a_checkpoint_serves_a_config_with_another_strategy(run: Any, here: Path) -> None:
    """Trained by FGSM-RS, tested without it; where the net differs, that is what is said, and not what it remembers."""
    fgsm_rs = {"class_path": "touchstone.lightning_modules.FGSMRS", "init_args": {"threat": LINF}}
    trained, plain = write(with_value(fgsm_rs, "model", "init_args", "strategy"), "trained.yaml"), write(TINY)
    assert run("fit", "--config", trained).code == 0
    assert run("test", "--config", plain, "--ckpt_path", BEST).code == 0
    ended = run("test", "--config", trained, "--ckpt_path", BEST, "--model.net.hidden", "2")
    assert ended.code == 2
    assert "'net.classifier" in ended.first_line
    assert "has the shape" in ended.first_line


class Evil:
    """What a malicious pickle does when it is loaded."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("written"),)


@pytest.mark.parametrize("subcommand", ["fit", "validate", "test", "predict"])
def test_a_checkpoint_with_code_in_it_is_refused_and_runs_nothing(subcommand: str, run: Any, fitted: Path) -> None:
    stored = torch.load(fitted / BEST, weights_only=True)
    torch.save({**stored, "evil": Evil()}, "evil.ckpt")
    ended = run(subcommand, "--config", write(TINY), "--ckpt_path", "evil.ckpt", "--weights_only", "false")
    assert ended.code == 2
    assert ended.first_line.startswith("error: 'evil.ckpt' holds more than weights, ")
    assert not Path("written").exists()
    torch.load("evil.ckpt", weights_only=False)
    assert Path("written").exists()  # it would have


@pytest.mark.parametrize("in_lightnings_words", [False, True])
def test_a_checkpoint_chooses_no_classes(in_lightnings_words: bool, run: Any, fitted: Path) -> None:
    Path("bad.py").write_text("open('imported', 'w').close()\nclass Net:\n    pass\n")
    net = {"class_path": "bad.Net"}
    if in_lightnings_words:
        chosen = {"_class_path": "touchstone.lightning_modules.Classifier", "net": net}
    else:
        chosen = {"class_path": "touchstone.lightning_modules.Classifier", "init_args": {"net": net}}
    torch.save({**torch.load(fitted / BEST, weights_only=True), "hyper_parameters": chosen}, "chooses.ckpt")
    assert run("validate", "--config", write(TINY), "--ckpt_path", "chooses.ckpt").code == 0
    assert not Path("imported").exists()


# Written whole or not at all.


def test_a_checkpoint_is_what_torch_writes_and_leaves_nothing_beside_it(here: Path) -> None:
    path = here / "deep" / "run.ckpt"
    left_over = here / "deep" / ".run.ckpt.123.part"
    left_over.parent.mkdir()
    left_over.write_bytes(b"of a process that was killed")
    DurableCheckpointIO().save_checkpoint({"weight": torch.arange(6)}, path)
    assert torch.equal(torch.load(path, weights_only=True)["weight"], torch.arange(6))
    assert [item.name for item in path.parent.iterdir()] == ["run.ckpt"]


def test_the_old_checkpoint_stays_where_the_new_one_cannot_be_written(here: Path) -> None:
    class Unwritable:
        def __reduce__(self) -> Any:
            raise OSError(28, "No space left on device")

    path = here / "run.ckpt"
    DurableCheckpointIO().save_checkpoint({"step": 1}, path)
    with pytest.raises(OSError, match="No space left"):
        DurableCheckpointIO().save_checkpoint({"weight": torch.zeros(1000), "step": Unwritable()}, path)
    assert torch.load(path, weights_only=True) == {"step": 1}
    assert [item.name for item in here.iterdir()] == ["run.ckpt"]


WRITE_AGAIN_AND_AGAIN = """
import sys, torch
from pathlib import Path
from touchstone.runs.durable import DurableCheckpointIO
for number in range(10_000):
    DurableCheckpointIO().save_checkpoint({"number": torch.full((200_000,), number)}, Path(sys.argv[1]))
    print(number, flush=True)
"""


@pytest.mark.parametrize("num_kills", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_a_process_that_is_killed_while_it_writes_leaves_a_whole_checkpoint(num_kills: int, here: Path) -> None:
    path = here / "run.ckpt"
    delays = random.Random(0)
    for _ in range(num_kills):
        command = [sys.executable, "-c", WRITE_AGAIN_AND_AGAIN, str(path)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as writing:
            assert writing.stdout is not None
            writing.stdout.readline()
            time.sleep(delays.uniform(0, 0.1))
            writing.kill()
        assert damage(path) is None
        number = torch.load(path, weights_only=True)["number"]
        assert bool((number == number[0]).all())


def test_every_flipped_bit_is_seen_or_does_no_harm(here: Path) -> None:
    path = here / "run.ckpt"
    weight = torch.randn(300)
    DurableCheckpointIO().save_checkpoint({"weight": weight, "step": 7}, path)
    whole = path.read_bytes()
    draw = random.Random(0)
    num_seen = 0
    for _ in range(200):
        place = draw.randrange(len(whole))
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << draw.randrange(8)]) + whole[place + 1 :])
        if damage(path) is not None:
            num_seen += 1
            continue
        try:
            loaded = torch.load(path, weights_only=True)
        except Exception:  # noqa: S112  # torch sees it by itself
            continue
        assert torch.equal(loaded["weight"], weight)
        assert loaded["step"] == 7
    assert num_seen > 100


@pytest.mark.parametrize(("kept", "problem"), [(0.0, "it is empty"), (0.5, "its end is missing")])
def test_a_checkpoint_that_is_cut_off_is_damaged(kept: float, problem: str, here: Path) -> None:
    path = here / "run.ckpt"
    DurableCheckpointIO().save_checkpoint({"weight": torch.randn(300)}, path)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    assert problem in str(damage(path))


def test_a_checkpoint_without_its_first_bytes_is_damaged(here: Path) -> None:
    path = here / "run.ckpt"
    DurableCheckpointIO().save_checkpoint({"weight": torch.randn(300)}, path)
    path.write_bytes(path.read_bytes()[2:])
    assert "it is no checkpoint" in str(damage(path))


# Found by name.


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
    config["trainer"]["callbacks"].append(LAST)
    if loggers:
        options = {"save_dir": "logs", "name": "tiny"}
        config["trainer"]["logger"] = [{"class_path": name, "init_args": options} for name in loggers]
    return config


def test_fit_goes_on_with_last_in_the_folder_of_its_run(run: Any) -> None:
    name = write(with_last())
    assert run("fit", "--config", name, "--ckpt_path", "last").first_line == (
        "error: --ckpt_path last: no run in 'logs/tiny' has a checkpoint of this name"
    )
    assert run("fit", "--config", name).code == 0
    again = run("fit", "--config", name, "--ckpt_path", "last", "--trainer.max_epochs", "2")
    assert (again.code, again.err) == (0, "note: --ckpt_path last is logs/tiny/version_0/checkpoints/last.ckpt\n")
    assert [folder.name for folder in Path("logs/tiny").iterdir()] == ["version_0"]
    assert torch.load("logs/tiny/version_0/checkpoints/last.ckpt", weights_only=True)["epoch"] == 1
    ended = run("fit", "--config", name, "--ckpt_path", "last")
    assert "nothing was trained" in ended.err
    tested = run("test", "--config", name, "--ckpt_path", "best")
    assert tested.err == f"note: --ckpt_path best is {BEST}\n"
    assert "run folder: logs/tiny/version_1" in tested.out


def test_the_config_of_a_folder_in_which_a_fit_went_on_is_that_of_a_new_run(run: Any) -> None:
    assert run("fit", "--config", write(with_last())).code == 0
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
    assert ended.first_line.endswith("'logs/tiny/no', which the logger's version names, has no checkpoint of this name")


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


def test_a_damaged_last_is_named_and_the_newest_good_one_is_taken(run: Any, fitted: Path) -> None:
    shutil.copytree(fitted, ".", dirs_exist_ok=True)
    Path(BEST).with_name("last.ckpt").write_bytes(b"")
    ended = run("validate", "--config", "tiny.yaml", "--ckpt_path", "last")
    assert ended.code == 0
    assert ended.err.splitlines() == [
        "note: logs/tiny/version_0/checkpoints/last.ckpt is damaged: it is empty",
        f"note: --ckpt_path last is {BEST}",
    ]


def test_a_checkpoint_with_a_flipped_bit_is_refused_by_name(run: Any, fitted: Path) -> None:
    shutil.copytree(fitted, ".", dirs_exist_ok=True)
    path = Path(BEST)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        place = next(info for info in archive.infolist() if "/data/" in info.filename)
    content[place.header_offset + place.file_size + 100] ^= 64
    content[len(content) // 2] ^= 64
    path.write_bytes(content)
    ended = run("test", "--config", "tiny.yaml", "--ckpt_path", BEST)
    assert ended.code == 2
    assert f"the checkpoint {BEST!r} is damaged" in ended.first_line
