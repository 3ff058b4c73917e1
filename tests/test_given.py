"""The tree of what was given: configs and options, merged as jsonargparse merges them, each with its place."""

from __future__ import annotations

import pytest

from touchstone.cli.given import Given, merge_given

from .command_lines import write

pytestmark = pytest.mark.usefixtures("here")


def test_options_are_merged_into_the_tree_as_jsonargparse_merges_them() -> None:
    write(
        {"model": {"class_path": "a.B", "init_args": {"x": 1, "y": 1e-3}}, "trainer": {"callbacks": ["a.C"]}}, "a.yaml"
    )
    tree = merge_given(["--config", "a.yaml", "--model.x=2", "--trainer.callbacks+=a.D", "--trainer.callbacks.z", "3"])
    assert tree.plain() == {
        "model": {"class_path": "a.B", "init_args": {"x": 2, "y": 1e-3}},
        "trainer": {"callbacks": ["a.C", {"class_path": "a.D", "init_args": {"z": 3}}]},
    }
    assert tree.value["model"].value["class_path"].place == "a.yaml, line 2"
    assert tree.value["model"].value["init_args"].value["x"].place == "command line"


def test_another_class_drops_the_arguments_of_the_first() -> None:
    old = Given({"class_path": Given("a.B", ""), "init_args": Given({"x": Given(1, "")}, "")}, "")
    new = Given({"class_path": Given("a.C", "")}, "")
    assert old.updated(new).plain() == {"class_path": "a.C"}
