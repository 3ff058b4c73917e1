"""Every benchmark runs, in its smallest setting; what they measure is for a person to run and read."""

from __future__ import annotations

import time
from pathlib import Path
from types import ModuleType
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from touchstone import callbacks
from touchstone.attacks import Linf
from touchstone.nets import AirbenchNet, Faster, Normalized, SmallCNN

from .oracles import images, own_labels, small_net

NAMES = (
    "timing",
    "ledger",
    "digits_net",
    "attack_cost",
    "dream_cost",
    "pgd_floor",
    "callbacks_overhead",
    "validation_of_texts",
    "trainer_overhead",
    "startup",
    "memory",
    "scaling",
    "sequences",
    "input_pipeline",
    "long_run",
    "long_runs_of",
    "low_rank_curve",
    "adversarial_training",
    "digits_table",
    "whole_test_set",
)


def test_every_script_is_tested_and_stands_in_the_readme(root: Path) -> None:
    scripts = {path.stem for path in (root / "benchmarks").glob("*.py")}
    assert scripts == set(NAMES)
    text = (root / "benchmarks" / "README.md").read_text()
    assert all(
        f"`python benchmarks/{name}.py`" in text
        for name in scripts - {"timing", "ledger", "long_runs_of", "digits_net"}
    )


def narrow(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> None:
    """Lets a benchmark make nets of little width, `SmallCNN` and `PreActResNet`, in which nothing else is different."""
    monkeypatch.setattr(module, "SmallCNN", lambda width: SmallCNN(width=4))
    monkeypatch.setattr("touchstone.nets.preact_resnet.WIDTHS", (4, 4, 4, 4))


def test_pgd_is_compared_with_its_floor_and_peers(
    benchmark: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow(monkeypatch, benchmark("digits_net"))
    nets = ("resnet18", "preact_resnet", "digits")
    benchmark("pgd_floor").main(num_turns=1, num_steps=2, num_threads=1, nets=nets, small=True)
    printed = capsys.readouterr().out
    for row in ("floor", "touchstone, early_stop=False", "foolbox", "torchattacks"):
        assert printed.count(f"│ {row} ") == 6
    assert printed.count(f"torch {torch.__version__.split('+')[0]}") == 6


def test_a_peer_that_is_missing_is_named(
    benchmark: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pgd_floor = benchmark("pgd_floor")
    monkeypatch.setattr(pgd_floor, "version_of", lambda package: None)
    net, x, y = pgd_floor.digits(0)
    pgd_floor.compare("", net, x[:4], y[:4], pgd_floor.Linf(0.1), num_steps=1, num_turns=1, clock=time.perf_counter)
    assert capsys.readouterr().out.count("not installed") == 2


def test_a_ledger_keeps_what_each_callback_spends_on_what(benchmark: Any) -> None:
    ticks = iter(range(100))
    ledger = benchmark("ledger").Ledger(lambda: float(next(ticks)))

    class Works(pl.Callback):
        def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
            ledger.add("gradients", 0.25)

        def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
            raise AssertionError("not watched")

    works = Works()
    ledger.watch([works], lambda callback, hook: type(callback).__name__ if "start" in hook else None)
    works.on_fit_start(None, None)
    works.on_fit_start(None, None)
    ledger.add("gradients", 9.0)  # outside of the hooks
    assert ledger.spent == {"Works": {"gradients": 0.5, "all": 2.0}}
    assert benchmark("ledger").the_rest(ledger.spent["Works"]) == 1.5
    with pytest.raises(AssertionError, match="not watched"):
        works.on_fit_end(None, None)
    assert ledger.spent["Works"]["all"] == 2.0


def test_a_fit_is_measured_with_callbacks_and_without(
    benchmark: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    overhead = benchmark("callbacks_overhead")
    narrow(monkeypatch, overhead)
    overhead.main(num_turns=1, num_threads=1, nets=("preact_resnet", "digits"), small=True)
    printed = capsys.readouterr().out
    titles = [line for line in printed.splitlines() if ": a fit" in line]
    assert [title.split(",")[0] for title in titles] == ["PreActResNet-18"] * 2 + ["digits"] * 2
    assert printed.count("without + gradients alone") == 4
    assert printed.count("all beyond the attack's gradients") == 4


def test_a_validation_of_texts_is_measured_from_inside(benchmark: Any, capsys: pytest.CaptureFixture[str]) -> None:
    grad = torch.autograd.grad
    benchmark("validation_of_texts").main(num_validations=3, num_threads=1, small=True)
    printed = capsys.readouterr().out
    for callback, times in (("RecurrentJacobian", 2), ("Saturation", 2), ("RobustLanguage", 1), ("RobustAccuracy", 1)):
        assert printed.count(f"│ {callback}: gradients ") == printed.count(f"│ {callback}: the rest ") == times
    assert printed.count("all beyond validation and gradients") == 2
    assert torch.autograd.grad is grad


def test_the_trainer_is_compared_with_a_plain_loop(
    benchmark: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = benchmark("trainer_overhead")
    narrow(monkeypatch, module)
    module.main(num_turns=1, num_threads=1, small=True)
    assert "SmallCNN" in capsys.readouterr().out


def test_an_answer_is_timed_by_the_process_that_gives_it(benchmark: Any) -> None:
    wall, cpu, peak = benchmark("startup").run("-c", "x = bytes(50_000_000); import time; time.sleep(0.2)")
    assert wall > 0.2
    assert 0 < cpu < 10
    assert peak > 50e6


def test_a_ratio_is_taken_within_a_turn(benchmark: Any) -> None:
    timing = benchmark("timing")
    assert timing.ratio({"a": [2.0, 40.0, 6.0], "b": [1.0, 20.0, 2.0]}, "a", "b") == 2.0
    assert timing.take_turns({"a": lambda: 3.0}, 2) == {"a": [3.0, 3.0]}


def test_attack_cost_measures_and_draws(benchmark: Any, tmp_path: Path) -> None:
    module = benchmark("attack_cost")
    net, x = small_net().eval(), images(8)
    chosen = module.attacks(Linf(eps=0.1), with_autoattack=False)
    few = {name: chosen[name] for name in ("PGD, 20 steps", "Strongest, 5", "Strongest, 30")}
    rows = module.measure(net, x, own_labels(net, x), few)
    assert [row[0] for row in rows] == list(few)
    assert all(0 <= standing <= 8 and forwards > 0 for _, standing, forwards, _ in rows)
    module.draw({"a net": rows}, tmp_path / "cost.png")
    assert (tmp_path / "cost.png").stat().st_size > 5000


def test_a_whole_test_set_is_measured_in_parts_that_are_kept(
    benchmark: Any, shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = benchmark("whole_test_set")
    options = {"folder": tmp_path, "num_images": 10, "budgets": (2, 3), "num_threads": 1}
    module.main(shared, part_size=10, **options)
    whole = capsys.readouterr().out.splitlines()
    module.main(shared, part_size=4, **options)
    in_parts = capsys.readouterr().out.splitlines()
    assert len([line for line in in_parts if " to " in line]) == 3
    alike = [[line for line in lines if "all 10" in line or "stand" in line] for lines in (whole, in_parts)]
    assert alike[0] == alike[1]
    monkeypatch.setattr(module, "standing", None)
    module.main(shared, part_size=4, **options)  # from what was kept
    assert capsys.readouterr().out.splitlines() == in_parts


def test_a_dream_is_compared_with_its_floor_and_with_batches(
    benchmark: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    benchmark("dream_cost").main(num_turns=1, num_steps=1, num_threads=1, small=True)
    assert capsys.readouterr().out.count("│ ResNet-18, layer2 ") == 2


def test_input_pipelines_are_compared(benchmark: Any, capsys: pytest.CaptureFixture[str]) -> None:
    benchmark("input_pipeline").main(num_turns=1, num_threads=1, small=True)
    printed = capsys.readouterr().out
    assert all(f"│ {row} " in printed for row in ("ImageFolder and DataLoader", "ImagesDataModule", "training"))


def test_input_pipelines_are_compared_with_the_training_of_the_config(benchmark: Any) -> None:
    classifier = benchmark("input_pipeline").of_config()
    assert isinstance(classifier.net, Faster)
    assert isinstance(classifier.net.net, Normalized)
    assert any(isinstance(part, AirbenchNet) for part in classifier.net.modules())
    (group, *_) = classifier.configure_optimizers()["optimizer"].param_groups
    assert (group["momentum"], group["nesterov"]) == (0.85, True)


def test_accuracy_parameters_and_speed_are_measured_over_the_rank(benchmark: Any, tmp_path: Path) -> None:
    module = benchmark("low_rank_curve")
    net, x = small_net().eval(), images(8)
    rows = module.measure(net, x, own_labels(net, x), Linf(eps=0.1), ranks=[1, 4], num_turns=1, clock=time.perf_counter)
    assert [row.rank for row in rows] == [None, 1, 4]
    assert rows[0].accuracy == 1
    assert all(row.robust_accuracy <= row.accuracy for row in rows)
    assert rows[1].num_parameters <= rows[2].num_parameters <= rows[0].num_parameters
    module.draw(rows, tmp_path / "low_rank.png", "A small net")
    assert (tmp_path / "low_rank.png").stat().st_size > 5000


def test_ways_of_training_are_compared_in_cost(benchmark: Any, capsys: pytest.CaptureFixture[str]) -> None:
    benchmark("adversarial_training").main(num_turns=1, num_threads=1, batch_size=4, small=True)
    printed = capsys.readouterr().out
    assert all(f"│ {name} " in printed for name in ("plain", "PGD-AT", "TRADES", "MART", "FGSM-RS", "Free"))


@pytest.mark.slow
def test_ways_of_training_are_compared_in_what_they_reach(
    benchmark: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    ways, picture = ("standard", "Free", "EMA + PGD-AT"), str(tmp_path / "table.png")
    options = {"num_seeds": 2, "num_epochs": 1, "num_processes": 1, "small": True}
    benchmark("digits_table").main(ways=ways, picture=picture, **options)
    printed = capsys.readouterr().out
    assert all(f"│ {name} " in printed for name in ways)
    assert (tmp_path / "table.png").is_file()


reads_proc = pytest.mark.skipif(
    not Path("/proc/self/statm").is_file(), reason="memory and open files are read from /proc"
)


def is_flat(looks: list[Any]) -> bool:
    """Whether there are the same files and tensors at each look, no hooks, and as many bytes of events between them."""
    assert len(looks) > 2
    events = [look.events for look in looks]
    there = {(look.files, look.hooks, look.tensors) for look in looks}
    return len(there) == 1 and looks[0].hooks == 0 and max(events) < 1.1 * min(events)


@reads_proc
@pytest.mark.slow
def test_nothing_grows_from_validation_to_validation(benchmark: Any, tmp_path: Path) -> None:
    module = benchmark("long_run")
    seen = module.measure(tmp_path, "images", num_validations=30, every=5, pictures_every=100)
    assert [look.validation for look in seen] == [5, 10, 15, 20, 25, 30]
    assert is_flat(seen[:-1])  # pictures are drawn at the last
    assert seen[-1].hooks == 0
    module.draw({"images": seen}, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 5000


@reads_proc
@pytest.mark.parametrize("kind", ["recurrent", "attention"])
def test_nothing_grows_with_measurements_of_texts(benchmark: Any, tmp_path: Path, kind: str) -> None:
    seen = benchmark("long_run").measure(tmp_path, kind, num_validations=8, every=2)
    assert is_flat(seen[1:])  # the first look has the fonts that matplotlib opens meanwhile


@reads_proc
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["images", "recurrent", "attention"])
def test_memory_does_not_grow_over_hundreds_of_validations(benchmark: Any, tmp_path: Path, kind: str) -> None:
    seen = benchmark("long_run").measure(tmp_path, kind, num_validations=300, every=20)
    assert is_flat(seen[1:])
    later = [look.memory for look in seen if look.validation >= 100]
    assert later[-1] - later[0] < 20  # MB over 200 validations: 100 kB each


def test_long_runs_have_every_callback_that_works_in_a_fit(benchmark: Any, tmp_path: Path) -> None:
    module = benchmark("long_run")
    runs = [make(tmp_path, 1) for make in benchmark("long_runs_of").KINDS.values()]
    used = {type(callback).__name__ for run in runs for callback in module.callbacks_of(run, module.Watch(2), 1)}
    at_predict = {"LeastVisible", "NamedPredictions", "Predictions", "TargetedPictures"}
    assert set(callbacks.__all__) - used == at_predict | {"FindLearningRate", "Probe"}


@pytest.mark.filterwarnings("ignore")
def test_cost_and_communication_are_measured_over_the_processes(
    benchmark: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    spent = benchmark("scaling").measure(2, tmp_path, num_steps=3, num_samples=8, width=4, num_epochs=1)
    assert spent["step"] > 0
    assert spent["bytes_of_step"] >= 4 * sum(p.numel() for p in SmallCNN(width=4).parameters())
    assert spent["bytes_of_evaluation"] > 100
