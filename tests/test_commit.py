"""The commit in a report is that of this project's code, wherever the user stands."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SAYS_COMMIT = "import runpy, sys; print(runpy.run_path(sys.argv[1])['commit']())"


def git(folder: Path, *arguments: str) -> str:
    name = ("-c", "user.name=Someone", "-c", "user.email=someone@example.org")
    command = ["git", "-C", str(folder), *name, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def repository(folder: Path) -> str:
    """Makes a repository of a folder; the name of its one commit."""
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", f"the files of {folder}")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A repository of the user's own."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "notes").write_text("mine")
    repository(folder)
    return folder


def copied(root: Path, folder: Path) -> Path:
    """A folder with as much of this project as says its commit."""
    (folder / "callbacks" / "parts" / "records").mkdir(parents=True)
    shutil.copy(root / "callbacks" / "parts" / "records" / "commit.py", folder / "callbacks" / "parts" / "records")
    (folder / "train.py").touch()
    return folder


def said(code: Path, stands_in: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(stands_in)
    command = [sys.executable, "-c", SAYS_COMMIT, str(code / "callbacks" / "parts" / "records" / "commit.py")]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_the_commit_is_that_of_the_code_and_not_of_the_current_folder(
    other: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = copied(root, tmp_path / "code")
    head = repository(code)
    assert head != git(other, "rev-parse", "HEAD")
    assert said(code, other, monkeypatch) == head
    (code / "mine.py").touch()  # which git does not know
    assert said(code, tmp_path, monkeypatch) == head
    (code / "train.py").write_text("changed")
    assert said(code, other, monkeypatch) == f"{head}+"
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    assert said(code, other, monkeypatch) == f"{head}+"


def test_code_that_no_repository_holds_has_no_commit(
    other: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = copied(root, other / "site-packages")  # as in an environment inside a repository
    for code in (installed, copied(root, tmp_path / "elsewhere")):
        assert said(code, other, monkeypatch) == "None"
