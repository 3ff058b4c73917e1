"""What two run folders do not share: each difference by its key, and what is only noted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from touchstone.cli.differences import differences, notes

from .command_lines import edited
from .test_fuzz_configs import places


def test_whatever_is_forged_in_a_report_is_a_difference_of_that_key(copied: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(copied, again)
    true = json.loads((copied / "report.json").read_text())
    kept = ("seconds", "commit", "versions")
    ways = [way for way in places(true) if not set(kept) & set(way)]
    assert len(ways) > 40
    assert not [*differences(copied, again), *notes(copied, again)]
    for way in ways:
        report = json.loads(json.dumps(true))
        inner = report
        for step in way[:-1]:
            inner = inner[step]
        before = inner[way[-1]]
        other: Any = before + 1 if isinstance(before, (int, float)) else ["forged"]
        inner[way[-1]] = "test" if way == ("stage",) else other
        (again / "report.json").write_text(json.dumps(report))
        key = ".".join(step for step in way if isinstance(step, str))
        found = [*differences(copied, again), *notes(copied, again)]
        assert len(found) == 1, way
        if way not in (("data",), ("warnings",)):
            assert found[0].startswith(f"report.json: {key}"), way


def test_reports_that_one_folder_alone_holds_are_missed(copied: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(copied, again)
    for stem in ("report", "verdicts"):
        [source] = copied.glob(f"{stem}.*")
        shutil.copy(source, copied / f"{stem}_1{source.suffix}")
    assert list(differences(copied, again)) == ["report_1.json: the run has it, the measurement has not"]
    assert list(differences(again, copied)) == ["report_1.json: the measurement has it, the run has not"]


def test_a_sign_of_masking_that_was_put_in_is_a_difference_and_one_that_was_not_sought_is_none(
    copied: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    shutil.copytree(copied, again)
    signs = json.loads((copied / "report.json").read_text())["warnings"]
    edited(again / "report.json", warnings=[*signs, "a sign"])
    assert list(differences(copied, again)) == []
    assert list(notes(copied, again)) == ["report.json: the run does not hold the sign: a sign"]
    assert list(differences(again, copied)) == ["report.json: the measurement does not show the sign: a sign"]
