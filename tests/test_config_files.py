"""A config or a file that is missing, or none: named, with the nearest that there is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from .command_lines import TINY, write

pytestmark = pytest.mark.usefixtures("here")


FILES_THAT_ARE_NO_CONFIG = {
    "broken": (b"trainer:\n  max_epochs: 3\n  x: [1,\nmodel: 3\n", "line 5: this is not YAML"),
    "tabs": (b"trainer:\n\tmax_epochs: 3\n", "line 2: this is not YAML"),
    "empty": (b"", "is empty"),
    "only a comment": (b"# nothing\n", "holds keys"),
    "a list": (b"- a\n- b\n", "holds keys"),
    "a word": (b"abc\n", "holds keys"),
    "a key twice": (b"model: 3\ntrainer:\n  a: 1\n  a: 2\n", "line 4: the key 'a' stands here and in line 3"),
    "a key twice in a line": (b"model: {a: 1, b: 2, a: 3}\n", "line 1: the key 'a' stands here and in line 1"),
    "nested too deep": (b"model: " + 100_000 * b"[", "is nested too deep"),
    "binary": (bytes(range(256)), "is not a text file"),
}


@pytest.mark.parametrize("kind", FILES_THAT_ARE_NO_CONFIG)
def test_a_file_that_is_no_config_is_named_with_the_reason(kind: str, run: Any) -> None:
    content, reason = FILES_THAT_ARE_NO_CONFIG[kind]
    Path("x.yaml").write_bytes(content)
    ended = run("fit", "--config", "x.yaml")
    assert ended.code == 2
    assert "x.yaml" in ended.first_line
    assert reason in ended.first_line


def test_a_missing_config_is_named_with_the_nearest_file(run: Any) -> None:
    write(TINY, "digits.yaml")
    assert run("fit", "--config", "digit.yaml").first_line.endswith("does not exist; did you mean 'digits.yaml'?")
    assert run("fit", "--config", "else.yaml").first_line.endswith("'else.yaml' does not exist")


def test_a_missing_config_is_named_with_the_one_of_a_like_ending_or_in_a_folder_below(run: Any) -> None:
    Path("configs").mkdir()
    write(TINY, "configs/digits.yaml")
    for name in ("configs/digits.yml", "digits.yaml", "configs/digit.yml"):
        assert run("fit", "--config", name).first_line.endswith("does not exist; did you mean 'configs/digits.yaml'?")
    assert run("fit", "--config", "configs/digits.json").first_line.endswith("'configs/digits.json' does not exist")


@pytest.mark.parametrize(
    "arguments",
    [
        ["fit", "--config", "LONG"],
        ["fit", "LONG"],
        ["fit", "--config", "tiny.yaml", "--ckpt_path", "LONG"],
        ["test", "--config", "tiny.yaml", "--model.net", "LONG.yaml"],
        ["test", "--config", "tiny.yaml", "--model.net", "LONG.Net"],
        ["verify", "LONG"],
        ["gallery", "LONG"],
    ],
)
def test_a_name_too_long_for_any_file_is_a_usage_error(arguments: list[str], run: Any) -> None:
    write(TINY)
    Path("below").mkdir()
    Path("below/own.py").touch()
    ended = run(*(argument.replace("LONG", 300 * "n") for argument in arguments))
    assert (ended.code, ended.first_line[:7]) == (2, "error: ")
    assert 300 * "n" in ended.first_line


@pytest.mark.parametrize("text", ["!own 3", "!own [3]", "!own {a: 3}"])
def test_a_tag_that_nobody_knows_is_named_with_its_line(text: str, run: Any) -> None:
    Path("x.yaml").write_text(f"trainer:\n  max_epochs: {text}\n")
    ended = run("fit", "--config", "x.yaml")
    assert ended.code == 2
    assert ended.first_line.startswith("error: x.yaml, line 2: this is not YAML: could not determine a constructor")
    assert "'!own'" in ended.first_line


def test_a_link_that_leads_nowhere_is_not_what_was_meant(run: Any, here: Path) -> None:
    (here / "x.yaml").symlink_to("nowhere.yaml")
    assert run("fit", "--config", "x.yaml").first_line == "error: the config 'x.yaml' does not exist"


def test_a_folder_in_place_of_a_config_is_named(run: Any) -> None:
    Path("configs").mkdir()
    ended = run("fit", "--config", "configs")
    assert (ended.code, ended.first_line) == (2, "error: the config 'configs' is a folder, not a file")


def test_a_pipe_in_place_of_a_config_is_named_and_not_waited_for(run: Any) -> None:
    os.mkfifo("x.yaml")
    ended = run("fit", "--config", "x.yaml")
    assert (ended.code, ended.first_line) == (2, "error: the config 'x.yaml' is no file: it is read more than once")


def test_a_config_that_may_not_be_read_is_named(run: Any) -> None:
    Path(write(TINY)).chmod(0)
    if os.access("tiny.yaml", os.R_OK):
        pytest.skip("root reads every file")
    ended = run("fit", "--config", "tiny.yaml")
    assert ended.code == 2
    assert "'tiny.yaml' cannot be read" in ended.first_line
