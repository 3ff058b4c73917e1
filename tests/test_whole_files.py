"""Files that are written whole or not at all, and what processes leave that are killed as they write."""

from __future__ import annotations

import errno
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from touchstone.runs.whole_files import place_beside, replacing, write_together, write_whole

LEFT = ".report.json.0123abcd.part"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def old(path: Path, hours: float) -> None:
    os.utime(path, (time.time() - hours * 3600,) * 2)


def test_what_a_killed_process_left_is_taken_away_an_hour_later_by_the_next_that_writes_the_file(
    tmp_path: Path,
) -> None:
    others = [".report.json.456789ab.part", ".report.json.bak.0123abcd.part", ".verdicts.npz.0123abcd.part"]
    for name in (LEFT, *others):
        (tmp_path / name).write_bytes(b"half")
        old(tmp_path / name, 0.9 if "456" in name else 1.1)
    write_whole(tmp_path / "report.json", "whole")
    assert names(tmp_path) == [*others, "report.json"]


def test_what_a_killed_process_left_of_a_checkpoint_is_taken_away_at_once(tmp_path: Path) -> None:
    (tmp_path / LEFT).write_bytes(b"half")
    with replacing(tmp_path / "report.json", dead_after=0) as file:
        file.write(b"whole")
    assert names(tmp_path) == ["report.json"]


def test_several_that_write_one_file_of_a_run_folder_at_once_all_succeed(tmp_path: Path) -> None:
    contents = [str(writer) * 20_000 for writer in range(4)]
    with ThreadPoolExecutor(len(contents)) as pool:
        for _done in pool.map(
            lambda content: [write_whole(tmp_path / "config.yaml", content) for _try in range(30)], contents
        ):
            pass
    assert names(tmp_path) == ["config.yaml"]
    assert (tmp_path / "config.yaml").read_text() in contents


def test_files_are_on_the_disk_before_any_of_them_is_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def noting(name: str) -> Any:
        real = getattr(os, name)
        return lambda *given: (done.append(name), real(*given))[1]

    monkeypatch.setattr(os, "fsync", noting("fsync"))
    monkeypatch.setattr(os, "replace", noting("replace"))
    write_together({tmp_path / "a": "1", tmp_path / "b": b"2"})
    assert done == ["fsync", "fsync", "replace", "replace", "fsync"]  # the last one is the folder's


def test_what_another_process_writes_in_a_shared_folder_is_left_alone_for_a_day(tmp_path: Path) -> None:
    dead, slow = tmp_path / ".dead.0123abcd.part", tmp_path / ".slow.0123abcd.part"
    for folder in (dead, slow, tmp_path / LEFT):
        folder.mkdir()
        (folder / "train.bin").touch()
    for path in (dead / "train.bin", dead, slow):  # a folder is as old as its last entry, and not as the last write
        old(path, 25)
    with replacing(tmp_path / "report.json", is_shared=True) as file:
        file.write(b"whole")
    assert names(tmp_path) == sorted([LEFT, slow.name, "report.json"])


def test_what_others_call_a_part_is_left_alone(tmp_path: Path) -> None:
    others = [".film.mkv.part", ".film.mkv.12345678.part.part", ".part"]
    for name in others:
        (tmp_path / name).touch()
        old(tmp_path / name, 25)
    with replacing(tmp_path / "cache", is_shared=True) as file:
        file.write(b"whole")
    assert names(tmp_path) == sorted([*others, "cache"])


@pytest.mark.parametrize("name", ["x" * 216, "x" * 255, "\u00e9" * 127])
def test_a_name_may_be_as_long_as_the_disk_allows(tmp_path: Path, name: str) -> None:
    write_whole(tmp_path / name, "whole")
    assert names(tmp_path) == [name]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EIO])
def test_a_disk_that_cannot_be_waited_for_is_written_to_and_one_that_fails_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fsync(descriptor: int) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(os, "fsync", fsync)
    if number == errno.EIO:
        with pytest.raises(OSError, match="no"):
            write_whole(tmp_path / "report.json", "whole")
    else:
        write_whole(tmp_path / "report.json", "whole")
    assert names(tmp_path) == ["report.json"] * (number != errno.EIO)


def test_two_that_write_one_shared_file_at_once_both_succeed(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    with replacing(path, is_shared=True) as slow:
        slow.write(b"slow")
        with replacing(path, is_shared=True) as fast:
            fast.write(b"fast")
        assert path.read_bytes() == b"fast"
    assert path.read_bytes() == b"slow"
    assert names(tmp_path) == ["cache"]


def test_a_folder_that_could_not_be_filled_goes(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), place_beside(tmp_path / "all") as part:  # noqa: PT012
        part.mkdir()
        (part / "half").touch()
        raise KeyboardInterrupt
    assert not names(tmp_path)


def test_an_error_names_the_file_and_not_the_place_beside_it(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()

    def replace(path: Path) -> None:
        with replacing(path):
            pass

    for write in (lambda path: write_whole(path, "x"), replace):
        with pytest.raises(OSError, match="x" * 256) as caught:
            write(tmp_path / ("x" * 256))
        assert caught.value.filename == str(tmp_path / ("x" * 256))
    with pytest.raises(OSError, match="there") as caught, replacing(tmp_path / "there") as file:
        file.write(b"x")
    assert caught.value.filename == str(tmp_path / "there")
