"""Checkpoints: written whole or not at all, found by name, and looked at before they are loaded."""

from __future__ import annotations

import os
import random
import resource
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

from .command_lines import BEST, LINF, ROOT, TINY, with_value, write

pytestmark = pytest.mark.usefixtures("here")

# Looked at before they are loaded.


def test_a_checkpoint_that_is_none_is_named(run: Any, here: Path) -> None:
    name = write(TINY)
    Path("text.ckpt").write_text("no checkpoint")
    torch.save({"a": 1}, "other.ckpt")
    torch.save({"state_dict": [1], "pytorch-lightning_version": "2.6.0"}, "list.ckpt")
    torch.save({"state_dict": {}}, "whole.ckpt")
    Path("cut.ckpt").write_bytes(Path("whole.ckpt").read_bytes()[:200])
    for path, reason in {
        "texd.ckpt": "does not exist; did you mean 'text.ckpt'?",
        "text.ckp": "does not exist; did you mean 'text.ckpt'?",
        "hpc": "does not exist",  # names of Lightning's, under which there is nothing here
        "registry": "does not exist",
        "registry:model:version:v2": "does not exist",
        str(here): "is a folder",
        "": "--ckpt_path needs a file, last or best",
        os.devnull: "is no file",
        "text.ckpt": "is no checkpoint",
        "other.ckpt": "has no state_dict",
        "list.ckpt": "has no state_dict",
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
    left_over = here / "deep" / ".run.ckpt.0123abcd.part"
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


@pytest.mark.parametrize("num_bytes", [1_000, 40_000, 80_000])
def test_a_checkpoint_that_finds_no_room_says_what_the_disk_says(num_bytes: int, here: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            DurableCheckpointIO().save_checkpoint({str(n): torch.zeros(5000) for n in range(4)}, here / "run.ckpt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.filename == str(here / "run.ckpt")
    assert not list(here.iterdir())


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
