"""`misspelt_split`: a folder that is meant as a split, and bears a name by which it is not found."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Set

SPELLINGS = {
    "train": ("train", "training"),
    "val": ("val", "vals", "valid", "validate", "validation", "eval", "evaluation", "dev"),
    "test": ("test", "tests", "testing"),
}
"""What people call the splits, of which the first is the one that is read."""
CUTOFF = 0.85  # one slip in a long word; test_hard and val_2019 are further away


def misspelt_split(folders: Mapping[str, Set[str]]) -> tuple[str, str] | None:
    """The first folder that is a split under another name, and the name it should have; None where there is none.

    It has a class in common with another folder, and what it is meant to be is not there by its own name. Where there
    is no train/, folders are classes, unless all of them are called as splits are.

    Args:
        folders: the names of the folders at the top, each with those of the folders inside it.
    """
    meant = {name: _meant(name) for name in sorted(folders)}
    are_splits = "train" in folders or ("train" in meant.values() and all(meant.values()))
    for name, split in meant.items() if are_splits else ():
        beside = set().union(*(inside for other, inside in folders.items() if other != name))
        if split is not None and split not in folders and folders[name] & beside:
            return name, split
    return None


def _meant(name: str) -> str | None:
    splits = {spelling: split for split, spellings in SPELLINGS.items() for spelling in spellings}
    near = difflib.get_close_matches(name.lower(), splits, 1, CUTOFF)
    return splits[near[0]] if near else None
