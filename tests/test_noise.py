"""What a run says beside its figures: a warning is one line, so that an error behind it is found."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.utilities.warnings import PossibleUserWarning  # an import that puts Lightning's format there

from touchstone.callbacks import probe
from touchstone.cli.noise import warnings_in_a_line

from .command_lines import TINY, write

WARNS = """
import sys
import warnings

from touchstone.datamodules import DigitsDataModule

class Beware(DigitsDataModule):
    def setup(self, stage):
        super().setup(stage)
        sys.stderr.write(warnings.formatwarning(UserWarning("beware:\\nof   this"), UserWarning, "mine.py", 9))
"""


def test_a_command_prints_a_warning_in_one_line_without_its_source(run: Any, here: Path) -> None:
    before = warnings.formatwarning
    (here / "mine.py").write_text(WARNS)
    ended = run("validate", "--config", write(TINY), "--data", "mine.Beware")
    assert ended.code == 0
    assert "warning: UserWarning: beware: of this (mine.py, line 9)\n" in ended.err
    assert warnings.formatwarning is before  # which a program that calls main() has


def test_a_warning_that_is_not_written_for_users_says_where_it_comes_from() -> None:
    with warnings_in_a_line():
        said = warnings.formatwarning(RuntimeWarning("overflow in exp"), RuntimeWarning, "mine.py", 12)
        of_lightning = warnings.formatwarning(
            PossibleUserWarning("few workers"), PossibleUserWarning, str(pl.loops.__file__), 3
        )
        of_ours = warnings.formatwarning(UserWarning("no figures"), UserWarning, str(probe.__file__), 3)
    assert said == "warning: RuntimeWarning: overflow in exp (mine.py, line 12)\n"
    assert of_lightning == "warning: few workers\n"
    assert of_ours == "warning: no figures\n"
