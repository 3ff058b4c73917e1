"""The end of a run in a terminal: a table of its report, signs of masking, and where everything lies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from touchstone.attacks import Surprise
from touchstone.callbacks.parts.records.report_files import STAGES

from ..runs.shown import shown

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

NARROW = 80
"""Columns of a terminal below which a table has no room to spare."""


def read_health(folder: Path, since: float = 0.0) -> list[str]:
    """What `Health` has found in a run, a line each; none where that is older than `since`, in seconds of the epoch."""
    path = folder / "health.txt"
    if not path.is_file() or path.stat().st_mtime < since:
        return []
    return [f"health: {line}" for line in path.read_text(encoding="utf-8").splitlines()]


def report_table(report: Mapping[str, Any]) -> Table:
    """Accuracy before any attack, after each, and after the worst of them for each sample.

    Args:
        report: what `callbacks/parts/records/report_files.py` writes: shares in [0, 1].
    """
    from rich.table import Table

    stage = STAGES.get(report["stage"], report["stage"])
    table = Table(title=f"{report['num_samples']} {stage} samples", title_justify="left", title_style="bold")
    _add_columns(table, "accuracy", "95 % interval", "success")
    table.add_row("none (clean)", *_accuracy(report["clean_accuracy"], report["clean_ci95"]))
    for name, attack in report["attacks"].items():
        table.add_row(
            name,
            *_accuracy(attack["robust_accuracy"], attack["ci95"]),
            _percent(attack["success"]),
            *_cost(attack, max(1, _num_attacked(report))),
        )
    table.add_row("worst case", *_accuracy(report["worst_case"], report["worst_case_ci95"]), style="bold")
    return table


def language_table(report: Mapping[str, Any]) -> Table:
    """Bits per character before any attack, and before and after each on the tokens that it left.

    Of an attack that is to surprise the model no success is shown: it reaches no goal, and the figures say how far it
    got.
    """
    from rich.table import Table

    stage = STAGES.get(report["stage"], report["stage"])
    title = f"{report['num_texts']} {stage} texts, bits per character"
    table = Table(title=title, title_justify="left", title_style="bold")
    _add_columns(table, "before", "after", "success")
    table.add_row("none (clean)", f"{report['bits_per_character/clean']:.3f}")
    for name, attack in report["attacks"].items():
        table.add_row(
            name,
            f"{report[f'bits_per_character/{name}_before']:.3f}",
            f"{report[f'bits_per_character/{name}']:.3f}",
            "" if attack["objective"] == repr(Surprise()) else _percent(report[f"attack_success/{name}"]),
            *_cost(attack, report["num_texts"]),
        )
    return table


def about_cost(report: Mapping[str, Any]) -> str:
    """What forwards and gradients are the mean of."""
    if "num_texts" in report:
        return "forwards, gradients: mean over the texts"
    of_all = f"{_num_attacked(report)} of {report['num_samples']}"
    return f"forwards, gradients: mean over the {of_all} samples that were right before"


def threats(report: Mapping[str, Any]) -> list[str]:
    """What the attacks may do, a line for each threat, and what the worst case is over where they differ."""
    names: dict[str, list[str]] = {}
    for name, attack in report["attacks"].items():
        names.setdefault(attack["threat"], []).append(name)
    if len(names) == 1:
        return [f"every attack within {threat}" for threat in names]
    lines = [f"{', '.join(attacks)}: within {threat}" for threat, attacks in names.items()]
    of_several = "worst case: right under every attack, each within its own threat"
    return [*lines, of_several] if "worst_case" in report else lines


def print_end(
    folder: Path | None,
    report: Mapping[str, Any] | None,
    log_folder: Path | None,
    *,
    language: Mapping[str, Any] | None = None,
    figures: Mapping[str, float] = MappingProxyType({}),
    is_lost: bool = False,
) -> None:
    """Prints what a run has found and where it lies.

    Args:
        folder: the run folder; None for not saying where anything lies.
        report: its report, if there is one.
        log_folder: what TensorBoard shows, if it logged.
        language: the report on a language model, if there is one.
        figures: those of measurements of one's own, by tag.
        is_lost: whether the last report could not be written, so that there is at most an older one.
    """
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False, soft_wrap=False)
    console.print()
    if is_lost:
        console.print("[yellow]no table:[/] the last report could not be written, and one in the run folder is older")
    elif report is not None:
        _print_table(console, report_table(report), report)
        for warning in report["warnings"]:
            console.print(f"[yellow]sign of masking:[/] {escape(warning)}")
    if language is not None:
        _print_table(console, language_table(language), language)
    for tag, value in figures.items():
        console.print(f"{escape(shown(tag))}: {value:.4g}", soft_wrap=True)
    if folder is None:
        return
    for line in read_health(folder):
        console.print(escape(line))
    for line in _where_all_lies(folder, log_folder, is_of_first=report is not None):
        console.print(escape(line), soft_wrap=True)


def _where_all_lies(folder: Path, log_folder: Path | None, *, is_of_first: bool) -> Iterator[str]:
    """A line for each thing that a run has left; `is_of_first`: a table was shown, which is of the first loader."""
    for path in (folder / "predictions.csv", *sorted(folder.glob("predictions_[0-9]*.csv"))):  # one for each loader
        if path.is_file():
            yield f"predictions: {path}"
    if is_of_first and (others := sorted(path.name for path in folder.glob("report_[0-9]*.json"))):
        yield f"the table is of the first data loader; of the others: {', '.join(others)}"
    yield f"run folder: {folder}"
    if log_folder is not None:
        in_clone = log_folder == Path("logs") and Path("Makefile").is_file() and Path("train.py").is_file()
        yield f"to view it: tensorboard --logdir {log_folder}{', or make tensorboard' if in_clone else ''}"


def _print_table(console: Console, table: Table, report: Mapping[str, Any]) -> None:
    """And what it is of; where a terminal is narrow, without the space beside the cells, so that figures stay whole."""
    from rich.markup import escape

    if console.width < NARROW:
        table.padding = 0
    console.print(table)
    for line in (*threats(report), about_cost(report)):
        console.print(f"[dim]{escape(line)}[/]")


def _add_columns(table: Table, *headings: str) -> None:
    """Those of an attack's name, of figures, and of what it cost: where all are too wide, names give way."""
    table.add_column("attack", overflow="fold", min_width=8)
    for heading in (*headings, "forwards", "gradients"):
        table.add_column(heading, justify="right", no_wrap=True)


def _num_attacked(report: Mapping[str, Any]) -> int:
    return round(report["clean_accuracy"] * report["num_samples"])  # the rest was wrong before


def _cost(attack: Mapping[str, Any], num: int) -> tuple[str, str]:
    return f"{attack['num_forwards'] / num:.1f}", f"{attack['num_backwards'] / num:.1f}"


def _accuracy(share: float, interval: list[float]) -> tuple[str, str]:
    low, high = interval
    return _percent(share), f"{100 * low:.1f} - {100 * high:.1f} %"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
