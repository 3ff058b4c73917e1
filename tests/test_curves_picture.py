"""The curves of several runs stand in one figure, which says which is which."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from touchstone.callbacks import RobustnessCurves
from touchstone.callbacks.parts.pictures.curves_picture import curves_picture
from touchstone.callbacks.parts.records.curves_file import Curves, read_curves

from .curves_setting import PGD_20, Linear, linear_loader
from .lightning_programs import trainer


def some_curves(run: str, **options: Any) -> Curves:
    steps = {"steps": [0, 1, 10], "accuracy_after_steps": [0.9, 0.7, 0.6], "loss_after_steps": [0.1, 0.5, 0.6]}
    values = {
        "run": run, "stage": "val", "attack": "PGD(...)", "threat": "Linf", "threat_eps": 0.1, "num_samples": 50,
        "num_classes": 10, "eps": [0.0, 0.1], "accuracy_at_eps": [0.9, 0.5], **steps,
    }  # fmt: skip
    return Curves(**{**values, **options})


def test_earlier_runs_are_drawn_in_the_same_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[list[Curves]] = []
    monkeypatch.setattr(
        "touchstone.callbacks.curves.curves_picture",
        lambda runs, levels: drawn.append(list(runs)) or curves_picture(runs, levels),
    )
    first = trainer(tmp_path / "a", RobustnessCurves(attack=PGD_20, eps=[0.1], steps=[2]))
    first.validate(Linear(), linear_loader(), verbose=False)
    again = RobustnessCurves(attack=PGD_20, eps=[0.05], steps=[5], compare_with=[str(first.log_dir)])
    trainer(tmp_path / "b", again).validate(Linear(), linear_loader(), verbose=False)
    assert [run.eps for run in drawn[1]] == [[0, 0.05], [0, 0.1]]
    assert drawn[1][1] == read_curves(str(first.log_dir), "Linf") == drawn[0][0]


def test_the_legend_says_which_run_is_which_and_what_is_not_alike() -> None:
    runs = [
        some_curves("digits/version_1"),
        some_curves("digits_robust/version_3", num_samples=20),
        some_curves("digits/version_2", stage="test", attack="FGSM(...)", num_classes=4),
    ]
    figure = curves_picture(runs)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "digits/version_1",
        "digits_robust (other num_samples)",
        "digits/version_2 (other attack, stage)",
        "before any attack",
    ]
    accuracy, steps, loss = figure.axes
    assert {text.get_text().strip() for text in accuracy.texts} == {
        "chance, 10 classes", "chance, 4 classes", "eps of the steps",
    }  # fmt: skip
    assert {line.get_ydata()[0] for line in accuracy.lines if line.get_linestyle() == "--"} == {0.1, 0.25}
    assert list(loss.lines[0].get_ydata()) == [0.1, 0.5, 0.6]
    assert [text.get_text() for text in steps.get_xticklabels()] == ["0", "1", "10"]


def test_the_eps_of_a_level_is_named_on_the_curve_where_it_passes_it() -> None:
    run = some_curves("a/version_0", eps=[0, 0.1, 0.2], accuracy_at_eps=[0.9, 0.5, 0.1], threat_eps=8 / 255)
    figure = curves_picture([run], levels=[0.3, 0.95])
    named = [text for text in figure.axes[0].texts if "%" in text.get_text()]
    assert [(text.get_text(), text.xy) for text in named] == [(" 30.00% at 0.15", (pytest.approx(0.15), 0.3))]
    assert figure.axes[1].get_title() == "right within these steps, inside Linf 8/255"


def test_without_steps_there_is_one_panel() -> None:
    run = some_curves("a/version_0", steps=[0], accuracy_after_steps=[0.9], loss_after_steps=[0.1])
    assert len(curves_picture([run]).axes) == 1
