"""What is not the same in two evaluations, in words."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .stored_reports import read_report, read_verdicts, report_names, verdicts_of

NOT_REPEATED = ("seconds",)
OF_THE_CODE = ("commit", "versions")  # other code may well measure the same, which is then worth knowing
SIGNS = "warnings"  # of masking, for which a training looks in some epochs only
TOLERANCE = 1e-5  # relative: bits per character are sums of 32-bit numbers, whose order is the machine's


def differences(stored: Path, again: Path) -> Iterator[str]:
    """Every figure, verdict and fingerprint that two run folders do not share, a line for each.

    Counts are the same, other numbers within `TOLERANCE`. Seconds do not repeat; `notes` tells of commit and versions.

    Raises:
        UsageError: a file of either is damaged.
    """
    names, measured = report_names(stored), report_names(again)
    yield from (f"{name}: the run has it, the measurement has not" for name in names if name not in measured)
    yield from (f"{name}: the measurement has it, the run has not" for name in measured if name not in names)
    for name in names:
        if name not in measured:
            continue
        before, now = read_report(stored / name), read_report(again / name)
        if before["data"] != now["data"]:
            fingerprints = f"fingerprint {now['data']}, not {_short(before['data'])}"
            yield f"{name}: the samples are not those of the run ({fingerprints})"
        yield from (f"{name}: {line}" for line in _of_figures(before, now))
        yield from (f"{name}: the measurement does not show the sign: {sign}" for sign in _signs(before, not_in=now))
        if (table := verdicts_of(name)) is not None:
            yield from (f"{table}: {line}" for line in _of_verdicts(stored / table, again / table))


def notes(stored: Path, again: Path) -> Iterator[str]:
    """What is not the same and no reason to doubt the figures: the code, its libraries, signs that were not sought."""
    for name in report_names(stored):
        if not (again / name).is_file():
            continue
        before, now = read_report(stored / name), read_report(again / name)
        for key in OF_THE_CODE:
            yield from (f"{name}: {line}" for line in _of_values(before.get(key), now.get(key), key))
        yield from (f"{name}: the run does not hold the sign: {sign}" for sign in _signs(now, not_in=before))


def _signs(report: dict[str, Any], *, not_in: dict[str, Any]) -> list[str]:
    return [sign for sign in report.get(SIGNS, []) if sign not in not_in.get(SIGNS, [])]


def _of_figures(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    apart = ("data", SIGNS, *OF_THE_CODE)
    one, other = ({key: value for key, value in report.items() if key not in apart} for report in (before, now))
    yield from _of_values(one, other, "")


def _of_values(before: Any, now: Any, key: str) -> Iterator[str]:
    """The differences of two values of a report, where `key` leads."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in dict.fromkeys([*before, *now]):
            inner = f"{key}.{name}" if key else name
            if name in NOT_REPEATED:
                continue
            if name not in before or name not in now:
                yield f"{inner}: the {'measurement' if name in before else 'run'} has none"
            else:
                yield from _of_values(before[name], now[name], inner)
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        differ = [place for place, (one, other) in enumerate(zip(before, now, strict=True)) if not _same(one, other)]
        if differ:
            one, other = before[differ[0]], now[differ[0]]
            some = f"{len(differ)} of {len(before)} values differ, the first at {differ[0]}"
            yield f"{key}: {some}: {_short(one)} is stored, {_short(other)} was measured"
    elif not _same(before, now):
        yield f"{key}: {_short(before)} is stored, {_short(now)} was measured"


def _same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return math.isclose(one, other, rel_tol=TOLERANCE) or (math.isnan(one) and math.isnan(other))
    return one == other


def _short(value: Any) -> str:
    return value if isinstance(value, str) and len(value) < 60 and value.isprintable() else reprlib.repr(value)


def _of_verdicts(stored: Path, again: Path) -> Iterator[str]:
    """The columns, and the samples in them, that two tables of verdicts do not share."""
    one, other = read_verdicts(stored), read_verdicts(again)
    for column in one.keys() ^ other.keys():
        yield f"the {'run' if column in other else 'measurement'} has no column {column}"
    columns = {column: (one[column], other[column]) for column in one if column in other}
    ids = columns["sample_id"]
    if not np.array_equal(*ids):
        yield f"other samples were measured, {len(ids[1])} and not {len(ids[0])} of them"
        return
    for column, (first, second) in columns.items():
        differ = ids[0][first != second]
        if len(differ):
            some = ", ".join(map(str, differ[:5].tolist())) + (", ..." if len(differ) > 5 else "")
            yield f"{column} differs for {len(differ)} of {len(first)} samples, ids {some}"
