"""`verify` and run folders that are damaged or lack a file: it is named before anything is measured."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .command_lines import RUN


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((), "verify needs a run folder: python train.py verify logs/digits/version_0"),
        (("logs/none",), "the run folder 'logs/none' does not exist"),
        (("logs",), "'logs' holds no report.json: verify needs the folder of a run that was evaluated"),
    ],
)
def test_a_folder_without_an_evaluation_is_named(
    run: Any, copied: Path, arguments: tuple[str, ...], problem: str
) -> None:
    ended = run("verify", *arguments)
    assert (ended.code, ended.first_line) == (2, f"error: {problem}")


@pytest.mark.parametrize("name", ["config.yaml", "verdicts.npz"])
def test_a_file_of_the_run_that_is_gone_is_named(run: Any, copied: Path, name: str) -> None:
    (copied / name).unlink()
    ended = run("verify", RUN)
    problem = f"error: {RUN!r} holds no {name}: verify needs the folder of a run that was evaluated"
    assert (ended.code, ended.first_line) == (2, problem)


def test_the_report_of_a_second_loader_alone_is_no_evaluation(run: Any, copied: Path) -> None:
    (copied / "report.json").rename(copied / "report_1.json")
    ended = run("verify", RUN)
    problem = f"error: {RUN!r} holds no report.json: verify needs the folder of a run that was evaluated"
    assert (ended.code, ended.first_line) == (2, problem)


class Written:
    """What a malicious pickle does when it is loaded."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("written"),)


def damaged_npz(**columns: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **columns)
    return file.getvalue()


DAMAGES: dict[str, tuple[str, bytes, str]] = {
    "an empty report": ("report.json", b"", "report.json' cannot be read: "),
    "a report cut off": ("report.json", b'{"stage": "val", "weig', "report.json' cannot be read: "),
    "a report of other bytes": ("report.json", b"\xff\xfe\x00", "report.json' cannot be read: "),
    "a report of something else": ("report.json", b"[1, 2]", "does not say which weights"),
    "a report nested too deep": ("report.json", b"[" * 100_000, "report.json' cannot be read: "),
    "a report of no stage": ("report.json", b'{"weights": "a", "stage": "x"}', "has a stage, val or test"),
    "no verdicts": ("verdicts.npz", b"", "verdicts.npz' cannot be read: "),
    "a report of no signs": (
        "report.json", b'{"weights": "a", "stage": "val", "data": 1, "num_samples": 1, "warnings": 3}', "warnings are",
    ),
    "verdicts cut off": ("verdicts.npz", damaged_npz(sample_id=np.arange(20))[:90], "verdicts.npz' cannot be read: "),
    "verdicts with code": (
        "verdicts.npz", damaged_npz(sample_id=np.array([Written()], dtype=object)), "verdicts.npz' cannot be read: ",
    ),
    "verdicts of no sample": ("verdicts.npz", damaged_npz(label=np.arange(20)), "one of them sample_id"),
    "verdicts of two lengths": (
        "verdicts.npz", damaged_npz(sample_id=np.arange(20), label=np.arange(19)), "columns of one length",
    ),
    "a config with code": (
        "config.yaml", b"trainer: !!python/object/apply:os.mkdir [written]",
        "config.yaml, line 1: this is not YAML: could not determine a constructor for the tag",
    ),
    "a config cut off": ("config.yaml", b"model:\ntrainer: [", "config.yaml, line 2: this is not YAML: "),
    "a config of nothing": ("config.yaml", b"model: 3", "a config has the keys trainer, model and data"),
    "a checkpoint of other bytes": ("checkpoints/best.ckpt", b"PK\x03\x04 no more", "its end is missing"),
    "a checkpoint that is none": (
        "checkpoints/best.ckpt", damaged_npz(sample_id=np.arange(3)), "no checkpoint of weights",
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_of_the_run_is_named_before_anything_is_measured(damage: str, run: Any, copied: Path) -> None:
    name, content, problem = DAMAGES[damage]
    (copied / name).write_bytes(content)
    ended = run("verify", RUN)
    assert (ended.code, ended.out) == (2, "")
    assert problem in ended.first_line
    assert len(ended.err.splitlines()) <= 5
    assert len(ended.first_line) < 400
    assert not Path("written").exists()
