"""The table at the end of a run, from the report in its folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader

from touchstone.attacks import FGSM, Linf, Surprise
from touchstone.callbacks import RobustAccuracy
from touchstone.cli.report_table import print_end, report_table
from touchstone.cli.stored_reports import fresh_report
from touchstone.datamodules import DigitsDataModule
from touchstone.lightning_modules import Classifier
from touchstone.nets import SmallCNN

from .lightning_programs import trainer

pytestmark = pytest.mark.usefixtures("here")


def report_of(attacks: dict[str, Any], warnings: Sequence[str] = ()) -> dict[str, Any]:
    """Of a test of 100 samples."""
    return {
        "stage": "test",
        "num_samples": 100,
        "clean_accuracy": 0.8,
        "clean_ci95": [0.7, 0.9],
        "worst_case": 0.5,
        "worst_case_ci95": [0.4, 0.6],
        "attacks": attacks,
        "warnings": list(warnings),
    }


def test_the_table_names_each_threat_where_they_differ_and_prints_warnings(capsys: Any) -> None:
    attack = {"robust_accuracy": 0.5, "ci95": [0.4, 0.6], "success": 0.25, "num_forwards": 1640, "num_backwards": 160}
    report = report_of(
        {"one": {**attack, "threat": "Linf(0.1)"}, "two": {**attack, "threat": "L2(1.0)"}},
        warnings=["the gradient of [1, 2] is zero"],
    )
    print_end(Path("logs/x"), report, None)
    out = capsys.readouterr().out
    assert "L2(1.0)" in out
    assert "the gradient of [1, 2] is zero" in out
    assert "tensorboard" not in out
    table = report_table(report)
    assert "worst case: right under every attack, each within its own threat" in out
    assert [table.columns[place].header for place in (4, 5)] == ["forwards", "gradients"]
    assert list(table.columns[4].cells) == ["", "20.5", "20.5", ""]  # 1640 for the 80 samples that were right
    assert list(table.columns[5].cells) == ["", "2.0", "2.0", ""]
    assert "forwards, gradients: mean over the 80 of 100 samples that were right before" in out
    assert list(table.columns[2].cells)[0] == "70.0 - 90.0 %"


@pytest.mark.parametrize("num_columns", [64, 80, 120])
def test_however_narrow_the_terminal_names_give_way_and_figures_stay(
    num_columns: int, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(num_columns))
    name = "pgd_linf_8_255_20_steps_5_restarts_of_which_the_worst_counts"
    figures = {"robust_accuracy": 0.512, "ci95": [0.41, 0.61], "success": 0.253, "threat": "L"}
    figures |= {"num_forwards": 800_160, "num_backwards": 160}  # as a black box asks
    report = report_of({name: figures})
    print_end(None, report, None)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= num_columns
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if "│" in line]
    assert name in "".join(row[0] for row in cells)
    assert ["51.2 %", "41.0 - 61.0 %", "25.3 %", "10002.0", "2.0"] in [row[1:] for row in cells]


def test_reports_of_further_data_loaders_are_named(tmp_path: Path, capsys: Any) -> None:
    class Twice(DigitsDataModule):
        def test_dataloader(self) -> list[DataLoader]:  # type: ignore[override]
            return [super().test_dataloader(), super().val_dataloader()]

    attacks = {"fgsm": FGSM(threat=Linf(eps=0.1))}
    for data, is_named in ((DigitsDataModule(), False), (Twice(), True)):
        run = trainer(tmp_path, RobustAccuracy(attacks, max_samples=20, num_images=0))
        run.test(Classifier(SmallCNN()), datamodule=data, verbose=False)
        folder = Path(run.log_dir)  # type: ignore[arg-type]
        print_end(folder, fresh_report(folder / "report.json", 0), None)
        said = "the table is of the first data loader; of the others: report_1.json" in capsys.readouterr().out
        assert said == is_named


def test_a_language_model_has_a_table_in_bits_per_character(capsys: Any) -> None:
    report = {
        "stage": "val",
        "num_texts": 50,
        "bits_per_character/clean": 2.5,
        "bits_per_character/flips_before": 2.4,
        "bits_per_character/flips": 3.1234,
        "attack_success/flips": 0.26,
        "attacks": {"flips": {"threat": "TokenFlips(3)", "objective": "NextToken(target=3)"}},
    }
    report["attacks"]["flips"] |= {"num_forwards": 510, "num_backwards": 75}
    print_end(None, None, None, language=report)
    out = capsys.readouterr().out
    assert "50 validation texts, bits per character" in out
    assert "every attack within TokenFlips(3)" in out
    row = next(line for line in out.splitlines() if "flips" in line)
    assert [cell.strip() for cell in row.strip("│").split("│")] == ["flips", "2.400", "3.123", "26.0 %", "10.2", "1.5"]
    assert "forwards, gradients: mean over the texts" in out
    assert "worst case" not in out


def test_an_attack_that_has_no_goal_has_no_success(capsys: Any) -> None:
    attack = {"threat": "TokenFlips(3)", "objective": repr(Surprise()), "num_forwards": 75, "num_backwards": 75}
    figures = {f"bits_per_character/{name}": 2.0 for name in ("clean", "flips_before", "flips")}
    report = {"stage": "val", "num_texts": 50, **figures, "attack_success/flips": 0.0, "attacks": {"flips": attack}}
    print_end(None, None, None, language=report)
    assert "0.0 %" not in capsys.readouterr().out
